"""Histogram binning: bins, empty bins, and agreement with netcal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import softmax

from clipcal.calibration import HistogramBinning


def two_class_logits(confidence):
    """Rows that predict the first class with the given confidence, at least 1/2."""
    confidence = np.asarray(confidence, dtype=float)
    return np.column_stack([np.log(confidence / (1 - confidence)), np.zeros(len(confidence))])


def test_bins_of_equal_width_by_hand():
    logits = two_class_logits([0.55, 0.6, 0.7, 0.95, 0.96, 0.97])
    y = [1, 0, 0, 0, 0, 1]
    fitted = HistogramBinning(4, strategy="uniform", smoothing=0).fit(logits, y, [1, 3, 1, 1, 1, 1])
    edges, values = fitted.maps_[0]
    assert edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # Empty bins map to their middle.
    assert_allclose(values, [0.125, 0.375, 4 / 5, 2 / 3])
    assert_allclose(fitted.calibrate(two_class_logits([0.65, 0.8])), [[4 / 5, 1 / 5], [2 / 3, 1 / 3]])


def test_bins_are_closed_on_the_right():
    score_map = HistogramBinning(4, strategy="uniform").fit(two_class_logits([0.6, 0.9]), [0, 1]).maps_[0]
    assert score_map(np.array([0.0, 0.25, np.nextafter(0.25, 1), 0.75, 0.76, 1.0])).tolist() == [
        *(0.125, 0.125, 0.375),
        *(1.0, 0.0, 0.0),
    ]


def test_bins_of_equal_weight_lie_between_distinct_scores():
    def edges(confidence, n_bins, weight=None):
        fitted = HistogramBinning(n_bins).fit(
            two_class_logits(confidence), [0, 1] * (len(confidence) // 2), weight
        )
        return fitted.maps_[0].edges

    assert_allclose(edges([0.6, 0.7, 0.8, 0.9], 2), [0, 0.75, 1])
    assert_allclose(edges([0.6, 0.7, 0.8, 0.9], 2, [1, 1, 1, 3]), [0, 0.85, 1])
    assert_allclose(edges([0.6, 0.6, 0.6, 0.9], 4), [0, 0.75, 1])
    assert_allclose(edges([0.6] * 6, 4), [0, 1])
    assert_allclose(edges([0.6, 0.9], 10), [0, 0.75, 1])


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 40))
@settings(deadline=None, max_examples=25)
def test_no_bin_of_equal_weight_is_empty_and_hits_are_preserved(seed, n_bins, n):
    rng = np.random.default_rng(seed)
    # Ties, some of them up to rounding.
    logits = rng.normal(size=(n, 3)).round(1)
    y, weight = rng.integers(3, size=n), rng.uniform(0.1, 2, size=n)
    score_map = HistogramBinning(n_bins).fit(logits, y, weight, classes=range(3)).maps_[0]
    confidence, hit = softmax(logits, axis=1).max(axis=1), logits.argmax(axis=1) == y
    filled = np.unique(np.searchsorted(score_map.edges[1:-1], confidence))
    assert len(filled) == len(score_map.edges) - 1 <= n_bins
    assert_allclose(weight @ score_map(confidence), weight @ hit)


def test_one_bin_is_the_accuracy():
    logits = np.random.default_rng(0).normal(size=(50, 4))
    y = np.random.default_rng(1).integers(4, size=50)
    fitted = HistogramBinning(1, smoothing=0, keep_argmax=False).fit(logits, y)
    top = fitted.calibrate(logits)[np.arange(50), logits.argmax(axis=1)]
    assert_allclose(top, (logits.argmax(axis=1) == y).mean())


@pytest.mark.parametrize("n_bins", [10, 15])
def test_one_vs_rest_agrees_with_netcal(n_bins):
    binning = pytest.importorskip("netcal.binning")
    rng = np.random.default_rng(n_bins)
    logits = rng.normal(size=(1200, 5)) * 2
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    prob = softmax(logits, axis=1)
    expected = binning.HistogramBinning(bins=n_bins).fit(prob[:800], y[:800]).transform(prob[800:])
    ours = HistogramBinning(n_bins, strategy="uniform", scope="one-vs-rest", smoothing=0)
    assert_allclose(ours.fit(logits[:800], y[:800]).calibrate(logits[800:]), expected, atol=1e-12)


def test_invalid_number_of_bins_raises():
    with pytest.raises(ValueError, match="n_bins"):
        HistogramBinning(0).fit([[0.0, 1.0]], [0], classes=[0, 1])
