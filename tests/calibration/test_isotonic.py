"""Isotonic calibration: agreement with scikit-learn, and exact pooling."""

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression

from clipcal.calibration import IsotonicCalibration


def problem(n, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    return logits, (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)


def regression(score, hit, weight=None):
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, hit, weight)


class Probabilities(ClassifierMixin, BaseEstimator):
    """A classifier that returns its input as probabilities."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return self.classes_[X.argmax(axis=1)]


def test_top_label_by_hand():
    # Confidences 0.6, 0.7, 0.8, 0.9; correct, wrong, correct, correct: the first two are pooled.
    confidence = np.array([0.6, 0.7, 0.8, 0.9])
    logits = np.log(np.column_stack([confidence, 1 - confidence]))
    fitted = IsotonicCalibration(smoothing=0).fit(logits, [0, 1, 0, 0])
    queries = np.log([[0.65, 0.35], [0.75, 0.25], [0.95, 0.05]])
    assert_allclose(fitted.calibrate(queries), [[0.5, 0.5], [0.75, 0.25], [1, 0]], atol=1e-9)
    # With smoothing, the uniform distribution has the weight 1 / (4 + 2).
    assert_allclose(IsotonicCalibration().fit(logits, [0, 1, 0, 0]).calibrate(queries)[2], [11 / 12, 1 / 12])


def test_one_vs_rest_agrees_with_scikit_learn():
    logits, y = problem(1500, 5)
    prob = softmax(logits, axis=1)
    base = FrozenEstimator(Probabilities().fit(prob, y))
    expected = CalibratedClassifierCV(base, method="isotonic", ensemble=False).fit(prob[:1000], y[:1000])
    ours = IsotonicCalibration("one-vs-rest", smoothing=0).fit(logits[:1000], y[:1000])
    assert_allclose(ours.calibrate(logits[1000:]), expected.predict_proba(prob[1000:]), atol=1e-9)


def test_rows_of_zeros_become_uniform():
    logits, y = problem(300, 4)
    fitted = IsotonicCalibration("one-vs-rest", smoothing=0).fit(logits, y)
    # Functions that are 0 below 0.4.
    fitted.maps_ = [m._replace(scores=np.array([0.4, 1]), values=np.array([0.0, 1])) for m in fitted.maps_]
    assert_array_equal(fitted.calibrate([[0.0, 0, 0, 0]]), np.full((1, 4), 0.25))
    assert_allclose(fitted.calibrate([[0.0, 0, 0, -np.inf]]), [[1 / 3, 1 / 3, 1 / 3, 0]])


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 6), st.integers(0, 2))
@settings(deadline=None, max_examples=25)
def test_pooled_agrees_with_the_fit_on_all_pairs(seed, n, n_classes, decimals):
    rng = np.random.default_rng(seed)
    # Few decimals give ties between hits, between misses, and between both.
    logits = (rng.normal(size=(n, n_classes)) * 2).round(decimals)
    y, weight = rng.integers(n_classes, size=n), rng.integers(1, 4, size=n)
    fitted = IsotonicCalibration("pooled").fit(logits, y, weight, classes=range(n_classes))
    prob = softmax(logits, axis=1).round(12)
    hit = (np.arange(n_classes) == y[:, None]).astype(float)
    pair_weight = np.repeat(weight, n_classes).astype(float)
    expected = regression(prob.ravel(), hit.ravel(), pair_weight)
    grid = np.r_[np.linspace(0, 1, 200), prob.ravel()]
    assert_allclose(fitted.maps_[0](grid), expected.predict(grid), atol=1e-9)
    assert_allclose(pair_weight @ fitted.maps_[0](prob.ravel()), weight.sum())


def test_pooled_output_and_argmax():
    logits, y = problem(400, 6)
    fitted = IsotonicCalibration("pooled", smoothing=0).fit(logits, y)
    prob = softmax(logits, axis=1)
    unscaled = fitted.maps_[0](prob) + 1e-9 * prob
    expected = unscaled / unscaled.sum(axis=1, keepdims=True)
    assert_allclose(fitted.calibrate(logits), expected, atol=1e-12)
    # The difference is too small for the slope to have an effect.
    close = np.array([[1.0, 1.0 + 1e-12, 0.0]])
    assert fitted.calibrate(close).argmax() == 1


def test_excluded_classes_do_not_count_as_misses():
    logits, y = problem(100, 3)
    wide = np.column_stack([logits, np.full((100, 2), -np.inf)])
    for scope in ["top-label", "pooled", "one-vs-rest"]:
        narrow = IsotonicCalibration(scope).fit(logits, y)
        fitted = IsotonicCalibration(scope).fit(wide, y, classes=range(5))
        assert_allclose(fitted.calibrate(wide)[:, :3], narrow.calibrate(logits), atol=1e-12)


@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from(["top-label", "pooled", "one-vs-rest"]))
@settings(deadline=None, max_examples=25)
def test_functions_are_non_decreasing(seed, n, scope):
    rng = np.random.default_rng(seed)
    logits, y = rng.normal(size=(n, 3)) * 5, rng.integers(3, size=n)
    grid = np.linspace(0, 1, 500)
    for score_map in IsotonicCalibration(scope).fit(logits, y, classes=range(3)).maps_:
        if score_map is not None:
            values = score_map(grid)
            assert (np.diff(values) >= 0).all() and values[0] >= 0 and values[-1] <= 1


def test_pooling_five_million_pairs_is_fast():
    logits, y = problem(5000, 1000)
    start = time.perf_counter()
    fitted = IsotonicCalibration("pooled").fit(logits, y, classes=range(1000))
    assert len(fitted.maps_[0].scores) <= 15_000
    prob = fitted.calibrate(logits[:100])
    assert time.perf_counter() - start < 10
    assert_array_equal(prob.argmax(axis=1), logits[:100].argmax(axis=1))
