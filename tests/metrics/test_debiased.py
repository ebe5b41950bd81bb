"""The debiased error and the sweep error."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from clipcal.metrics import (
    debiased_calibration_error,
    expected_calibration_error,
    mean_confidence_gap,
    root_mean_square_calibration_error,
    sweep_calibration_error,
)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

METRICS = [debiased_calibration_error, sweep_calibration_error]


def two_class(confidence, correct):
    """Rows that predict the first class, "no", with a confidence of at least one half."""
    confidence = np.asarray(confidence, dtype=float)
    return np.where(np.asarray(correct) == 1, "no", "yes"), np.column_stack([confidence, 1 - confidence])


LABELS = ["no", "yes"]


# Debiased


def test_debiased_by_hand():
    y, prob = two_class([0.95, 0.9, 0.9, 0.65, 0.65, 0.55], [1, 1, 0, 1, 1, 0])
    # Three rows: gap 1/4, variance of the accuracy (2/9) / 2. Two rows: gap -0.35, no variance. One row.
    square = (3 * (1 / 16 - 1 / 9) + 2 * 0.35**2) / 6
    options = {"labels": LABELS, "n_bins": 5}
    assert_allclose(debiased_calibration_error(y, prob, squared=True, **options), square)
    assert_allclose(debiased_calibration_error(y, prob, **options), np.sqrt(square))


def test_debiased_is_clipped_at_zero():
    y, prob = two_class([0.6, 0.7, 0.7], [1, 0, 1])
    assert debiased_calibration_error(y, prob, n_bins=2, squared=True) == pytest.approx(-1 / 9)
    assert debiased_calibration_error(y, prob, n_bins=2) == 0


def test_debiased_of_equal_rows():
    # The variance of an accuracy of 1 is 0.
    y, prob = two_class([0.8] * 9, [1] * 9)
    for strategy in ("uniform", "quantile"):
        error = debiased_calibration_error(y, prob, labels=LABELS, strategy=strategy)
        assert_allclose(error, 0.2)


def test_debiased_closed_side():
    y, prob = two_class([0.75, 0.75, 1.0, 1.0], [1, 1, 0, 0])
    options = {"n_bins": 4, "squared": True}
    assert_allclose(debiased_calibration_error(y, prob, **options), (2 / 16 + 2) / 4)
    left = debiased_calibration_error(y, prob, closed="left", **options)
    assert_allclose(left, 0.375**2 - 0.25 / 3)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_debiased_square_is_unbiased_on_calibrated_data(strategy):
    rng = np.random.default_rng(0)
    squares, plain = [], []
    for _ in range(300):
        confidence = 0.5 + rng.random(200) / 2
        y, prob = two_class(confidence, rng.random(200) < confidence)
        options = {"labels": LABELS, "strategy": strategy}
        squares.append(debiased_calibration_error(y, prob, squared=True, **options))
        plain.append(root_mean_square_calibration_error(y, prob, **options) ** 2)
    assert abs(np.mean(squares)) < 4 * np.std(squares) / np.sqrt(len(squares))
    # Without the correction the estimate is biased.
    assert np.mean(plain) > 20 * np.std(squares) / np.sqrt(len(squares))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 80), st.integers(1, 20), st.booleans())
def test_debiased_never_exceeds_the_root_mean_square_error(seed, n, n_bins, tied):
    y, prob = two_class(*random_rows(seed, n, tied))
    options = {"labels": LABELS, "n_bins": n_bins}
    error = debiased_calibration_error(y, prob, **options)
    square = debiased_calibration_error(y, prob, squared=True, **options)
    assert -1 <= square <= 1
    assert 0 <= error <= root_mean_square_calibration_error(y, prob, **options) + 1e-12
    order = np.random.default_rng(seed).permutation(n)
    assert_allclose(debiased_calibration_error(y[order], prob[order], **options), error, atol=1e-7)


def random_rows(seed, n, tied):
    rng = np.random.default_rng(seed)
    confidence = 0.5 + (rng.integers(0, 11, n) / 20 if tied else rng.random(n) / 2)
    return confidence, rng.random(n) < confidence ** rng.uniform(0, 3)


@pytest.mark.parametrize(("n", "n_bins", "grid"), [(777, 10, None), (1003, 16, None), (900, 15, 32)])
def test_debiased_against_uncertainty_calibration(n, n_bins, grid):
    other = pytest.importorskip("calibration.utils")
    rng = np.random.default_rng(n)
    prob = rng.dirichlet([0.3] * 5, n)
    if grid:
        prob = np.floor(prob * grid) / grid
        prob[np.arange(n), prob.argmax(axis=1)] += 1 - prob.sum(axis=1)
    y = np.where(rng.random(n) < 0.6, prob.argmax(axis=1), rng.integers(0, 5, n))
    for strategy, scheme in (("uniform", other.get_equal_prob_bins), ("quantile", other.get_equal_bins)):
        theirs = other.lower_bound_scaling_ce(
            prob, y, p=2, debias=True, num_bins=n_bins, binning_scheme=scheme, mode="top-label"
        )
        assert_allclose(
            debiased_calibration_error(y, prob, n_bins=n_bins, strategy=strategy), theirs, atol=1e-12
        )


# Sweep


def test_sweep_by_hand():
    y, prob = two_class([0.55, 0.6, 0.7, 0.8, 0.85, 0.9], [0, 1, 0, 1, 1, 1])
    # Accuracies: 1/2, 1/2, 1 with three bins, which is monotone; 1/2, 0 in the first two of four bins.
    residual = np.array([0.15, 0.5, -0.25])
    options = {"labels": LABELS}
    assert_allclose(sweep_calibration_error(y, prob, **options), np.abs(residual).sum() / 6)
    assert_allclose(
        sweep_calibration_error(y, prob, norm="l2", **options), np.sqrt((residual**2 / 2).sum() / 6)
    )


def test_sweep_uses_one_bin_if_two_are_not_monotone():
    y, prob = two_class([0.6, 0.7, 0.8, 0.9], [1, 1, 1, 0])
    assert_allclose(sweep_calibration_error(y, prob), 0)
    assert_allclose(sweep_calibration_error(y, prob, norm="l2"), 0, atol=1e-12)


def test_sweep_never_splits_ties():
    y, prob = two_class([0.6, 0.6, 0.6, 0.6, 0.9, 0.9], [0, 1, 1, 0, 1, 1])
    # Any number of bins is reduced to two, whatever the order of the tied rows.
    for order in (slice(None), slice(None, None, -1), [1, 2, 0, 3, 4, 5]):
        assert_allclose(sweep_calibration_error(y[order], prob[order]), (0.4 + 0.2) / 6)


def sweep_by_definition(confidence, correct, p):
    order = np.argsort(confidence)
    confidence, correct = confidence[order], correct[order]
    n = len(order)
    ends = [i + 1 for i in range(n) if i == n - 1 or confidence[i + 1] > confidence[i]]
    best = [0, n]
    for n_bins in range(2, n):
        cuts = sorted({0} | {min(e for e in ends if e * n_bins >= j * n) for j in range(1, n_bins + 1)})
        accuracy = [correct[i:j].mean() for i, j in pairwise(cuts)]
        if any(b < a - 1e-12 for a, b in pairwise(accuracy)):
            break
        best = cuts
    parts = [(j - i) / n * abs((confidence[i:j] - correct[i:j]).mean()) ** p for i, j in pairwise(best)]
    return sum(parts) ** (1 / p)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 60), st.booleans(), st.sampled_from([0.0, 0.5, 0.7, 0.95]))
def test_sweep_against_the_definition(seed, n, tied, sure):
    confidence, correct = random_rows(seed, n, tied)
    # The sweep is long if all confident rows are correct.
    correct = np.where(confidence >= sure, correct, 0) if sure < 0.9 else confidence > 0.6
    correct = correct.astype(float)
    correct[np.argsort(confidence)[: n // 8]] = 1
    y, prob = two_class(confidence, correct)
    for norm, p in (("l1", 1), ("l2", 2)):
        ours = sweep_calibration_error(y, prob, labels=LABELS, norm=norm)
        assert_allclose(ours, sweep_by_definition(confidence, correct, p), atol=1e-12)
    gap = abs(mean_confidence_gap(y, prob, labels=LABELS))
    assert gap - 1e-12 <= sweep_calibration_error(y, prob, labels=LABELS)


def test_long_sweeps_are_fast():
    # One of the two lowest rows is wrong, so accuracy is monotone until there are as many bins as rows.
    n = 200_000
    confidence = np.linspace(0.5, 1, n + 1)[1:]
    correct = np.ones(n)
    correct[1] = 0
    y, prob = two_class(confidence, correct)
    start = time.perf_counter()
    error = sweep_calibration_error(y, prob)
    # Trying each number of bins separately would evaluate 2e10 cuts.
    assert time.perf_counter() - start < 10
    assert_allclose(error, (1 - confidence).mean(), atol=1e-5)


def test_sweep_is_less_biased_than_fixed_bins():
    rng = np.random.default_rng(1)
    sweep, fixed = [], []
    for _ in range(60):
        confidence = 0.5 + rng.random(500) / 2
        y, prob = two_class(confidence, rng.random(500) < confidence)
        sweep.append(sweep_calibration_error(y, prob, labels=LABELS))
        fixed.append(expected_calibration_error(y, prob, labels=LABELS))
    assert np.mean(sweep) < 0.85 * np.mean(fixed)


# Both


@pytest.mark.parametrize("metric", METRICS)
def test_weights_raise(metric):
    with pytest.raises(ValueError, match="does not support sample_weight"):
        metric([0, 1], [0.2, 0.7], sample_weight=[1, 2])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n", range(1, 31))
def test_few_saturated_and_tied_rows(metric, dtype, n):
    rng = np.random.default_rng(n)
    prob = np.eye(3)[rng.integers(0, 3, n)].astype(dtype)
    prob[::3] = [0.5, 0.25, 0.25]
    for y in (rng.integers(0, 3, n), np.zeros(n)):
        assert 0 <= metric(y, prob, labels=[0, 1, 2]) <= 1
    assert metric(np.zeros(n), np.ones((n, 1), dtype)) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_and_all_wrong_predictions(metric):
    y = np.arange(30) % 3
    assert metric(y, np.eye(3)[y]) == 0
    assert metric(y, np.eye(3)[(y + 1) % 3]) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_class_names_and_column_order_do_not_matter(metric):
    rng = np.random.default_rng(3)
    prob = rng.dirichlet([0.4] * 4, 300)
    y = np.where(rng.random(300) < 0.7, prob.argmax(axis=1), rng.integers(0, 4, 300))
    names, columns = np.array(["d", "a", "c", "b"]), rng.permutation(4)
    named = metric(names[y], prob[:, columns], labels=names[columns])
    assert_allclose(named, metric(y, prob), atol=1e-12)
