"""Risk and coverage: values computed by hand, another library, and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from clipcal.metrics import area_under_risk_coverage, risk_coverage_curve

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def rows(confidence, correct):
    """Three-class rows that predict "a" with the given confidence, at least 0.4."""
    confidence = np.asarray(confidence, dtype=float)
    rest = (1 - confidence) / 2
    return np.where(np.asarray(correct) == 1, "a", "c"), np.column_stack([confidence, rest, rest])


def area(confidence, correct, **options):
    y, prob = rows(confidence, correct)
    return area_under_risk_coverage(y, prob, labels=["a", "b", "c"], **options)


def test_curve_by_hand():
    y, prob = rows([0.5, 0.9, 0.9, 0.7, 0.6], [0, 1, 0, 1, 1])
    curve = risk_coverage_curve(y, prob, labels=["a", "b", "c"])
    assert_array_equal(curve.threshold, [0.9, 0.7, 0.6, 0.5])
    assert_allclose(curve.coverage, [0.4, 0.6, 0.8, 1.0])
    assert_allclose(curve.risk, [1 / 2, 1 / 3, 1 / 4, 2 / 5])
    weighted = risk_coverage_curve(y, prob, labels=["a", "b", "c"], sample_weight=[0, 3, 1, 1, 0])
    assert_array_equal(weighted.threshold, [0.9, 0.7])
    assert_allclose(weighted.coverage, [0.8, 1.0])
    assert_allclose(weighted.risk, [1 / 4, 1 / 5])


def test_area_by_hand():
    assert_allclose(area([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 1]), (0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    # The mean over the two orders of the tied rows: (1, 1/2) and (0, 1/2).
    assert_allclose(area([0.8, 0.8, 0.6], [1, 0, 1]), (1 / 2 + 1 / 2 + 1 / 3) / 3)
    # A tied block after an error: 1, then (1 + 1/3) / 2, (1 + 2/3) / 3, 2 / 4.
    assert_allclose(area([0.9, 0.6, 0.6, 0.6], [0, 1, 0, 1]), (1 + 2 / 3 + 5 / 9 + 1 / 2) / 4)


def test_excess_by_hand():
    # In the optimal order the only error comes last, with a risk of 1/4 at the last of four rows.
    found = area([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 1], excess=True)
    assert_allclose(found, (1 / 2 + 1 / 3 + 1 / 4) / 4 - 1 / 16)
    assert area([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], excess=True) == 0
    # Ties between errors have no effect on a perfect ranking.
    assert_allclose(area([0.9, 0.9, 0.6, 0.6], [1, 1, 0, 0], excess=True), 0, atol=1e-15)


def test_all_correct_all_wrong_and_all_tied():
    for n in (1, 2, 30):
        spread = np.linspace(0.5, 0.9, n)
        assert area(spread, np.ones(n)) == 0
        assert_allclose(area(spread, np.zeros(n)), 1)
        assert area(spread, np.zeros(n), excess=True) == pytest.approx(0, abs=1e-14)
        correct = np.arange(n) % 3 > 0
        assert_allclose(area(np.full(n, 0.7), correct), 1 - correct.mean())


def test_one_column_two_columns_and_half_precision():
    assert area_under_risk_coverage([3, 4, 3], [[1.0]] * 3, labels=[3]) == pytest.approx(1 / 3)
    y, p = np.array([1, 0, 0, 1]), np.array([0.875, 0.25, 0.625, 1.0])
    expected = area_under_risk_coverage(y, np.column_stack([1 - p, p]))
    for dtype in (np.float16, np.float32, np.float64):
        assert area_under_risk_coverage(y, p.astype(dtype)) == expected


def random_case(seed, n, grid):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.4, 1, n)
    return (np.round(confidence * grid) / grid if grid else confidence), rng.integers(0, 2, n)


cases = st.tuples(st.integers(0, 2**16), st.integers(1, 60), st.sampled_from([None, 20])).map(
    lambda case: random_case(*case)
)


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(0, 2**16))
def test_only_the_order_of_confidences_matters(case, seed):
    confidence, correct = case
    expected = area(confidence, correct)
    order = np.random.default_rng(seed).permutation(len(correct))
    assert_allclose(area(confidence[order], correct[order]), expected, atol=1e-12)
    _, ranks = np.unique(confidence, return_inverse=True)
    assert_allclose(area(0.5 + ranks / 1000, correct), expected, atol=1e-12)
    assert 0 <= area(confidence, correct, excess=True) <= expected <= 1


@settings(max_examples=40, deadline=None)
@given(cases)
def test_errors_are_distributed_over_tied_rows(case):
    confidence, correct = case
    order = np.argsort(-confidence)
    error = np.array([1 - correct[confidence == value].mean() for value in confidence])[order]
    expected = np.mean(np.cumsum(error) / np.arange(1, len(error) + 1))
    assert_allclose(area(confidence, correct), expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(0, 2**16))
def test_integer_weights_repeat_rows(case, seed):
    confidence, correct = case
    weight = np.random.default_rng(seed).integers(0, 4, len(correct))
    weight[0] = 1
    kept = np.repeat(np.arange(len(correct)), weight)
    for excess in (False, True):
        assert_allclose(
            area(confidence, correct, sample_weight=weight, excess=excess),
            area(confidence[kept], correct[kept], excess=excess),
            atol=1e-12,
        )


def test_only_the_ratios_of_non_integer_weights_matter():
    confidence, correct = random_case(0, 50, None)
    weight = np.random.default_rng(1).uniform(0.2, 1.7, 50)
    shares = area(confidence, correct, sample_weight=weight / weight.sum())
    assert_allclose(area(confidence, correct, sample_weight=weight), shares)
    assert_allclose(area(confidence, correct, sample_weight=np.full(50, 0.02)), area(confidence, correct))
    # Weights close to integers give nearly the same area as integers of the same scale.
    near = area(confidence, correct, sample_weight=1 + 1e-9 * weight)
    assert_allclose(near, area(confidence, correct), atol=1e-8)


def test_large_input_agrees_with_the_definition():
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(0.5, 1, 200_000), rng.integers(0, 2, 200_000)
    error = 1.0 - correct[np.argsort(-confidence)]
    expected = np.mean(np.cumsum(error) / np.arange(1, len(error) + 1))
    assert_allclose(area(confidence, correct), expected, rtol=1e-12)


def test_against_uncertainty_calibration():
    other = pytest.importorskip("calibration.utils")
    for seed in range(4):
        confidence, correct = random_case(seed, 500, None)
        theirs = 1 - other.get_selective_stats(confidence, correct)[0]
        assert_allclose(area(confidence, correct), theirs, atol=1e-12)


def test_invalid_input_raises():
    with pytest.raises(ValueError, match="NaN"):
        area([0.5, np.nan], [1, 1])
    with pytest.raises(ValueError, match="excess"):
        area([0.5, 0.6], [1, 1], excess="yes")
    with pytest.warns(UserWarning, match="sum to 1") as caught:
        risk_coverage_curve(["a"], [[0.5, 0.4]], labels=["a", "b"])
    assert caught[0].filename == __file__
