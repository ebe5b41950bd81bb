"""BinMeanShift: edges, calibrators of the groups, and small groups."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from clipcal.calibration import BinMeanShift, Calibrator, DensityRatioCalibration, TemperatureScaling
from clipcal.calibration._bin_mean_shift import _group_edges


class Prior(Calibrator):
    """Returns the class frequencies, independent of the logits."""

    preserves_argmax = False
    class_agnostic = False
    samples_needed = "1"

    def _fit_rows(self, rows):
        counts = np.bincount(rows.true_column, weights=rows.weight, minlength=rows.logits.shape[1])
        self.prior_ = counts / counts.sum()

    def _probabilities(self, logits):
        return np.tile(self.prior_, (len(logits), 1))


def sample(n=200, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    y = (0.5 * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return logits, y, rng.uniform(0.2, 0.9, n)


def test_each_group_has_a_separate_calibrator():
    logits, y, proximity = sample()
    shift = BinMeanShift().fit(logits, y, proximity=proximity)
    assert len(shift.calibrators_) == 5 and shift.global_calibrator_ is None
    group = np.searchsorted(np.quantile(proximity, [0.2, 0.4, 0.6, 0.8]), proximity)
    prob = shift.calibrate(logits, proximity=proximity)
    calibrated = shift.transform(logits, proximity=proximity)
    for g in range(5):
        alone = TemperatureScaling().fit(logits[group == g], y[group == g])
        assert_allclose(prob[group == g], alone.calibrate(logits[group == g]), atol=1e-12)
        assert_allclose(calibrated[group == g], alone.transform(logits[group == g]), atol=1e-12)
    assert len({calibrator.temperature_ for calibrator in shift.calibrators_}) == 5


@pytest.mark.parametrize(
    ("proximity", "weight", "n_groups", "edges"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1, 2, [0.25]),
        ([0.4, 0.1, 0.3, 0.2], 1, 2, [0.25]),
        ([0.1, 0.2, 0.3, 0.4], [1, 1, 1, 3], 2, [0.35]),
        ([0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.2, 0.2], 4, [0.15, 0.25, 0.35]),
        ([0.1, 0.1, 0.1, 0.4], 1, 4, [0.25]),
        ([0.3] * 4, 1, 4, []),
        ([0.3], 1, 4, []),
        ([0.1, 0.2], 1, 50, [0.15]),
        ([1.0, np.nextafter(1, 2)], 1, 2, [1.0]),
        ([-1.7e308, 1.7e308], 1, 2, [0.0]),
    ],
)
def test_edges_lie_between_distinct_values(proximity, weight, n_groups, edges):
    proximity = np.array(proximity)
    weight = np.broadcast_to(np.asarray(weight, dtype=float), proximity.shape)
    assert_allclose(_group_edges(proximity, weight, n_groups), edges)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 40), n_groups=st.integers(1, 9), digits=st.integers(1, 3))
def test_no_group_is_empty_and_weights_repeat_rows(seed, n, n_groups, digits):
    rng = np.random.default_rng(seed)
    proximity = rng.uniform(size=n).round(digits)
    weight = rng.integers(1, 4, n).astype(float)
    edges = _group_edges(proximity, weight, n_groups)
    assert len(np.unique(np.searchsorted(edges, proximity))) == len(edges) + 1 <= n_groups
    repeated = np.repeat(proximity, weight.astype(int))
    assert_allclose(edges, _group_edges(repeated, np.ones(len(repeated)), n_groups))
    assert_allclose(edges, _group_edges(proximity, weight / weight.sum(), n_groups))


def test_small_groups_use_all_rows():
    logits, y, _ = sample(90)
    # The first group has 30 rows, which cannot be split, so the second has 6.
    proximity = np.maximum(np.arange(90), 29) / 100
    template = BinMeanShift(Prior(), n_groups=5, min_samples=10)

    def has_own(weight=None, **parameters):
        shift = clone(template).set_params(**parameters).fit(logits, y, weight, proximity=proximity)
        return [calibrator is not shift.global_calibrator_ for calibrator in shift.calibrators_]

    assert has_own() == [True, False, True, True, True]
    shift = clone(template).fit(logits, y, proximity=proximity)
    assert_allclose(shift.calibrate(logits[:1], proximity=[0.32])[0], np.bincount(y) / 90)
    assert_allclose(shift.calibrate(logits[:1], proximity=[0.0])[0], np.bincount(y[:30]) / 30)
    # A weight of 2 counts as two rows; weights that sum to 1 are scaled to a mean of 1.
    assert has_own(np.full(90, 2.0)) == [True] * 5
    assert has_own(np.full(90, 1 / 90)) == has_own()
    assert has_own(min_samples=0) == [True] * 5
    assert has_own(min_samples=1000) == [False] * 5


def test_constant_proximity_gives_one_group():
    logits, y, _ = sample()
    same = np.full(len(y), 0.5)
    shift = BinMeanShift().fit(logits, y, proximity=same)
    assert shift.group_edges_.tolist() == []
    alone = TemperatureScaling().fit(logits, y)
    assert_allclose(shift.calibrate(logits, proximity=same * 2), alone.calibrate(logits))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 9999), n_classes=st.integers(2, 6))
def test_rows_are_independent_and_keep_their_argmax(seed, n_classes):
    logits, y, proximity = sample(150, n_classes, seed)
    shift = BinMeanShift(TemperatureScaling(shrinkage=1.0), n_groups=3).fit(logits, y, proximity=proximity)
    prob = shift.calibrate(logits, proximity=proximity)
    assert_allclose(prob.sum(axis=1), 1, atol=1e-12)
    assert_array_equal(prob.argmax(axis=1), logits.argmax(axis=1))
    order = np.random.default_rng(seed).permutation(150)
    assert_allclose(shift.calibrate(logits[order], proximity=proximity[order]), prob[order], atol=1e-12)
    assert_allclose(shift.calibrate(logits[:1], proximity=proximity[:1]), prob[:1], atol=1e-12)


def test_tags_follow_the_calibrator():
    logits, y, proximity = sample()
    shift = BinMeanShift()
    assert shift.preserves_argmax and shift.class_agnostic
    restored = pickle.loads(pickle.dumps(shift.fit(logits, y, proximity=proximity)))
    other = restored.for_classes(list("abcdef"))
    assert other.calibrate(np.zeros((2, 6)), proximity=[0, 1]).shape == (2, 6)
    assert all(calibrator.classes_.tolist() == list("abcdef") for calibrator in other.calibrators_)
    assert len(restored.calibrators_[0].classes_) == 3
    bound = BinMeanShift(Prior())
    assert not bound.preserves_argmax and not bound.class_agnostic
    bound.fit(logits, y, proximity=proximity)
    with pytest.raises(ValueError, match="cannot be used for other classes"):
        bound.for_classes(list("abcdef"))
    with pytest.raises(ValueError, match="6 features"):
        bound.calibrate(np.zeros((2, 6)), proximity=[0, 1])


def test_groups_may_lack_classes_and_labels_may_be_strings():
    logits, y = np.zeros((60, 3)), np.repeat([0, 1, 2], 20)
    # Each class has its own range of proximity.
    proximity = y + np.linspace(0, 0.1, 60)
    names = np.array(["owl", "ant", "bee"])
    shift = BinMeanShift(Prior(), n_groups=3, min_samples=1)
    shift.fit(logits, names[y], classes=names, proximity=proximity)
    assert shift.calibrate(logits[:1], proximity=[-1.0]).tolist() == [[1, 0, 0]]
    assert shift.calibrate(logits[:1], proximity=[9.0]).tolist() == [[0, 0, 1]]


def test_invalid_input_raises():
    logits, y, proximity = sample()
    with pytest.raises(ValueError, match=r"DensityRatioCalibration\(\) needs proximity"):
        BinMeanShift(DensityRatioCalibration()).fit(logits, y, proximity=proximity)
    with pytest.raises(ValueError, match=r"BinMeanShift\.fit needs the proximity"):
        BinMeanShift().fit(logits, y)
    with pytest.raises(ValueError, match="n_groups"):
        BinMeanShift(n_groups=0).fit(logits, y, proximity=proximity)
