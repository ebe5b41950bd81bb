"""Properties of every method that needs images, as of those that are trained on embeddings."""

import pickle
from copy import deepcopy
from functools import cache

import numpy as np
import open_clip
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from tiny_clip import uneven_backbone
from toy_backbone import AnyWidthBackbone

import clipcal
from clipcal import (
    CalibratedCLIPClassifier,
    CLIPImageEncoder,
    PromptTunedCLIPClassifier,
    ZeroShotCLIPClassifier,
    ece_scorer,
)
from clipcal.backbones import OpenClipBackbone
from clipcal.classifiers import EarlyStopping
from clipcal.classifiers._components import find_method
from clipcal.exceptions import BackboneError, ImageReadError
from clipcal.methods import METHODS, DePT, PromptSRC

NAMES = ["cat", "dog", "old hammer"]
METHOD_OF = {name: name for name, method in METHODS.items() if method().needs_pixels}
METHOD_OF |= {"dept": DePT("maple"), "promptsrc": PromptSRC(teacher_template="dtd")}
RNG = np.random.default_rng(0)
Y = np.array(NAMES * 4)
# Noise with another bright color for each class.
X = RNG.integers(0, 160, (12, 32, 32, 3), dtype=np.uint8)
for row in range(12):
    X[row, ..., row % 3] += 90

pytestmark = pytest.mark.parametrize("method", METHOD_OF)


def make(method, **params):
    settings = {"max_epochs": 2, "batch_size": 6, "learning_rate": 0.01, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(uneven_backbone(), method=deepcopy(METHOD_OF[method]), **settings)


@cache
def fitted(method):
    """Return a classifier that is not changed."""
    return make(method).fit(X, Y)


def test_training_reduces_the_loss(method):
    clf = make(method, max_epochs=10).fit(X, Y)
    assert clf.history_[-1]["loss"] < clf.history_[0]["loss"]
    parts = clf.history_[0].keys() - {"epoch", "learning_rate", "loss", "accuracy"}
    for record in clf.history_:
        assert record["loss"] == pytest.approx(sum(record[name] for name in parts), abs=1e-5)


def test_predictions_are_consistent(method):
    clf = fitted(method)
    proba = clf.predict_proba(X)
    assert proba.dtype == np.float64 and clf.n_features_in_ == 24
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])
    np.testing.assert_allclose(clf.predict_proba(X[[4]])[0], proba[4], atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X[::-1]), proba[::-1], atol=1e-5)
    assert clf.text_features_.shape == (3, 24)
    start = make(method, max_epochs=0).fit(X, Y).predict_proba(X)
    assert np.abs(start - proba).max() > 1e-4


def test_result_depends_on_random_state_only(method):
    first = fitted(method)
    again, other = (make(method, random_state=seed).fit(X, Y) for seed in (0, 1))
    for name, values in first.learned_.items():
        np.testing.assert_array_equal(values, again.learned_[name])
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert np.abs(first.predict_proba(X) - other.predict_proba(X)).max() > 1e-6


def test_with_classes(method):
    clf = fitted(method)
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(clf.with_classes(NAMES[::-1]).predict_proba(X), proba, atol=1e-6)
    other = clf.with_classes(["owl", "cow", "fox", "emu"])
    assert other.predict_proba(X).shape == (12, 4)
    np.testing.assert_allclose(other.with_classes(NAMES).predict_proba(X), proba, atol=1e-6)
    np.testing.assert_array_equal(clf.predict_proba(X), proba)


def test_zero_shot_counterpart(method):
    zero_shot = ZeroShotCLIPClassifier(uneven_backbone()).fit(X, Y)
    np.testing.assert_allclose(
        fitted(method).zero_shot().predict_proba(X), zero_shot.predict_proba(X), atol=1e-6
    )


def test_copies(method):
    clf = fitted(method)
    proba = clf.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X), proba)
    np.testing.assert_array_equal(clone(clf).fit(X, Y).predict_proba(X), proba)


@pytest.mark.parametrize("first_block_only", [False, True])
def test_files(method, first_block_only, tmp_path):
    clf = fitted(method)
    if first_block_only:
        name = {"vpt": "visual_depth", "dept": "base__depth"}.get(method, "depth")
        clf = make(method).set_params(**{f"method__{name}": 1}).fit(X, Y)
        assert all(value.size == 0 for name, value in clf.learned_.items() if "deep_context" in name)
    clipcal.save(clf, tmp_path / "model.clipcal")
    loaded = clipcal.load(tmp_path / "model.clipcal", backbone=uneven_backbone())
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    for name, values in clf.learned_.items():
        np.testing.assert_array_equal(loaded.learned_[name], values)
    other = ["owl", "cow", "fox", "emu"]
    np.testing.assert_array_equal(
        loaded.with_classes(other).predict_proba(X), clf.with_classes(other).predict_proba(X)
    )


def test_cross_validation_and_search(method):
    scores = cross_val_score(make(method), X, Y, cv=2, error_score="raise")
    assert ((scores >= 0) & (scores <= 1)).all()
    grid = {"learning_rate": [1e-5, 0.02]}
    search = GridSearchCV(make(method), grid, cv=2, scoring=ece_scorer, error_score="raise").fit(X, Y)
    assert len(set(search.cv_results_["mean_test_score"])) == 2
    assert set(search.predict(X)) <= set(NAMES)


def test_parameters_of_a_method_given_by_name(method):
    given = find_method(METHOD_OF[method])
    for name, value in given.get_params(deep=False).items():
        clf = make(method).set_params(**{f"method__{name}": value})
        assert isinstance(clf.method, type(given))
        assert repr(getattr(clf.method, name)) == repr(value)
    size = {"vpt": "n_visual_prompts", "dept": "base__n_context"}.get(method, "n_context")
    grid = {f"method__{size}": [1, 3]}
    search = GridSearchCV(make(method, max_epochs=1), grid, cv=2, error_score="raise").fit(X, Y)
    learned = search.best_estimator_.learned_
    name = {"vpt": "visual_prompts", "dept": "base.context"}.get(method, "context")
    assert learned[name].shape[-2] == search.best_params_[f"method__{size}"]


@pytest.mark.filterwarnings("ignore:The data do not determine a temperature")
def test_calibrated(method):
    for calibrated in (
        CalibratedCLIPClassifier(fitted(method), cv="prefit").fit(X, Y),
        CalibratedCLIPClassifier(make(method), cv=2).fit(X, Y),
    ):
        assert calibrated.predict_proba(X).shape == (12, 3)
        other = calibrated.with_classes(["owl", "cow", "fox", "emu"])
        assert other.predict_proba(X).shape == (12, 4)


class TestRefused:
    def test_embeddings(self, method):
        rows = CLIPImageEncoder(uneven_backbone(), normalize=False).transform(X)
        words = "needs images, but X contains embeddings; pass the images, or use a method that accepts"
        with pytest.raises(ValueError, match=words):
            make(method).fit(rows, Y)
        clf = fitted(method)
        for predict in (clf.predict, clf.predict_proba, clf.with_classes(["owl", "emu"]).decision_function):
            with pytest.raises(ValueError, match="images, but X contains embeddings; pass the images"):
                predict(rows)

    def test_resnet(self, method):
        vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
        model = open_clip.CLIP(24, vision, {"width": 32, "heads": 2, "layers": 2})
        backbone = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
        name = {"dept": "maple"}.get(method, method)
        words = f"method='{name}' prompts the image tower.*ModifiedResNet.*only the text"
        with pytest.raises(BackboneError, match=words):
            make(method).set_params(backbone=backbone).fit(X, Y)

    def test_backbone_without_prompts(self, method):
        name = {"dept": "maple"}.get(method, method)
        words = f"method='{name}' prompts the image tower.*'AnyWidthBackbone' does not offer; use another"
        with pytest.raises(BackboneError, match=words):
            make(method).set_params(backbone=AnyWidthBackbone(24)).fit(X, Y)


def test_kinds_of_images_give_equal_results(method, tmp_path):
    paths = [tmp_path / f"{row}.png" for row in range(12)]
    opened = [Image.fromarray(image) for image in X]
    for path, image in zip(paths, opened, strict=True):
        image.save(path)
    clf = fitted(method)
    proba = clf.predict_proba(X)
    for given in (paths, np.array(list(map(str, paths))), opened, list(X)):
        np.testing.assert_array_equal(clf.predict_proba(given), proba)
    of_paths = make(method).fit(paths, Y)
    for name, values in clf.learned_.items():
        np.testing.assert_array_equal(of_paths.learned_[name], values)


@pytest.mark.parametrize("n_views", [3, "fresh"])
def test_random_crops(method, n_views):
    first, again = (make(method, n_views=n_views).fit(X, Y) for _ in range(2))
    for name, values in first.learned_.items():
        np.testing.assert_array_equal(values, again.learned_[name])
    of_centers = fitted(method)
    name = next(iter(of_centers.learned_))
    assert np.abs(first.learned_[name] - of_centers.learned_[name]).max() > 1e-6


def test_checkpointing_of_activations_changes_nothing(method):
    name = {"dept": "base__activation_checkpointing"}.get(method, "activation_checkpointing")
    clf = make(method).set_params(**{f"method__{name}": True}).fit(X, Y)
    for name, values in fitted(method).learned_.items():
        np.testing.assert_allclose(clf.learned_[name], values, atol=1e-6)


def test_two_classes(method):
    labels = np.array(["no", "yes"])[np.arange(12) % 2]
    clf = make(method).fit(X, labels)
    margins = clf.decision_function(X)
    assert margins.shape == (12,)
    np.testing.assert_allclose(1 / (1 + np.exp(-margins)), clf.predict_proba(X)[:, 1], atol=1e-6)


def test_weights_of_classes_and_samples(method):
    weights = np.where(Y == "dog", 5.0, 1.0)
    plain, weighted = fitted(method), make(method).fit(X, Y, sample_weight=weights)
    assert np.abs(weighted.predict_proba(X) - plain.predict_proba(X)).max() > 1e-4
    by_class = make(method, class_weight={"dog": 5.0}).fit(X, Y)
    np.testing.assert_allclose(by_class.predict_proba(X), weighted.predict_proba(X), atol=1e-6)
    scaled = make(method).fit(X, Y, sample_weight=1000 * weights)
    np.testing.assert_allclose(scaled.predict_proba(X), weighted.predict_proba(X), atol=1e-5)


def test_zero_weights_equal_missing_samples(method):
    kept = np.arange(12) % 4 > 0
    weighted = make(method, n_views=2).fit(X, Y, sample_weight=kept)
    np.testing.assert_array_equal(
        weighted.predict_proba(X), make(method, n_views=2).fit(X[kept], Y[kept]).predict_proba(X)
    )


def test_warm_start_continues(method):
    clf = make(method, warm_start=True).fit(X, Y)
    learned = clf.learned_
    clf.set_params(max_epochs=0).fit(X, Y)
    for name, values in learned.items():
        np.testing.assert_array_equal(clf.learned_[name], values)
    more = clf.set_params(max_epochs=1).fit(X, Y)
    assert any(np.abs(more.learned_[name] - values).max() > 1e-6 for name, values in learned.items())


def test_early_stopping(method):
    stopping = EarlyStopping(X, Y, scoring=lambda *data: 0.0, patience=1)
    clf = make(method, max_epochs=5).set_callbacks(stopping).fit(X, Y)
    assert len(clf.history_) == 2
    best = stopping.best_estimator_
    np.testing.assert_allclose(best.with_classes(NAMES).predict_proba(X), best.predict_proba(X), atol=1e-6)


def test_scores_between_epochs_do_not_change_the_training(method):
    seen = []

    def score(estimator, images, labels):
        seen.append(estimator.predict_proba(images))
        return 0.0

    stopping = EarlyStopping(X, Y, scoring=score, patience=10)
    clf = make(method).set_callbacks(stopping).fit(X, Y)
    np.testing.assert_allclose(seen[-1], clf.predict_proba(X), atol=1e-6)
    assert len(seen) == 2
    for name, values in fitted(method).learned_.items():
        np.testing.assert_array_equal(clf.learned_[name], values)


def test_number_of_epochs_is_chosen_on_held_out_data(method):
    names = np.array(["cat", "dog", "emu", "fox"] * 3)
    clf = make(method, early_stopping=True, max_epochs=3).fit(X, names)
    assert 0 <= len(clf.history_) <= 3
    numbers = [record["n_epochs"] for record in clf.validation_history_]
    assert numbers[:2] == [0, 1]
    for record in clf.validation_history_:
        assert record["mean_log_loss"] == pytest.approx((record["log_loss"] + record["new_log_loss"]) / 2)


def test_unreadable_files_are_found_before_training(method, tmp_path):
    """Also if the last, incomplete batch is dropped, so that the file may not be drawn."""
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, image in zip(paths, X, strict=False):
        Image.fromarray(image).save(path)
    paths[4].write_bytes(b"x")
    for seed in range(3):
        with pytest.raises(ImageReadError, match=r"Image 4, .*4\.png.*does not recognize the image format"):
            make(method, batch_size=4, random_state=seed).fit(paths, Y[:6])
    paths[4].unlink()
    with pytest.raises(ImageReadError, match=r"Image 4, .*there is no such file"):
        make(method, batch_size=4).fit(paths, Y[:6])
