"""Sample-adaptive logit scaling: numbers by hand, the published formula, and use in classifiers."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import GaussianNB
from toy_backbone import AnyWidthBackbone

from clipcal import CalibratedCLIPClassifier, CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.calibration import SampleAdaptiveLogitScaling
from clipcal.exceptions import ClassNameError
from clipcal.methods import zero_shot_features
from clipcal.metrics import expected_calibration_error
from clipcal.regularizers import ZeroShotNormRegularizer
from clipcal.training import Batch, Forward

BACKBONE = AnyWidthBackbone(32)
BASE, NEW = ["ant", "bee", "cow"], ["dog", "elk", "fox", "gnu"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 32))
Y = np.array(BASE * 8)


def scaled(logits, zero_shot):
    n_classes = np.shape(logits)[1]
    fitted = SampleAdaptiveLogitScaling().fit(9 * np.eye(n_classes), np.arange(n_classes))
    return fitted.transform(logits, zero_shot_logits=zero_shot)


def published(logits, zero_shot):
    """The formula in the published code, row by row."""
    rows = []
    for z, z0 in zip(logits, zero_shot, strict=True):
        unit = (z - min(z)) / (max(z) - min(z))
        rows.append(unit * (max(z0) - min(z0)) + min(z0))
    return np.array(rows)


class TestFormula:
    def test_hand_computed_values(self):
        logits = [[10.0, 4.0, -2.0], [0.0, 1.0, 0.5], [3.0, 3.0, 2.0]]
        zero_shot = [[21.0, 23.0, 20.0], [-4.0, 0.0, -8.0], [1.0, 1.0, 1.5]]
        expected = [[23.0, 21.5, 20.0], [-8.0, 0.0, -4.0], [1.5, 1.5, 1.0]]
        assert_allclose(scaled(logits, zero_shot), expected, rtol=1e-12)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 9999), n_classes=st.integers(2, 8), scale=st.sampled_from([1e-3, 1.0, 1e3]))
    @example(seed=956, n_classes=2, scale=1e-3)  # the range of one row is below 1e-6
    def test_properties(self, seed, n_classes, scale):
        rng = np.random.default_rng(seed)
        logits, zero_shot = scale * rng.normal(size=(9, n_classes)), 3 * rng.normal(size=(9, n_classes))
        found = scaled(logits, zero_shot)
        assert_allclose(found, published(logits, zero_shot), atol=1e-9)
        assert_array_equal(found.argmax(axis=1), logits.argmax(axis=1))
        assert_allclose(np.ptp(found, axis=1), np.ptp(zero_shot, axis=1))
        # Scale and offset of the logits have no effect, zero-shot logits are their own result.
        assert_allclose(scaled(5 * logits + rng.normal(size=(9, 1)), zero_shot), found, atol=1e-9)
        assert_allclose(scaled(zero_shot, zero_shot), zero_shot, atol=1e-12)
        order = rng.permutation(n_classes)
        assert_allclose(scaled(logits[:, order], zero_shot[:, ::-1]), found[:, order], atol=1e-12)

    @pytest.mark.parametrize("width", [5e-324, 1e-300, 1e-12, 1e-7])
    def test_small_ranges(self, width):
        found = scaled([[0.0, width, 0.0], [-width, 0.0, -width]], [[21.0, 23.0, 20.0], [-4.0, 0.0, -8.0]])
        assert_array_equal(found, [[20.0, 23.0, 20.0], [-8.0, 0.0, -8.0]])

    def test_is_the_formula_of_the_loss_term(self):
        """The cross-entropy of the calibrated probabilities is the loss of ZS-Norm."""
        clf = PromptTunedCLIPClassifier(BACKBONE, max_epochs=0).fit(X, Y)
        images = torch.tensor(clf.image_features(X), dtype=torch.float32)
        targets = torch.tensor(np.searchsorted(BASE, Y))
        problem = clf._problem(BACKBONE, torch.Generator())
        term = ZeroShotNormRegularizer(template="dtd").prepare(problem, None)
        logits = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
        batch = Batch(images, torch.ones(24), targets, torch.ones(24))
        loss = term(Forward(images, torch.zeros(0), logits), batch, None)
        fitted = SampleAdaptiveLogitScaling().fit(9 * np.eye(3), [0, 1, 2])
        zero_shot = clf.zero_shot("dtd").decision_function(X)
        proba = fitted.calibrate(logits.numpy(), zero_shot_logits=zero_shot)
        assert loss.item() == pytest.approx(-np.log(proba[np.arange(24), targets]).mean(), rel=1e-5)

    def test_calibrate_is_the_softmax_of_transform(self):
        logits, zero_shot = RNG.normal(size=(2, 6, 4))
        fitted = SampleAdaptiveLogitScaling().fit(9 * np.eye(4), range(4))
        proba = fitted.calibrate(logits, zero_shot_logits=zero_shot)
        assert_allclose(proba, softmax(published(logits, zero_shot), axis=1))

    def test_equal_logits_are_mapped_to_the_smallest_zero_shot_logit(self):
        found = scaled([[2.0, 2.0, 2.0], [0.0, 1.0, 2.0]], [[5.0, 6.0, 7.0], [4.0, 4.0, 4.0]])
        assert_allclose(found, [[5.0] * 3, [4.0] * 3])
        # The order is kept if all zero-shot logits are equal.
        assert found[1].argmax() == 2

    def test_excluded_classes(self):
        found = scaled([[1.0, -np.inf, 3.0], [0.0, -np.inf, -np.inf]], [[4.0, 9.0, 2.0], [1.0, 2.0, 3.0]])
        assert_allclose(found, [[2.0, -np.inf, 4.0], [1.0, -np.inf, -np.inf]])

    def test_log_odds(self):
        fitted = SampleAdaptiveLogitScaling().fit([-3.0, 4.0], ["ant", "bee"])
        odds, zero_shot = np.array([-30.0, 2.0]), np.array([0.5, -1.0])
        for given_ in (zero_shot, np.column_stack([np.zeros(2), zero_shot])):
            assert_allclose(fitted.transform(odds, zero_shot_logits=given_), [-0.5, 1.0])
            proba = fitted.calibrate(odds, zero_shot_logits=given_)
            assert_allclose(proba[:, 1], 1 / (1 + np.exp([0.5, -1.0])))

    def test_input_is_not_modified(self):
        logits, zero_shot = RNG.normal(size=(2, 5, 3))
        before = logits.copy(), zero_shot.copy()
        scaled(logits, zero_shot)
        assert_array_equal(logits, before[0])
        assert_array_equal(zero_shot, before[1])


@pytest.mark.parametrize(
    ("zero_shot", "words"),
    [
        (None, r"calibrate needs the zero-shot logits .* Pass zero_shot_logits=clf\.zero_shot\(\)"),
        (np.zeros((2, 4)), r"zero_shot_logits of shape \(2, 4\) for logits of shape \(2, 3\)"),
        (np.zeros((1, 3)), r"zero_shot_logits of shape \(1, 3\)"),
        ([[0, np.nan, 1], [0, 1, 2]], "Input zero_shot_logits contains NaN"),
        ([[0, -np.inf, 1], [0, 1, 2]], "zero_shot_logits contains -inf"),
        (pd.DataFrame(np.zeros((2, 3)), columns=[2, 1, 0]), "columns of zero_shot_logits are named"),
    ],
)
def test_invalid_zero_shot_logits_raise(zero_shot, words):
    fitted = SampleAdaptiveLogitScaling().fit(9 * np.eye(3), [0, 1, 2])
    with pytest.raises(ValueError, match=words):
        fitted.calibrate([[1.0, 2.0, 3.0], [0.0, 0.5, -1.0]], zero_shot_logits=zero_shot)


def test_probabilities_instead_of_zero_shot_logits_warn():
    fitted = SampleAdaptiveLogitScaling().fit(9 * np.eye(2), [0, 1])
    with pytest.warns(UserWarning, match="zero_shot_logits lies in") as caught:
        fitted.transform([[3.0, -2.0], [0.0, 4.0]], zero_shot_logits=[[0.25, 0.75], [0.5, 0.5]])
    assert [w.filename for w in caught] == [__file__]


@pytest.fixture(scope="module")
def tuned():
    return PromptTunedCLIPClassifier(BACKBONE, max_epochs=5, learning_rate=0.1, random_state=0).fit(X, Y)


class TestClassifiers:
    @staticmethod
    def by_hand(clf, names, template="a photo of a {}."):
        unit = X / np.linalg.norm(X, axis=1, keepdims=True)
        zero_shot = 100 * unit @ zero_shot_features(BACKBONE, names, template).numpy().astype(float).T
        return published(clf.decision_function(X), zero_shot)

    @pytest.mark.parametrize("template", [None, "dtd", ["dtd", "a {}."]])
    @pytest.mark.parametrize("frozen", [False, True])
    def test_zero_shot_logits_are_computed(self, tuned, template, frozen):
        method = SampleAdaptiveLogitScaling(template=template)
        clf = FrozenEstimator(tuned) if frozen else tuned
        model = CalibratedCLIPClassifier(clf, method=method, cv="prefit").fit(X, Y)
        expected = self.by_hand(tuned, BASE, template or "a photo of a {}.")
        assert_allclose(model.decision_function(X), expected, atol=1e-4)
        assert_allclose(model.predict_proba(X), softmax(expected, axis=1), atol=1e-5)
        assert_array_equal(model.predict(X), tuned.predict(X))
        assert np.abs(expected - tuned.decision_function(X)).max() > 0.1

    def test_other_classes(self, tuned):
        model = CalibratedCLIPClassifier(tuned, method="sals", cv="prefit").fit(X, Y)
        before = model.predict_proba(X)
        other = model.with_classes(NEW)
        assert_allclose(other.decision_function(X), self.by_hand(tuned.with_classes(NEW), NEW), atol=1e-4)
        assert_array_equal(other.zero_shot_.classes_, NEW)
        assert_array_equal(model.predict_proba(X), before)
        assert_allclose(other.with_classes(BASE).predict_proba(X), before, atol=1e-6)
        # Two classes, whose decisions are one column.
        two = model.with_classes(["owl", "yak"])
        odds = two.decision_function(X)
        assert odds.shape == (24,)
        assert_allclose(np.abs(odds), np.abs(two.zero_shot_.decision_function(X)), atol=1e-9)

    def test_cross_validation_fits_nothing_else(self, tuned):
        model = CalibratedCLIPClassifier(tuned, method="sals", cv=2).fit(X, Y)
        prefit = CalibratedCLIPClassifier(tuned, method="sals", cv="prefit").fit(X[:3], Y[:3])
        assert_allclose(model.predict_proba(X), prefit.predict_proba(X), atol=1e-9)
        assert prefit.reference_features_ is None and prefit.calibrator_.samples_needed == "none"
        other = CalibratedCLIPClassifier(tuned, method="dac", cv="prefit").fit(X, Y)
        assert other.zero_shot_ is None

    def test_classifiers_without_zero_shot_raise(self):
        with pytest.raises(TypeError, match=r"SampleAdaptiveLogitScaling needs .* GaussianNB has none"):
            CalibratedCLIPClassifier(GaussianNB(), method="sals").fit(X, Y)
        method = SampleAdaptiveLogitScaling(template="no place")
        with pytest.raises(ClassNameError, match="template"):
            CalibratedCLIPClassifier(PromptTunedCLIPClassifier("no-such/x"), method=method).fit(X, Y)

    def test_held_out_classes_raise(self, tuned):
        with pytest.raises(ValueError, match="SampleAdaptiveLogitScaling does not support"):
            CalibratedCLIPClassifier(tuned, method="sals", cv="classes").fit(X, Y)

    def test_images_are_encoded_once(self, monkeypatch):
        images, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
        clf = PromptTunedCLIPClassifier("mini", method="lp++", max_epochs=3, random_state=0, device="cpu")
        model = CalibratedCLIPClassifier(clf.fit(images, y), method="sals", cv="prefit").fit(images, y)
        embeddings = CLIPImageEncoder("mini", device="cpu").transform(images)
        expected = model.predict_proba(embeddings)
        encoded = []
        original = PromptTunedCLIPClassifier._predict_embeddings

        def counted(self, X):
            encoded.append(np.ndim(X))
            return original(self, X)

        for kind in (PromptTunedCLIPClassifier, type(model.zero_shot_)):
            monkeypatch.setattr(kind, "_predict_embeddings", counted)
        assert_allclose(model.predict_proba(images), expected, atol=1e-5)
        assert encoded.count(4) == 1  # the rest are embeddings

    def test_lowers_the_confidence_of_an_overconfident_classifier(self):
        encode = CLIPImageEncoder("mini").transform
        train, test = (
            make_shapes("colors", domain="street", subset=subset, n_per_class=8, random_state=0)
            for subset in ("train", "test")
        )
        clf = PromptTunedCLIPClassifier("mini", method="lp++", random_state=0)
        clf.fit(encode(train.images), train.target)
        model = CalibratedCLIPClassifier(clf, method="sals", cv="prefit")
        model.fit(encode(train.images), train.target)
        given_ = encode(test.images)
        confidence, ece = [], []
        for each in (clf, model, clf.zero_shot()):
            proba = each.predict_proba(given_)
            confidence.append(proba.max(axis=1).mean())
            ece.append(expected_calibration_error(test.target, proba, labels=each.classes_))
        before, after, zero_shot = confidence
        assert zero_shot < after < before - 0.05
        assert ece[1] < ece[0] - 0.03
