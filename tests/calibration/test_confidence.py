"""Redistribution of probability, and common properties of calibrators of a single score."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from clipcal.calibration import (
    BetaCalibration,
    HistogramBinning,
    IsotonicCalibration,
    VennAbersCalibration,
)
from clipcal.calibration._confidence import put_first, redistribute, top_choice

TRANSFERABLE = [
    HistogramBinning(3),
    HistogramBinning(3, strategy="uniform", smoothing=0),
    IsotonicCalibration(),
    IsotonicCalibration(smoothing=0),
    IsotonicCalibration("pooled"),
    IsotonicCalibration("pooled", smoothing=0),
    BetaCalibration(),
    VennAbersCalibration(),
]
BOUND = [
    HistogramBinning(3, scope="one-vs-rest"),
    HistogramBinning(3, scope="one-vs-rest", strategy="uniform", smoothing=0),
    IsotonicCalibration("one-vs-rest"),
    IsotonicCalibration("one-vs-rest", smoothing=0),
    BetaCalibration("one-vs-rest"),
    VennAbersCalibration("one-vs-rest"),
]
FREE = [HistogramBinning(2, keep_argmax=False), IsotonicCalibration(keep_argmax=False)]
ALL = TRANSFERABLE + BOUND + FREE


def each(calibrators):
    return pytest.mark.parametrize("calibrator", [clone(c) for c in calibrators], ids=repr)


def problem(n=200, n_classes=4, seed=0, scale=2.0):
    """Logits that are `scale` times too confident, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 1.5
    return scale * logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def check_probabilities(prob, logits):
    assert prob.dtype == np.float64 and prob.shape == np.shape(logits)
    assert (prob >= 0).all()
    assert_allclose(prob.sum(axis=1), 1, atol=1e-9)
    assert (prob[np.isneginf(logits)] == 0).all()


# Ties, saturation and excluded classes; the first column is always finite.
hard_logits = arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 5)),
    elements=st.sampled_from([-np.inf, -1e3, -1.0, 0.0, 1e-17, 1.0, 1.0 + 2**-52, 3.7, 40.0, 1e3]),
).map(lambda z: np.where(np.arange(z.shape[1]) == 0, np.maximum(z, -2.0), z))


def test_redistribution_by_hand():
    top = top_choice(np.log([[0.2, 0.5, 0.3]]))
    assert_allclose(top.confidence, [0.5])
    assert_allclose(redistribute(top, np.array([0.8])), [[0.08, 0.8, 0.12]])
    # A confidence below 0.3 / (0.5 + 0.3) would change the predicted class to the third.
    assert_allclose(redistribute(top, np.array([0.1])), [[0.25, 0.375, 0.375]])
    assert redistribute(top, np.array([0.1])).argmax() == 1
    assert_allclose(redistribute(top, np.array([0.1]), keep_argmax=False), [[0.36, 0.1, 0.54]])


def test_redistribution_from_a_confidence_of_1_uses_the_logits():
    logits = np.array([[1e3, 0.0, 0.0], [1e3, 0.0, np.log(3)], [0.0, -np.inf, -np.inf]])
    top = top_choice(logits)
    assert_array_equal(top.confidence, 1)
    expected = [[0.8, 0.1, 0.1], [0.8, 0.05, 0.15], [1, 0, 0]]
    assert_allclose(redistribute(top, np.full(3, 0.8)), expected)


def test_put_first():
    prob = np.array([[0.5, 0.5], [0.3, 0.7], [1.0, 0.0]])
    put_first(prob, np.array([1, 1, 0]))
    assert prob[0, 1] == np.nextafter(0.5, 1)
    assert prob[1:].tolist() == [[0.3, 0.7], [1.0, 0.0]]


@given(hard_logits, st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_redistribution_keeps_the_argmax(logits, confidence):
    top = top_choice(logits)
    assert_allclose(top.confidence, softmax(logits, axis=1).max(axis=1), rtol=1e-12)
    prob = redistribute(top, np.full(len(logits), confidence))
    check_probabilities(prob, logits)
    assert_array_equal(prob.argmax(axis=1), logits.argmax(axis=1))
    same = redistribute(top, top.confidence)
    assert_allclose(same, softmax(logits, axis=1), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Every row of logits")
@each(ALL)
@given(seed=st.integers(0, 999), queries=hard_logits, n=st.integers(1, 30))
@settings(deadline=None, max_examples=10)
def test_hard_queries(calibrator, seed, queries, n):
    n_classes = queries.shape[1]
    logits, y = problem(n, n_classes, seed)
    fitted = calibrator.fit(logits, y, classes=np.arange(n_classes))
    prob = fitted.calibrate(queries)
    check_probabilities(prob, queries)
    if fitted.preserves_argmax:
        assert_array_equal(prob.argmax(axis=1), queries.argmax(axis=1))
    one_by_one = np.vstack([fitted.calibrate(row[None]) for row in np.asfortranarray(queries)])
    assert_allclose(fitted.calibrate(np.asfortranarray(queries)), one_by_one, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Every row of logits")
@each(ALL)
@given(logits=hard_logits, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=10)
def test_hard_calibration_rows(calibrator, logits, seed):
    n_classes = logits.shape[1]
    y = np.random.default_rng(seed).integers(n_classes, size=len(logits))
    y[np.isneginf(logits[np.arange(len(y)), y])] = 0
    fitted = calibrator.fit(logits, y, classes=np.arange(n_classes))
    check_probabilities(fitted.calibrate(logits), logits)
    weight = np.random.default_rng(seed).integers(0, 4, size=len(y))
    weight[0] = 2
    weighted = clone(calibrator).fit(logits, y, weight, classes=np.arange(n_classes))
    repeated = clone(calibrator).fit(
        np.repeat(logits, weight, axis=0), np.repeat(y, weight), classes=np.arange(n_classes)
    )
    assert_allclose(weighted.calibrate(logits), repeated.calibrate(logits), atol=1e-5)


@each(ALL)
def test_small_weights_are_scaled_up(calibrator):
    logits, y = problem(80)
    plain = clone(calibrator).fit(logits, y).calibrate(logits)
    shares = clone(calibrator).fit(logits, y, np.full(80, 1 / 80)).calibrate(logits)
    assert_allclose(shares, plain, atol=1e-6)


@each(ALL)
def test_order_of_rows_and_classes_does_not_matter(calibrator):
    logits, y = problem(150)
    names = np.array(["dog", "ant", "cat", "bee"])
    plain = clone(calibrator).fit(logits, y).calibrate(logits)
    rows, columns = np.random.default_rng(1).permutation(150), [2, 0, 3, 1]
    other = clone(calibrator).fit(logits[rows][:, columns], names[y[rows]], classes=names[columns])
    assert_allclose(other.calibrate(logits[:, columns]), plain[:, columns], atol=1e-6)


@each(ALL)
def test_constants_added_to_rows_have_no_effect(calibrator):
    logits, y = problem()
    queries, _ = problem(50, seed=1)
    fitted = calibrator.fit(logits, y)
    assert_allclose(fitted.calibrate(queries + 7.3), fitted.calibrate(queries), atol=1e-9)
    single = fitted.calibrate(queries.astype(np.float32))
    assert single.dtype == np.float64 and np.abs(single - fitted.calibrate(queries)).mean() < 1e-3


@each(ALL)
def test_calibration_lowers_the_log_loss_of_overconfident_logits(calibrator):
    logits, y = problem(2000, scale=3.0)
    queries, truth = problem(2000, scale=3.0, seed=1)
    index = np.arange(len(truth))
    prob = clone(calibrator).set_params(
        **({"smoothing": "auto"} if "smoothing" in calibrator.get_params() else {})
    )
    prob = prob.fit(logits, y).calibrate(queries)
    before = -np.log(softmax(queries, axis=1)[index, truth]).mean()
    assert -np.log(prob[index, truth]).mean() < before - 0.2


@each(TRANSFERABLE)
def test_other_classes_are_supported(calibrator):
    logits, y = problem()
    fitted = calibrator.fit(logits, y)
    assert fitted.class_agnostic and fitted.preserves_argmax
    fewer = fitted.for_classes(["a", "b"]).calibrate(logits[:, :2])
    check_probabilities(fewer, logits[:, :2])
    assert_array_equal(fitted.calibrate(logits[:, :2]), fewer)
    check_probabilities(fitted.calibrate(np.zeros((1, 1000))), np.zeros((1, 1000)))


@each(BOUND)
def test_other_classes_raise_with_functions_per_class(calibrator):
    logits, y = problem()
    fitted = calibrator.fit(logits, y)
    assert not fitted.class_agnostic and not fitted.preserves_argmax
    with pytest.raises(ValueError, match="TemperatureScaling"):
        fitted.for_classes(["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="features"):
        fitted.calibrate(logits[:, :2])


@each(FREE)
def test_argmax_may_change_without_keep_argmax(calibrator):
    logits, _ = problem(n_classes=3)
    # All predictions are wrong.
    wrong = logits.argsort(axis=1)[:, 1]
    fitted = calibrator.fit(logits, wrong)
    assert fitted.class_agnostic and not fitted.preserves_argmax
    assert (fitted.calibrate(logits).argmax(axis=1) != logits.argmax(axis=1)).all()


@each(BOUND)
def test_class_without_rows_has_the_identity(calibrator):
    logits, y = problem()
    kept = y != 2
    fitted = calibrator.fit(logits[kept], y[kept], classes=range(4))
    assert [score_map is None for score_map in fitted.maps_] == [False, False, True, False]
    prob, raw = fitted.calibrate(logits), softmax(logits, axis=1)
    assert (prob[:, 2] > 0).all()
    mapped = np.column_stack([raw[:, k] if k == 2 else fitted.maps_[k](raw[:, k]) for k in range(4)])
    expected = mapped / mapped.sum(axis=1, keepdims=True)
    part = getattr(fitted, "smoothing_", 0)
    assert_allclose(prob, (1 - part) * expected + part / 4, atol=1e-12)


@each([c for c in ALL if "smoothing" in c.get_params()])
def test_smoothing_gives_positive_probabilities(calibrator):
    # All rows are correct: without smoothing, the confidence would be 1.
    logits = np.random.default_rng(0).normal(size=(30, 3))
    calibrator = clone(calibrator).set_params(smoothing="auto")
    fitted = calibrator.fit(logits, logits.argmax(axis=1))
    assert fitted.smoothing_ == pytest.approx(1 / 32)
    assert fitted.fit(logits, logits.argmax(axis=1), np.full(30, 2)).smoothing_ == pytest.approx(1 / 62)
    prob = fitted.calibrate(logits)
    assert prob.min() > 0 and np.isfinite(fitted.transform(logits)).all()
    with pytest.raises(ValueError, match="smoothing"):
        clone(calibrator).set_params(smoothing=1.0).fit(logits, logits.argmax(axis=1))


@each(ALL)
def test_clone_refit_and_pickle(calibrator):
    logits, y = problem()
    assert repr(clone(calibrator)) == repr(calibrator)
    with pytest.raises(NotFittedError):
        clone(calibrator).calibrate(logits)
    fitted = clone(calibrator).fit(*problem(seed=5)).fit(logits, y)
    expected = clone(calibrator).fit(logits, y).calibrate(logits)
    assert_array_equal(fitted.calibrate(logits), expected)
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).calibrate(logits), expected)
    with pytest.raises(ValueError, match="scope"):
        clone(calibrator).set_params(scope="nowhere").fit(logits, y)


@each([c for c in ALL if c.scope == "top-label"])
def test_argmax_is_kept_for_random_labels(calibrator):
    logits, _ = problem(120, n_classes=5, scale=1.0)
    y = np.random.default_rng(0).integers(5, size=120)
    fitted = clone(calibrator).set_params(keep_argmax=True).fit(logits, y)
    assert_array_equal(fitted.calibrate(logits).argmax(axis=1), logits.argmax(axis=1))
