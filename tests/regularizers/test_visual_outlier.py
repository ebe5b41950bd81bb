"""Visual outlier regularization: images, random batches and loss term."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_backbone import AnyWidthBackbone
from training_steps import assert_steps_agree, cross_entropy_of, weighted_data
from tuning_problem import problem_of

from clipcal import PromptTunedCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.datasets import TASKS, make_shapes
from clipcal.exceptions import ImageReadError
from clipcal.images import encode_images
from clipcal.methods import CLIPAdapter, zero_shot_features
from clipcal.regularizers import VisualOutlierRegularizer
from clipcal.training import torch_generator

NAMES = ["dog", "river", "old hammer"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 32))
Y = np.array(NAMES * 8)
OTHERS = RNG.normal(size=(20, 32))
IMAGES = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def fitted(regularizer="dor-visual", method="clip-adapter", **params):
    params = {"max_epochs": 3, "batch_size": 8, "random_state": 0, "learning_rate": 0.02, **params}
    clf = PromptTunedCLIPClassifier(AnyWidthBackbone(), method=method, regularizer=regularizer, **params)
    return clf.fit(X, Y)


def prepared(backbone=None, *, width=32, names=NAMES, **params):
    """Return the loss term for CLIP-Adapter."""
    problem = problem_of(backbone or AnyWidthBackbone(width), names, data=weighted_data(len(names), width))
    learner = CLIPAdapter(0.5).learner(problem)
    regularizer = VisualOutlierRegularizer(**{"images": OTHERS[:, :width], **params})
    return regularizer.prepare(problem, learner)


class TestLoss:
    def test_by_hand(self):
        term = prepared(width=2, images=[[3.0, 0], [0, 0.5]], weight=3.0)
        batch = term.draw(torch_generator(0))
        assert sorted(batch.norms.tolist()) == [0.5, 3.0]
        # Cosines 0.6 and -1; the norms of tuned features do not matter.
        by_row = torch.tensor([[0.6, 0.8], [0, -7.0]])
        loss = term(None, None, by_row[term.drawn])
        assert float(loss) == pytest.approx(3 * (1 - (0.6 - 1) / 2))
        torch.testing.assert_close(term(None, None, batch.embeddings), torch.tensor(0.0))

    @pytest.mark.parametrize("weight", [2.0, 30.0])
    def test_three_steps_with_clip_adapter(self, tiny_backbone, weight):
        names, others = [*NAMES, "crane (bird)"], RNG.normal(size=(9, 64))
        data = weighted_data(4, 64)
        problem = problem_of(tiny_backbone, names, data=data)
        learner = CLIPAdapter(0.3).learner(problem)
        regularizer = VisualOutlierRegularizer(weight, images=others, n_outliers=4)
        texts = zero_shot_features(tiny_backbone, names, "a photo of a {}.")

        def adapted(parameters, feature):
            hidden = [(row @ feature).clamp(min=0) for row in parameters["down.weight"]]
            up = (parameters["up.weight"] @ torch.stack(hidden)).clamp(min=0)
            mixed = 0.3 * up + 0.7 * feature
            return mixed / mixed.norm()

        def reference(parameters, batch, rows):
            features = [adapted(parameters, feature) for feature in batch.embeddings]
            logits = tiny_backbone.logit_scale * torch.stack(features) @ texts.T
            cosines = []
            for row in rows:
                raw = torch.from_numpy(others[row]).float()
                tuned = adapted(parameters, raw / raw.norm())
                cosines.append(tuned @ raw / raw.norm())
            assert len(set(rows)) == 4
            losses = {
                "cross_entropy": cross_entropy_of(batch, logits),
                "dor-visual": weight * (1 - sum(cosines) / 4),
            }
            return logits, losses, None

        term = regularizer.prepare(problem, learner)
        assert_steps_agree(learner, names, data, reference, term=term)

    def test_is_zero_for_frozen_features(self):
        assert fitted(method=CLIPAdapter(0.0)).history_[-1]["dor-visual"] == pytest.approx(0, abs=1e-5)
        assert fitted().history_[0]["dor-visual"] > 1e-3

    def test_keeps_features_of_other_images(self):
        def drift(regularizer):
            clf = fitted(regularizer, method=CLIPAdapter(0.5), max_epochs=40)
            down, up = (torch.from_numpy(clf.learned_[f"{name}.weight"]) for name in ("down", "up"))
            raw = torch.nn.functional.normalize(torch.from_numpy(OTHERS).float(), dim=-1)
            moved = 0.5 * (up @ (down @ raw.T).clamp(min=0)).clamp(min=0).T + 0.5 * raw
            return 1 - torch.cosine_similarity(moved, raw).mean()

        free, kept = drift(None), drift(VisualOutlierRegularizer(20.0, images=OTHERS))
        assert kept < 0.5 * free


class TestDraws:
    def test_number_of_outliers(self):
        for given, expected in ((None, 3), (7, 7), (50, 20)):
            batch = prepared(n_outliers=given).draw(torch_generator(0))
            assert batch.embeddings.shape == (expected, 32)
            assert batch.pixels is None

    def test_batches_are_drawn_uniformly_without_replacement(self):
        term = prepared(n_outliers=8)
        generator, counts = torch_generator(0), torch.zeros(20)
        unit = torch.from_numpy(OTHERS / np.linalg.norm(OTHERS, axis=1, keepdims=True)).float()
        for _ in range(400):
            batch = term.draw(generator)
            torch.testing.assert_close(batch.embeddings, unit[term.drawn])
            torch.testing.assert_close(batch.raw_embeddings.double(), torch.from_numpy(OTHERS)[term.drawn])
            assert len(term.drawn.unique()) == 8
            counts[term.drawn] += 1
        # 160 draws each on average, standard deviation 10.
        assert counts.min() > 110 and counts.max() < 210

    def test_result_depends_on_random_state_only(self):
        dor = VisualOutlierRegularizer(images=OTHERS)
        first, again, other = (fitted(dor, random_state=seed).history_ for seed in (0, 0, 1))
        assert first == again != other


class TestImages:
    @pytest.mark.parametrize("kind", ["list", "tensor", "PIL", "paths", "embeddings", "embedding tensor"])
    def test_kinds(self, kind, tmp_path):
        embeddings = encode_images(IMAGES, AnyWidthBackbone())
        opened = [Image.fromarray(image) for image in IMAGES]
        for i, image in enumerate(opened):
            image.save(tmp_path / f"{i}.png")
        images = {
            "list": list(IMAGES),
            "tensor": torch.from_numpy(IMAGES),
            "PIL": opened,
            "paths": [str(tmp_path / f"{i}.png") for i in range(6)],
            "embeddings": embeddings,
            "embedding tensor": torch.from_numpy(embeddings),
        }[kind]
        found, expected = (
            fitted(VisualOutlierRegularizer(images=given)).learned_ for given in (images, IMAGES)
        )
        np.testing.assert_allclose(found["up.weight"], expected["up.weight"], rtol=1e-5)

    def test_are_encoded_once(self, monkeypatch):
        sizes = []
        encode = AnyWidthBackbone.encode_images
        monkeypatch.setattr(
            AnyWidthBackbone, "encode_images", lambda self, x: sizes.append(len(x)) or encode(self, x)
        )
        fitted(VisualOutlierRegularizer(images=IMAGES, n_outliers=2), max_epochs=5)
        assert sizes == [6]

    @pytest.mark.parametrize(
        ("names", "n_images"),
        [(NAMES, 304), (["Circle", "gear", "PLAID"], 280), ([*TASKS["shapes"], *TASKS["textures"][:13]], 8)],
    )
    def test_generated_images_show_no_training_class(self, names, n_images):
        term = prepared(images=None, names=names)
        assert len(term.data) == n_images
        if n_images == 8:
            last = make_shapes("textures", n_per_class=8, random_state=0)
            shaded = last.images[last.target == "shaded"]
            expected = torch.from_numpy(encode_images(shaded, AnyWidthBackbone()))
            (batch,) = term.data.in_order()
            torch.testing.assert_close(batch.raw_embeddings, expected)

    def test_generated_images_with_the_embedded_clip(self):
        X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
        params = {"method": "clip-adapter", "regularizer": "dor-visual", "max_epochs": 2, "random_state": 0}
        clf = PromptTunedCLIPClassifier(open_backbone("mini", device="cpu"), **params).fit(X, y)
        assert 0 < clf.history_[-1]["dor-visual"] < 2
        assert clf.predict(X).shape == (28,)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"weight": -1}, ValueError, "'weight'.*Got -1"),
        ({"n_outliers": 0}, ValueError, "'n_outliers'.*Got 0"),
        ({"images": OTHERS[:, :16]}, ValueError, "images contains embeddings with 16 features.* have 32;"),
        ({"images": np.full((3, 32), np.nan)}, ValueError, "images contains NaN"),
        ({"images": []}, ValueError, "images of regularizer='dor-visual' cannot be used. X is empty"),
        ({"images": "folder"}, TypeError, r"cannot be used\. X is a single path"),
        (
            {"images": ["none.png"]},
            ImageReadError,
            "cannot be used.*'none.png': there is no such",
        ),
    ],
)
def test_invalid_parameters_raise(params, error, words):
    with pytest.raises(error, match=words):
        fitted(VisualOutlierRegularizer(**params))


def test_training_classes_without_generated_outliers_raise():
    names = [*TASKS["shapes"], *TASKS["textures"]]
    with pytest.raises(ValueError, match=r"no outliers; pass images of other classes: VisualOutlierReg"):
        prepared(images=None, names=names)
