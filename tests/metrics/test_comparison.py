"""Comparison of two models: t intervals of SciPy, size, coverage, and symmetry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import ttest_rel
from sklearn.metrics import brier_score_loss, log_loss

from clipcal.metrics import (
    brier_score,
    calibration_interval,
    compare_calibration,
    expected_calibration_error,
    negative_log_likelihood,
)


def case(seed, n, n_classes=3):
    """Labels, and the correlated probabilities of two models."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.random(n)[:, None] > prob.cumsum(axis=1)).sum(axis=1).clip(0, n_classes - 1)
    other = np.exp(1.6 * logits + rng.normal(size=logits.shape) * 0.3)
    return y, prob, other / other.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("metric", ["brier", "nll"])
def test_losses_agree_with_the_paired_t_interval_of_scipy(metric):
    y, a, b = case(0, 200)
    found = compare_calibration(y, a, b, metric=metric, confidence_level=0.9)
    if metric == "brier":
        assert_allclose([found.value_a, found.value_b], [brier_score_loss(y, a), brier_score_loss(y, b)])
        loss_a, loss_b = (((p - np.eye(3)[y]) ** 2).sum(axis=1) for p in (a, b))
    else:
        assert_allclose([found.value_a, found.value_b], [log_loss(y, a), log_loss(y, b)])
        loss_a, loss_b = (-np.log(p[np.arange(200), y]) for p in (a, b))
    theirs = ttest_rel(loss_a, loss_b)
    assert_allclose(found.pvalue, theirs.pvalue)
    assert_allclose([found.low, found.high], list(theirs.confidence_interval(0.9)))


def test_errors_agree_with_the_metric():
    y, a, b = case(1, 150)
    weight = np.random.default_rng(0).uniform(0.5, 2, 150)
    found = compare_calibration(y, a, b, sample_weight=weight, n_bins=10, random_state=0)
    values = [expected_calibration_error(y, p, sample_weight=weight, n_bins=10) for p in (a, b)]
    assert_allclose([found.value_a, found.value_b, found.difference], [*values, values[0] - values[1]])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**16),
    st.integers(2, 40),
    st.sampled_from(["ece", "brier", "nll"]),
    st.sampled_from(["uniform", "quantile"]),
    st.booleans(),
    st.booleans(),
)
@pytest.mark.filterwarnings("error")
def test_swapping_the_models_swaps_the_signs(seed, n, metric, strategy, saturate, weigh):
    y, a, b = case(seed, n)
    if saturate:
        a = np.eye(3)[a.argmax(axis=1)]
    weight = np.random.default_rng(seed).integers(0, 4, n) + np.eye(n)[0] + np.eye(n)[1] if weigh else None
    options = {"labels": [0, 1, 2], "metric": metric, "strategy": strategy, "sample_weight": weight}
    options |= {"n_resamples": 99, "random_state": 0}
    one, two = compare_calibration(y, a, b, **options), compare_calibration(y, b, a, **options)
    assert one.low <= one.difference <= one.high
    assert 0 <= one.pvalue <= 1
    assert_allclose([one.difference, one.low, one.high], [-two.difference, -two.high, -two.low], atol=1e-9)
    assert_allclose(one.pvalue, two.pvalue, atol=1e-9)


def test_a_model_equals_itself():
    y, a, _ = case(2, 100)
    for metric in ("ece", "brier", "nll"):
        found = compare_calibration(y, a, a, metric=metric, random_state=0)
        assert found.difference == 0
        assert_allclose([found.low, found.high], 0, atol=1e-12)
        assert found.pvalue == 1


def test_nearly_identical_models_have_a_short_interval():
    y, a, _ = case(2, 1000)
    b = 0.999 * a + 0.001 / 3
    found = compare_calibration(y, a, b, random_state=0)
    assert found.low <= found.difference <= found.high
    assert found.high - found.low < 0.05
    assert (
        calibration_interval(y, a, random_state=0).high - calibration_interval(y, a, random_state=0).low
        > 0.03
    )


def test_losses_agree_with_the_metrics_for_true_classes_of_probability_0():
    y, a, b = case(3, 50)
    a = np.eye(3)[a.argmax(axis=1)].astype(np.float32)
    for metric, score in (("nll", negative_log_likelihood), ("brier", brier_score)):
        found = compare_calibration(y, a, b, metric=metric)
        assert_allclose([found.value_a, found.value_b], [score(y, a), score(y, b)], rtol=1e-13)
        assert np.isfinite(found).all()


def test_interval_and_pvalue_agree():
    for seed in range(20):
        y, a, b = case(seed, 300)
        b = 0.5 * b + 0.5 * np.eye(3)[b.argmax(axis=1)]
        found = compare_calibration(y, a, b, n_resamples=199, random_state=seed)
        if not 0.02 < found.pvalue < 0.08:
            assert (found.pvalue < 0.05) == (not found.low <= 0 <= found.high)


def two_columns(confidence, correct):
    """Rows whose true class is 0, predicted with confidences of at least one half."""
    of_truth = np.where(correct, confidence, 1 - confidence)
    return np.column_stack([of_truth, 1 - of_truth])


@pytest.mark.parametrize(("off_a", "off_b"), [(0.0, 0.0), (0.1, 0.1), (0.15, 0.0)])
def test_size_and_coverage_of_the_error(off_a, off_b):
    rng = np.random.default_rng(0)
    inside = rejected = 0
    for _ in range(60):
        a, chance = rng.uniform(0.5, 1, 400), rng.random(400)
        b = np.where(rng.random(400) < 0.6, a, rng.uniform(0.7, 1, 400))
        prob_a, prob_b = two_columns(a, chance < a - off_a), two_columns(b, chance < b - off_b)
        y = np.zeros(400, dtype=int)
        options = {"labels": [0, 1], "n_resamples": 199, "random_state": rng.integers(99)}
        found = compare_calibration(y, prob_a, prob_b, **options)
        inside += found.low <= off_a - off_b <= found.high
        rejected += found.pvalue <= 0.05
    assert inside >= 60 * (0.95 - 4 * np.sqrt(0.95 * 0.05 / 60))
    if off_a == off_b:
        assert rejected <= 60 * (0.05 + 4 * np.sqrt(0.95 * 0.05 / 60))
    else:
        assert rejected > 25


@pytest.mark.parametrize(("right", "off", "n"), [(0.7, 0.02, 100), (0.97, 0.02, 300), (None, 0.02, 500)])
def test_size_for_models_with_errors_of_opposite_sign(right, off, n):
    rng = np.random.default_rng(0)
    rejected = inside = 0
    for seed in range(150):
        truth = rng.uniform(0.55, 0.95, n) if right is None else np.full(n, right)
        y = (rng.random(n) < truth).astype(int)
        options = {"labels": [0, 1], "n_resamples": 199, "random_state": seed}
        found = compare_calibration(y, truth + off, truth - off, **options)
        inside += found.low - 1e-12 <= 0 <= found.high + 1e-12
        rejected += found.pvalue <= 0.05
    # Three standard errors around 5 %.
    assert rejected <= 150 * (0.05 + 3 * np.sqrt(0.95 * 0.05 / 150))
    assert inside >= 150 * (0.95 - 3 * np.sqrt(0.95 * 0.05 / 150))


def test_rows_without_errors_are_not_significant():
    # With an accuracy of 97 %, 40 % of samples have no error in 30 rows, and both models are off by 2 %.
    options = {"labels": [0, 1], "random_state": 0}
    found = compare_calibration(np.ones(30, int), np.full(30, 0.99), np.full(30, 0.95), **options)
    assert found.low < 0 <= found.high
    assert found.pvalue > 0.05


def test_the_difference_is_bounded_by_the_sum_of_differences_of_bins():
    # All rows are in the same bin, so the errors differ by at most the difference of the confidences, up to
    # the sampling variation of the counts.
    y = (np.random.default_rng(0).random(200) < 0.7).astype(int)
    found = compare_calibration(y, np.full(200, 0.72), np.full(200, 0.68), labels=[0, 1], random_state=0)
    assert -0.05 < found.low <= found.high < 0.05


def test_more_rows_give_a_shorter_interval():
    rng = np.random.default_rng(0)
    widths = []
    for n in (2000, 25_000):
        a = rng.uniform(0.5, 1, n)
        y = np.where(rng.random(n) < a - 0.05, 1, 0)
        found = compare_calibration(y, a, np.clip(a - 0.04, 0.5, 1), labels=[0, 1], random_state=0)
        assert found.low <= found.difference <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2
    assert found.low > 0


def test_at_least_two_rows_are_required():
    with pytest.raises(ValueError, match="at least 2 rows"):
        compare_calibration([0, 1], [0.2, 0.3], [0.2, 0.3], sample_weight=[1, 0])
    with pytest.raises(ValueError, match="without a column"):
        compare_calibration([0, 5], [0.2, 0.3], [0.2, 0.3], labels=[0, 1], metric="brier")
    # The interval of a single model accepts one row.
    assert calibration_interval([1], [0.8], labels=[0, 1], random_state=0).estimate == pytest.approx(0.2)
