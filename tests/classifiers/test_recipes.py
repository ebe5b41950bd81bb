"""Recipes of training settings, and parameters that replace them."""

import inspect
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from toy_backbone import AnyWidthBackbone

from clipcal import CoOp, KgCoOp, PromptTunedCLIPClassifier
from clipcal.methods import DePT
from clipcal.training import Recipe

NAMES = ["dog", "river", "hammer"]
X = np.random.default_rng(0).normal(size=(40, 16))
Y = np.array((NAMES * 14)[:40])


def fitted(**params):
    return PromptTunedCLIPClassifier(AnyWidthBackbone(), random_state=0, **params).fit(X, Y)


@pytest.mark.parametrize(
    ("method", "recipe", "expected"),
    [
        ("coop", "original", {"max_epochs": 200, "batch_size": 32}),
        (CoOp(), "original", {"max_epochs": 200, "batch_size": 32}),
        ("coop", "dor", {"max_epochs": 200, "batch_size": 32}),
        ("kgcoop", "original", {"max_epochs": 100, "batch_size": 128}),
        ("cocoop", "original", {"max_epochs": 10, "batch_size": 1}),
        ("prograd", "original", {"max_epochs": 100, "batch_size": 32}),
        (KgCoOp(), "dor", {"max_epochs": 200, "batch_size": 32}),
    ],
)
def test_recipes_have_the_published_settings(method, recipe, expected):
    clf = fitted(method=method, recipe=recipe)
    common = {
        "optimizer": "sgd",
        "learning_rate": 0.002,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "schedule": "cosine",
        "warmup_epochs": 1,
        "warmup_rate": 1e-5,
        "drop_last": True,
        "early_stopping": False,
    }
    assert clf.recipe_ == {"recipe": recipe, **common, **expected}
    assert len(clf.history_) == expected["max_epochs"]


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        ("coop", "fast"),
        (KgCoOp(), "fast"),
        ("prograd", "fast"),
        ("clip-adapter", "fast"),
        ("cocoop", "original"),
        ("taskres", "original"),
        ("tip-adapter", "original"),
        (DePT(), "original"),
        (CoOp(class_specific=True), "original"),
    ],
)
def test_default_is_fast_for_methods_that_have_it(method, recipe):
    clf, named = (fitted(method=method, max_epochs=1, **params) for params in ({}, {"recipe": recipe}))
    assert clf.recipe == "auto"
    assert clf.recipe_ == named.recipe_
    assert clf.recipe_["recipe"] == recipe
    for name, values in named.learned_.items():
        np.testing.assert_array_equal(clf.learned_[name], values)


def test_own_fast_recipe_of_a_subclass_is_kept():
    class Mine(CoOp):
        recipes: ClassVar = {"original": Recipe(), "fast": Recipe(max_epochs=1, learning_rate=0.005)}

    assert fitted(method=Mine(context_init=None)).recipe_["learning_rate"] == 0.005


def test_default_names_the_recipes_of_a_method_without_an_original_one():
    class Mine(CoOp):
        recipes: ClassVar = {"mine": Recipe(max_epochs=1)}

    with pytest.raises(
        ValueError, match="recipe='original' is unknown for method Mine; choose one of 'mine'"
    ):
        fitted(method=Mine())


def test_method_given_by_name_gets_parameters_of_the_recipe():
    assert fitted(recipe="dor", max_epochs=1).learned_["context"].shape == (16, 16)
    assert fitted(recipe="dor", max_epochs=1, method=CoOp()).learned_["context"].shape == (4, 16)
    clf = PromptTunedCLIPClassifier(recipe="dor").set_params(method__text_chunk_size=3)
    assert (clf.method.context_init, clf.method.n_context, clf.method.text_chunk_size) == (None, 16, 3)


def test_set_params_uses_a_recipe_that_is_set_at_the_same_time():
    clf = PromptTunedCLIPClassifier(recipe="unknown").set_params(recipe="dor", method__text_chunk_size=5)
    assert (clf.method.context_init, clf.method.n_context, clf.method.text_chunk_size) == (None, 16, 5)
    grid = {"recipe": ["dor"], "method__n_context": [2, 3]}
    base = PromptTunedCLIPClassifier(AnyWidthBackbone(), max_epochs=1, random_state=0)
    assert GridSearchCV(base, grid, cv=2).fit(X, Y).best_estimator_.learned_["context"].shape[0] in (2, 3)


def test_parameters_replace_settings_of_the_recipe():
    given = {
        "max_epochs": 3,
        "learning_rate": 0.01,
        "batch_size": 7,
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "schedule": "constant",
        "warmup_epochs": 2,
        "warmup_rate": 0.001,
        "drop_last": False,
        "early_stopping": False,
    }
    clf = fitted(recipe="original", **given)
    assert clf.recipe_ == {"recipe": "original", "momentum": None, **given}
    assert [record["learning_rate"] for record in clf.history_] == [0.001, 0.001, 0.01]


def test_each_setting_changes_the_learned_context():
    base = {"recipe": "original", "max_epochs": 4, "learning_rate": 0.01, "batch_size": 7}
    start = fitted(**base).learned_["context"]
    for other in (
        {"optimizer": "adam"},
        {"optimizer": torch.optim.RMSprop},
        {"momentum": 0.0},
        {"weight_decay": 0.3},
        {"schedule": "constant"},
        {"warmup_epochs": 0},
        {"warmup_rate": 0.005},
        {"drop_last": False},
        {"batch_size": 20},
    ):
        assert np.abs(fitted(**{**base, **other}).learned_["context"] - start).max() > 1e-5, other


def test_with_classes_keeps_the_settings():
    clf = fitted(max_epochs=2)
    other = clf.with_classes(["ant", "bee"])
    assert other.recipe_ == clf.recipe_
    assert other.tuned_names_ == sorted(NAMES)


def test_every_setting_is_a_parameter_of_the_classifier():
    parameters = inspect.signature(PromptTunedCLIPClassifier).parameters
    assert all(parameters[name].default is None for name in Recipe.names())


def test_batch_size_all_uses_all_samples_in_each_step():
    contexts = [fitted(max_epochs=3, batch_size=size).learned_["context"] for size in ("all", len(Y), 20)]
    np.testing.assert_array_equal(contexts[0], contexts[1])
    assert np.abs(contexts[0] - contexts[2]).max() > 1e-5


@pytest.mark.parametrize(
    ("params", "limit", "early_stopping"),
    [
        ({}, 100, True),
        ({"max_epochs": 3}, 3, False),
        ({"max_epochs": 3, "early_stopping": True}, 3, True),
        ({"early_stopping": False}, 100, False),
        ({"recipe": "original", "early_stopping": True, "max_epochs": 2}, 2, True),
    ],
)
def test_given_epochs_replace_early_stopping(params, limit, early_stopping):
    clf = fitted(**{"recipe": "fast", **params})
    assert (clf.recipe_["max_epochs"], clf.recipe_["early_stopping"]) == (limit, early_stopping)
    assert hasattr(clf, "validation_history_") == early_stopping
    assert len(clf.history_) <= limit if early_stopping else len(clf.history_) == limit


@pytest.mark.parametrize(
    ("method", "rate"), [(CoOp(), 0.03), (CoOp(context_init=None), 0.1), (KgCoOp(context_init=None), 0.1)]
)
def test_rate_of_the_fast_recipe_depends_on_the_start(method, rate):
    assert method.recipe("fast").learning_rate == rate
    assert fitted(method=method, recipe="fast", max_epochs=1).recipe_["learning_rate"] == rate
    assert method.recipe("original").learning_rate == 0.002
    assert (
        fitted(method=method, recipe="fast", max_epochs=1, learning_rate=0.5).recipe_["learning_rate"] == 0.5
    )


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"recipe": "mine"},
            "recipe='mine' is unknown for method CoOp; choose one of 'original', 'dor', 'fast'",
        ),
        ({"recipe": "mine", "method": KgCoOp()}, "unknown for method KgCoOp"),
        ({"momentum": 0.5, "optimizer": "adam"}, "only supported by optimizer='sgd', .* is 'adam'"),
        ({"optimizer": "lbfgs"}, "'optimizer' parameter.*Got 'lbfgs'"),
        ({"schedule": "linear"}, "'schedule' parameter.*Got 'linear'"),
        ({"momentum": 1.0}, r"'momentum' parameter.*Got 1\.0"),
        ({"method": "cocop"}, "method='cocop' is not known; choose among 'coop', 'kgcoop'"),
        ({"n_views": "fresh"}, "n_views='fresh' needs images, but X contains embeddings"),
        ({"n_views": "many"}, "'n_views' parameter.*Got 'many'"),
    ],
)
def test_invalid_parameters_raise(params, words):
    with pytest.raises(ValueError, match=words):
        fitted(**params)


class TestFreshViews:
    IMAGES = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    LABELS = np.array(NAMES * 4)

    def fitted(self, **params):
        params = {"max_epochs": 3, "batch_size": 4, "random_state": 0, "learning_rate": 0.05, **params}
        return PromptTunedCLIPClassifier(AnyWidthBackbone(), **params).fit(self.IMAGES, self.LABELS)

    def test_each_step_draws_new_crops(self, monkeypatch):
        seen = []
        augment = AnyWidthBackbone.augment

        def watched(self, image, generator):
            seen.append(augment(self, image, generator))
            return seen[-1]

        monkeypatch.setattr(AnyWidthBackbone, "augment", watched)
        self.fitted(n_views="fresh")
        pixels = np.stack([view.numpy() for view in seen])
        # The check before training needs two images.
        assert len(pixels) == 2 + 3 * 12
        assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) == len(pixels)

    def test_crops_depend_on_random_state(self):
        first, again = (self.fitted(n_views="fresh").learned_["context"] for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert np.abs(self.fitted(n_views="fresh", random_state=1).learned_["context"] - first).max() > 1e-4
        assert np.abs(self.fitted().learned_["context"] - first).max() > 1e-4

    def test_batch_features_are_those_of_its_pixels(self):
        from clipcal.images import PixelLoader
        from clipcal.training import ImageViews, PixelData, torch_generator

        backbone = AnyWidthBackbone()
        views = ImageViews(PixelLoader(self.IMAGES, backbone, seed=None).load, backbone)
        data = PixelData(torch.arange(12), torch.ones(12), views=views, rows=torch.arange(12))
        for batch in data.batches(5, torch_generator(0)):
            expected = torch.stack([backbone.preprocess(_image(self.IMAGES[i])) for i in batch.targets])
            torch.testing.assert_close(batch.pixels, expected)
            torch.testing.assert_close(batch.raw_embeddings, backbone.encode_images(expected))
            torch.testing.assert_close(batch.embeddings.norm(dim=1), torch.ones(5))


def _image(pixels):
    from PIL import Image

    return Image.fromarray(pixels)
