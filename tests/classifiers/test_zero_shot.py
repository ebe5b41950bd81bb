"""Zero-shot classifier."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from toy_backbone import AnyWidthBackbone

from clipcal import CalibratedCLIPClassifier, ZeroShotCLIPClassifier, ece_scorer, make_shapes
from clipcal.exceptions import ClassNameError
from clipcal.methods import zero_shot_features
from clipcal.text import TEMPLATES

X = np.random.default_rng(0).normal(size=(12, 64))
Y = np.array(["owl", "cow", "hot_dog"])[np.arange(12) % 3]


def plain_text_feature(backbone, text):
    """Encode one text with open_clip."""
    tokens = backbone._tokenizer.tokenizer([text])
    feature = backbone.model.encode_text(tokens)[0].detach().double().numpy()
    return feature / np.linalg.norm(feature)


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("a photo of a {}.", ["a photo of a {}."]),
        ("a {}, a type of pet.", ["a {}, a type of pet."]),
        (["{} texture."], ["{} texture."]),
        ("oxford_pets", ["a photo of a {}, a type of pet."]),
        ("imagenet-7", TEMPLATES["imagenet-7"]),
        (["dtd", "a {}."], ["{} texture.", "a {}."]),
        (np.array(["a {}.", "the {}."]), ["a {}.", "the {}."]),
    ],
)
def test_text_features_equal_those_of_open_clip(tiny_backbone, template, prompts):
    clf = ZeroShotCLIPClassifier(tiny_backbone, template=template).fit(X, Y)
    rows = []
    for name in ("cow", "hot dog", "owl"):
        texts = [prompt.replace("{}", name) for prompt in prompts]
        mean = np.mean([plain_text_feature(tiny_backbone, text) for text in texts], axis=0)
        rows.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(clf.text_features_, rows, atol=1e-5)
    assert clf.text_features_.dtype == np.float32


def test_predictions_are_scaled_cosine_similarities(tiny_backbone):
    clf = ZeroShotCLIPClassifier(tiny_backbone).fit(X, Y)
    cosines = (X @ clf.text_features_.T) / np.linalg.norm(X, axis=1, keepdims=True)
    scale = tiny_backbone.model.logit_scale.exp().item()
    np.testing.assert_allclose(clf.decision_function(X), scale * cosines, rtol=1e-5)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[cosines.argmax(axis=1)])
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(X)), clf.predict_proba(X))
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)


def test_fit_does_not_depend_on_x(tiny_backbone):
    clf = ZeroShotCLIPClassifier(tiny_backbone)
    first = clf.fit(X, Y).text_features_
    np.testing.assert_array_equal(clf.fit(-X, Y[::-1]).text_features_, first)
    # Files are not read and need not exist.
    np.testing.assert_array_equal(clf.fit(["nowhere.png"] * 12, Y).text_features_, first)


def test_classes_with_zero_weight_are_dropped():
    clf = ZeroShotCLIPClassifier(AnyWidthBackbone(64)).fit(X, Y, sample_weight=Y != "cow")
    assert clf.classes_.tolist() == ["hot_dog", "owl"]


def test_with_classes_equals_a_fit_on_these_classes(tiny_backbone):
    clf = ZeroShotCLIPClassifier(tiny_backbone, template="imagenet-7").fit(X, Y)
    proba = clf.predict_proba(X)
    other = clf.with_classes({5: "owl", 2: "red_panda"})
    direct = ZeroShotCLIPClassifier(
        tiny_backbone, template="imagenet-7", class_names={5: "owl", 2: "red panda"}
    ).fit(X, np.array([2, 5] * 6))
    np.testing.assert_allclose(other.text_features_, direct.text_features_, atol=1e-6)
    assert other.class_names_ == {2: "red panda", 5: "owl"}
    np.testing.assert_array_equal(clf.predict_proba(X), proba)
    back = other.with_classes(["cow", "hot_dog", "owl"])
    np.testing.assert_allclose(back.text_features_, clf.text_features_, atol=1e-6)


def test_pickle_is_small_and_clone_is_unfitted():
    images, y = make_shapes("shapes", n_per_class=1, random_state=0, return_X_y=True)
    clf = ZeroShotCLIPClassifier("mini").fit(images, y)
    data = pickle.dumps(clf)
    assert len(data) < 50_000
    np.testing.assert_array_equal(pickle.loads(data).predict_proba(images), clf.predict_proba(images))
    assert not hasattr(clone(clf), "classes_")


@pytest.mark.parametrize("template", ["dtd", ["a {}.", "the {}."], ("a {}.", "dtd")])
def test_template_parameter_is_not_changed(template):
    before = copy.copy(template)
    clf = clone(ZeroShotCLIPClassifier(AnyWidthBackbone(64), template=template)).fit(X, Y)
    again = pickle.loads(pickle.dumps(clf))
    assert clf.template == again.template == before and type(clf.template) is type(before)
    assert clf.set_params(template="a {}.").get_params()["template"] == "a {}."


@pytest.mark.parametrize("template", ["no place", "{} and {}", "a {c}.", ["a {}.", "imagenet80"], []])
def test_invalid_template_raises_before_the_backbone_is_opened(template):
    clf = ZeroShotCLIPClassifier("no-such/backbone", template=template)
    with pytest.raises(ClassNameError, match="template"):
        clf.fit(X, Y)


def test_cross_validation_and_calibration(tiny_backbone):
    clf = ZeroShotCLIPClassifier(tiny_backbone)
    assert np.isfinite(cross_val_score(clf, X, Y, cv=2, scoring=ece_scorer, error_score="raise")).all()
    scaled = CalibratedCLIPClassifier(clf, cv=2).fit(X, Y)
    logits = clf.fit(X, Y).decision_function(X)
    np.testing.assert_allclose(scaled.decision_function(X), logits / scaled.calibrator_.temperature_)


class TestTables:
    """Features of at least 1000 names are cached; fewer names are encoded again."""

    class Counting(AnyWidthBackbone):
        def __init__(self, embedding_dim=32):
            super().__init__(embedding_dim)
            self.n_encoded = 0

        def encode_text(self, token_embeddings, tokens):
            self.n_encoded += len(tokens)
            return super().encode_text(token_embeddings, tokens)

    def encode(self, backbone, names, template="a photo of a {}.", **kwargs):
        backbone.n_encoded = 0
        features = zero_shot_features(backbone, names, template, **kwargs)
        return features, backbone.n_encoded

    def test_long_lists_are_cached_in_the_process(self):
        backbone = self.Counting(24)
        names = [f"kept {i}" for i in range(1000)]
        first, n_first = self.encode(backbone, names)
        again, n_again = self.encode(backbone, names)
        assert (n_first, n_again) == (1000, 0)
        assert (first == again).all()
        assert self.encode(backbone, names[:999])[1] == 999
        assert self.encode(backbone, names[:999])[1] == 999
        # The key includes template, backbone and the order of names.
        assert self.encode(backbone, names, "{} texture.")[1] == 1000
        assert self.encode(self.Counting(20), names)[1] == 1000
        assert self.encode(backbone, names[::-1])[1] == 1000

    def test_features_are_cached_on_disk(self, tmp_path):
        import joblib

        from clipcal.methods import _zero_shot

        backbone = self.Counting(24)
        names = [f"stored {i}" for i in range(1000)]
        first, n_first = self.encode(backbone, names, memory=joblib.Memory(tmp_path, verbose=0))
        _zero_shot._tables.clear()
        again, n_again = self.encode(backbone, names, memory=joblib.Memory(tmp_path, verbose=0))
        assert (n_first, n_again) == (1000, 0)
        assert (first == again).all()

    def test_rows_are_in_the_order_of_names(self, tiny_backbone):
        # Names are encoded in order of length.
        names = ["a rather long name of many words", "x", "hot dog", "antidisestablishmentarianism"]
        together = zero_shot_features(tiny_backbone, names, "a photo of a {}.").numpy()
        for row, name in zip(together, names, strict=True):
            np.testing.assert_allclose(
                row, plain_text_feature(tiny_backbone, f"a photo of a {name}."), atol=1e-5
            )
