"""Floor, test, consistency band and intervals: enumeration, simulation, and edge cases."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import binom, bootstrap

from clipcal.metrics import (
    calibration_bins,
    calibration_error_floor,
    calibration_interval,
    calibration_test,
    consistency_band,
    expected_calibration_error,
    mean_confidence_gap,
)


def rows(confidence, correct):
    """True labels, and ten-class rows that predict class 0 with confidences of at least 0.1."""
    confidence = np.asarray(confidence, dtype=float)
    prob = np.repeat((1 - confidence)[:, None] / 9, 10, axis=1)
    prob[:, 0] = confidence
    return np.where(np.asarray(correct) == 1, 0, 1), prob


LABELS = np.arange(10)


def every_outcome(confidence, weight=None, n_bins=15):
    """Yield the probabilities and errors of all 2**n outcomes of a calibrated model."""
    for correct in itertools.product([0, 1], repeat=len(confidence)):
        p = np.prod(np.where(correct, confidence, 1 - np.asarray(confidence)))
        y, prob = rows(confidence, correct)
        yield (
            p,
            expected_calibration_error(y, prob, labels=LABELS, sample_weight=weight, n_bins=n_bins),
            correct,
        )


few = st.lists(st.sampled_from([0.1, 0.35, 0.5, 0.62, 0.9, 0.93, 0.999, 1.0]), min_size=1, max_size=7)


@settings(max_examples=30, deadline=None)
@given(few, st.sampled_from([1, 4, 15]))
def test_floor_is_the_mean_over_all_outcomes(confidence, n_bins):
    mean = sum(p * error for p, error, _ in every_outcome(confidence, n_bins=n_bins))
    assert_allclose(
        calibration_error_floor(rows(confidence, 1 + 0 * np.array(confidence))[1], n_bins=n_bins),
        mean,
        atol=1e-12,
    )


def test_floor_by_hand():
    # A single row of confidence 0.5 has a gap of one half for both outcomes.
    assert calibration_error_floor([0.5]) == 0.5
    assert calibration_error_floor([1.0, 0.0, 1.0]) == 0
    # Two rows: residuals |1 - 0|, |1 - 1|, |1 - 1|, |1 - 2|.
    assert_allclose(calibration_error_floor([0.5, 0.5]), 0.25)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.uniform(0.5, 1, 400),
        lambda rng: 1 - rng.exponential(1e-3, 30_000),
        lambda rng: rng.uniform(0.8, 0.86, 20_000),  # a bin with the normal approximation
        lambda rng: np.clip(rng.normal(1, 0.02, 60), 0.5, 1),
    ],
)
def test_floor_agrees_with_simulation(draw):
    rng = np.random.default_rng(0)
    confidence = np.clip(draw(rng), 0, 1)
    errors = [
        expected_calibration_error(rng.random(len(confidence)) < confidence, confidence, labels=[0, 1])
        for _ in range(400)
    ]
    floor = calibration_error_floor(confidence)
    assert abs(np.mean(errors) - floor) < 4 * np.std(errors) / 20


def test_quantile_bins_and_equal_weights():
    prob = np.random.default_rng(0).uniform(size=300)
    uniform, quantile = (calibration_error_floor(prob, strategy=s) for s in ("uniform", "quantile"))
    assert quantile > uniform  # more bins are in use
    for strategy, floor in (("uniform", uniform), ("quantile", quantile)):
        weighted = calibration_error_floor(prob, sample_weight=np.full(300, 7.0), strategy=strategy)
        assert_allclose(weighted, floor)


def test_unequal_weights_against_enumeration():
    confidence, weight = [0.6, 0.65, 0.7, 0.9, 0.95], np.array([1, 3, 2, 0.5, 2])
    outcomes = list(every_outcome(confidence, weight, n_bins=4))
    floor = sum(p * error for p, error, _ in outcomes)
    _, prob = rows(confidence, np.ones(5))
    options = {"sample_weight": weight, "n_bins": 4, "random_state": 0}
    assert_allclose(calibration_error_floor(prob, **options), floor, rtol=0.05)
    y, _ = rows(confidence, [1, 0, 0, 1, 0])
    seen = expected_calibration_error(y, prob, labels=LABELS, sample_weight=weight, n_bins=4)
    pvalue = sum(p for p, error, _ in outcomes if error >= seen - 1e-12)
    assert_allclose(calibration_test(y, prob, labels=LABELS, **options).pvalue, pvalue, atol=0.06)


def test_weights_of_saturated_rows():
    rng = np.random.default_rng(0)
    prob, weight = np.r_[1 - rng.exponential(0.01, 150), 0.0, 0.02], rng.uniform(0.5, 3, 152)
    prob = prob.clip(0, 1)
    sums = ((rng.random((20_000, 152)) < prob) - prob) * weight
    options = {"sample_weight": weight, "n_bins": 1, "random_state": 0}
    floor = calibration_error_floor(np.column_stack([prob, 1 - prob]), **options)
    # Below one half the other class is predicted, whose residual has the opposite sign.
    signs = np.where(prob >= 0.5, 1, -1)
    assert_allclose(floor, np.abs(sums @ signs).mean() / weight.sum(), rtol=0.06)


def test_weights_of_many_rows_use_the_normal_approximation():
    rng = np.random.default_rng(0)
    weight, prob = rng.uniform(1, 2, 120_000), rng.uniform(0.5, 1, 120_000)
    deviation = weight**2 * prob * (1 - prob)
    per_bin = np.bincount(np.ceil(prob * 15).astype(int), deviation)
    floor = np.sqrt(2 / np.pi * per_bin).sum() / weight.sum()
    assert_allclose(calibration_error_floor(prob, sample_weight=weight, random_state=0), floor, rtol=0.02)


def test_pvalue_is_the_probability_of_an_error_at_least_as_large():
    confidence, correct = [0.5, 0.62, 0.9, 0.9, 0.93, 0.35], [0, 1, 0, 1, 1, 1]
    outcomes = list(every_outcome(confidence, n_bins=5))
    y, prob = rows(confidence, correct)
    result = calibration_test(y, prob, labels=LABELS, n_bins=5, n_resamples=20_000, random_state=0)
    exact = sum(p for p, error, _ in outcomes if error >= result.statistic - 1e-12)
    assert abs(result.pvalue - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4
    assert_allclose(result.statistic, expected_calibration_error(y, prob, labels=LABELS, n_bins=5))
    assert_allclose(result.floor, calibration_error_floor(prob, n_bins=5))


def test_size_and_power():
    rng = np.random.default_rng(0)
    pvalues = {0.0: [], 0.1: []}
    for error, found in pvalues.items():
        for _ in range(150):
            confidence = rng.uniform(0.5, 1, 300)
            y = rng.random(300) < confidence - error
            test = calibration_test(
                y, confidence, labels=[0, 1], n_resamples=99, random_state=rng.integers(99)
            )
            found.append(test.pvalue)
    # Four standard errors above 5 %; ties make the test conservative.
    assert np.mean(np.array(pvalues[0.0]) <= 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean(np.array(pvalues[0.1]) <= 0.05) > 0.75


def test_band_agrees_with_binomial_quantiles():
    prob = np.repeat([0.55, 0.7, 0.9], [10, 40, 3])
    bins = calibration_bins(np.ones(53, int), prob, labels=[0, 1], n_bins=10)
    low, high = consistency_band(bins, prob, confidence_level=0.9)
    for share, n in ((0.55, 10), (0.7, 40), (0.9, 3)):
        at = np.flatnonzero(bins.count == n)[0]
        assert_allclose([low[at], high[at]], binom.ppf([0.05, 0.95], n, share) / n)
    assert (np.isnan(low) == (bins.count == 0)).all()
    assert (np.isnan(high) == (bins.count == 0)).all()


@pytest.mark.parametrize(
    ("strategy", "closed"), [("uniform", "right"), ("uniform", "left"), ("quantile", "right")]
)
def test_band_uses_the_given_bins(strategy, closed):
    prob = np.round(np.random.default_rng(0).uniform(0.5, 1, 200), 1)
    options = {"labels": [0, 1], "n_bins": 10, "strategy": strategy, "closed": closed}
    bins = calibration_bins(np.ones(200, int), prob, **options)
    low, high = consistency_band(bins, prob)
    filled = bins.count > 0
    assert ((low <= bins.confidence) & (bins.confidence <= high))[filled].all()
    with pytest.raises(ValueError, match="199 rows of y_prob differ from those of bins, which hold 200"):
        consistency_band(bins, prob[1:])


def test_other_weights_or_rows_raise():
    rng = np.random.default_rng(0)
    prob, weight = rng.uniform(0.5, 1, 500), rng.exponential(size=500)
    y = (rng.random(500) < prob).astype(int)
    bins = calibration_bins(y, prob, sample_weight=weight, n_bins=5)
    consistency_band(bins, prob, sample_weight=weight, random_state=0)
    for wrong in (None, 2 * weight, weight[::-1]):
        with pytest.raises(ValueError, match="other weights or confidences"):
            consistency_band(bins, prob, sample_weight=wrong, random_state=0)
    with pytest.raises(ValueError, match="other weights or confidences"):
        consistency_band(calibration_bins([0, 1], [0.61, 0.95], n_bins=2), [0.99, 0.52])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_band_accepts_low_precision(dtype):
    prob = np.random.default_rng(0).uniform(0.5, 1, 3000).astype(dtype)
    bins = calibration_bins(np.ones(3000, int), prob, labels=[0, 1])
    order = np.argsort(prob)
    one, two = (consistency_band(bins, p, random_state=0) for p in (prob, prob[order]))
    assert_allclose(one, two)


def test_band_with_weights():
    rng = np.random.default_rng(0)
    prob, weight = np.full(50, 0.8), rng.uniform(0.2, 3, 50)
    bins = calibration_bins(np.ones(50, int), prob, labels=[0, 1], sample_weight=weight, n_bins=1)
    low, high = consistency_band(bins, prob, sample_weight=weight, random_state=0)
    drawn = (rng.random((20_000, 50)) < 0.8) @ weight / weight.sum()
    assert_allclose([low[0], high[0]], np.quantile(drawn, [0.025, 0.975]), atol=0.02)


def test_basic_interval_agrees_with_scipy():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 300)
    y = (rng.random(300) < confidence - 0.1).astype(int)

    def error(c, a):
        return expected_calibration_error(a, c, labels=[0, 1])

    ours = calibration_interval(y, confidence, method="basic", n_resamples=4000, random_state=0)
    theirs = bootstrap(
        (confidence, y), error, paired=True, vectorized=False, method="basic", n_resamples=1000, rng=rng
    ).confidence_interval
    assert_allclose([ours.low, ours.high], theirs, atol=0.008)


def test_bootstrap_and_normal_limit_agree(monkeypatch):
    rng = np.random.default_rng(0)
    confidence, weight = rng.uniform(0.5, 1, 3000), rng.uniform(1, 3, 3000)
    y = rng.random(3000) < confidence - 0.05
    options = {"labels": [0, 1], "sample_weight": weight, "method": "basic", "n_resamples": 3000}
    by_row = calibration_interval(y, confidence, random_state=0, **options)
    monkeypatch.setattr("clipcal.metrics._resampling._ROW_BY_ROW", 0)
    assert_allclose(calibration_interval(y, confidence, random_state=1, **options), by_row, atol=0.003)


@pytest.mark.parametrize("error", [0.0, 0.03, 0.1])
def test_coverage_of_inversion(error):
    rng = np.random.default_rng(int(error * 100))
    inside = 0
    for _ in range(150):
        confidence = rng.uniform(0.5, 1, 500)
        y = rng.random(500) < confidence - error
        low, high = calibration_interval(
            y, confidence, labels=[0, 1], n_resamples=300, random_state=rng.integers(99)
        )[1:]
        inside += low <= error + 1e-12 and error <= high
    assert inside / 150 > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 150)


@pytest.mark.parametrize(("n", "weigh"), [(100, False), (200, False), (100, True), (300, True)])
def test_coverage_of_the_error_with_rare_errors(n, weigh):
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(300):
        y = (rng.random(n) < 0.97).astype(int)
        options = {"sample_weight": rng.exponential(size=n) if weigh else None, "n_resamples": 199}
        found = calibration_interval(y, np.full(n, 0.99), labels=[0, 1], random_state=seed, **options)
        inside += found.low - 1e-12 <= 0.02 <= found.high + 1e-12
    assert inside / 300 > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300)


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_coverage_of_the_gap(share):
    rng = np.random.default_rng(0)
    n, inside = 60, 0
    for _ in range(400):
        confidence = np.full(n, 0.99)
        y = rng.random(n) < share
        low, high = calibration_interval(y, confidence, labels=[0, 1], metric="gap")[1:]
        inside += low <= 0.99 - share <= high
    assert abs(inside / 400 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


def test_intervals_of_perfect_rows_allow_for_rare_errors():
    prob, y = np.eye(3)[np.arange(300) % 3], np.arange(300) % 3
    for metric in ("ece", "gap"):
        estimate, low, high = calibration_interval(y, prob, metric=metric, random_state=0)
        assert estimate == 0
        assert low == 0 if metric == "ece" else low <= 0
        # With no error in 300 rows, error rates up to about 3 / 300 are plausible.
        assert 0.004 < high < 0.02
    assert calibration_test(y, prob) == (0.0, 1.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**16),
    st.integers(1, 30),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.sampled_from(["ece", "gap"]),
    st.sampled_from(["inversion", "basic"]),
    st.sampled_from(["uniform", "quantile"]),
    st.booleans(),
)
@pytest.mark.filterwarnings("error")
def test_small_and_extreme_inputs_give_ordered_finite_numbers(
    seed, n, dtype, metric, method, strategy, weigh
):
    rng = np.random.default_rng(seed)
    prob = rng.choice([0, 0.5, 1, rng.random(), 1 - 1e-9], size=n).astype(dtype)
    y = rng.choice(["no", "yes"], size=n)
    options = {"labels": ["no", "yes"], "sample_weight": rng.integers(1, 4, n) if weigh else None}
    binned = {**options, "strategy": strategy, "random_state": 0, "n_resamples": 99}
    estimate, low, high = calibration_interval(y, prob, metric=metric, method=method, **binned)
    assert (-1 if metric == "gap" else 0) <= low <= estimate <= high <= 1
    if metric == "gap":
        assert_allclose(estimate, mean_confidence_gap(y, prob, **options), atol=1e-12)
    statistic, pvalue, floor = calibration_test(y, prob, **binned)
    assert 0 < pvalue <= 1
    assert 0 <= floor <= 1
    assert 0 <= statistic <= 1


def test_one_column():
    y, prob = [3, 3, 4], np.ones((3, 1))
    assert calibration_error_floor(prob) == 0
    assert calibration_test(y, prob, labels=[3], random_state=0).pvalue == 1 / 1001
    assert calibration_interval(y, prob, labels=[3], metric="gap").estimate == pytest.approx(1 / 3)


def test_draws_depend_on_random_state_only():
    rng = np.random.default_rng(0)
    prob = rng.uniform(size=80)
    y = rng.random(80) < prob
    state = np.random.get_state()[1].copy()
    for function in (calibration_test, calibration_interval):
        assert function(y, prob, random_state=3) == function(y, prob, random_state=3)
    assert (np.random.get_state()[1] == state).all()
    # Rows of weight zero are ignored.
    weight = np.r_[np.ones(80), 0]
    longer = function(np.r_[y, True], np.r_[prob, 0.1], sample_weight=weight, random_state=3)
    assert longer == function(y, prob, random_state=3)


def test_invalid_input_raises():
    with pytest.raises(ValueError, match="softmax"):
        calibration_error_floor([[3.0, -1.0]])
    with pytest.raises(ValueError, match="n_resamples"):
        calibration_test([0, 1], [0.2, 0.8], n_resamples=10)
    with pytest.raises(ValueError, match="confidence_level"):
        calibration_interval([0, 1], [0.2, 0.8], confidence_level=95)
    with pytest.raises(ValueError, match="zero"):
        calibration_error_floor([0.2, 0.8], sample_weight=[0, 0])
    with pytest.warns(UserWarning, match="sum to 1") as caught:
        calibration_error_floor([[0.5, 0.1]])
    assert caught[0].filename == __file__
