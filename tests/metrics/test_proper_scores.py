"""Proper scores and decompositions: values computed by hand, other libraries, and properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss

from clipcal.metrics import (
    base_to_new_summary,
    brier_decomposition,
    brier_score,
    calibration_bins,
    harmonic_mean,
    negative_log_likelihood,
    negative_log_likelihood_from_logits,
    root_mean_square_calibration_error,
    top_label_brier_score,
)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

SCORES = [brier_score, top_label_brier_score, negative_log_likelihood]


def random_case(seed, n, n_classes, grid=None):
    """Probabilities of random sharpness; with a grid there are ties and exact zeros and ones."""
    rng = np.random.default_rng(seed)
    prob = softmax(rng.normal(size=(n, n_classes)) * rng.uniform(0.3, 6, (n, 1)), axis=1)
    if grid:
        prob = np.floor(prob * grid) / grid
        prob[np.arange(n), prob.argmax(axis=1)] += 1 - prob.sum(axis=1)
    truth = np.where(rng.random(n) < 0.6, prob.argmax(axis=1), rng.integers(0, n_classes, n))
    return truth, prob


cases = st.tuples(
    st.integers(0, 2**16), st.integers(1, 60), st.integers(2, 8), st.sampled_from([None, 8])
).map(lambda case: random_case(*case))


def test_by_hand():
    y, prob = ["cat", "dog", "owl"], [[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0, 0, 1]]
    brier = (0.09 + 0.04 + 0.01 + 0.25 + 0.5625 + 0.0625) / 3
    assert_allclose(brier_score(y, prob), brier)
    assert_allclose(top_label_brier_score(y, prob), (0.09 + 0.25) / 3)
    assert_allclose(negative_log_likelihood(y, prob), -(math.log(0.7) + math.log(0.25)) / 3)
    weighted = negative_log_likelihood(y, prob, sample_weight=[1, 0, 3])
    assert_allclose(weighted, -math.log(0.7) / 4)


def test_two_classes_in_one_column():
    y, p = ["no", "yes", "yes"], np.array([0.25, 0.75, 0.5])
    assert_allclose(brier_score(y, p), 2 * np.mean([0.0625, 0.0625, 0.25]))
    for score in SCORES:
        assert score(y, p) == pytest.approx(score(y, np.column_stack([1 - p, p])), abs=1e-15)
        assert score(y, 1 - p, labels=["yes", "no"]) == pytest.approx(score(y, p), abs=1e-15)


def test_perfect_and_all_wrong_predictions():
    y = np.arange(12) % 3
    for score in SCORES:
        assert score(y, np.eye(3)[y]) == 0
        assert math.copysign(1, score(y, np.eye(3)[y])) == 1
    wrong = np.eye(3)[(y + 1) % 3]
    assert brier_score(y, wrong) == 2
    assert top_label_brier_score(y, wrong) == 1
    assert_allclose(negative_log_likelihood(y, wrong), 708.3964, rtol=1e-6)
    for dtype in (np.float16, np.float32):
        assert negative_log_likelihood(y, wrong.astype(dtype)) == negative_log_likelihood(y, wrong)


def test_one_column_one_row_and_one_class():
    for score in SCORES:
        assert score([3], [[1.0]]) == 0
        assert 0 < score(["b"] * 5, [[0.25, 0.75]] * 5, labels=["a", "b"]) < 1
    assert top_label_brier_score([4], [[1.0]], labels=[3]) == 1


def test_labels_without_a_column():
    for score in (brier_score, negative_log_likelihood):
        with pytest.raises(ValueError, match=r"without a column: \['owl'\]"):
            score(["ant", "owl"], [[0.5, 0.5], [0.1, 0.9]], labels=["ant", "bee"])
    with pytest.raises(ValueError, match=r"without a column: \['owl'\]"):
        negative_log_likelihood_from_logits(["ant", "owl"], [[0, 1], [1, 0]], labels=["ant", "bee"])
    assert top_label_brier_score(["owl"], [[0.25, 0.75]], labels=["ant", "bee"]) == 0.5625


def test_many_classes_in_half_precision():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 10_000)) * 8
    truth = np.where(np.arange(40) % 2, logits.argmax(axis=1), rng.integers(0, 10_000, 40))
    prob, labels = softmax(logits, axis=1), np.arange(10_000)
    half = prob.astype(np.float16)
    for score in (brier_score, top_label_brier_score):
        assert_allclose(score(truth, half, labels=labels), score(truth, prob, labels=labels), atol=2e-3)
    assert_allclose(
        negative_log_likelihood(truth, prob.astype(np.float32), labels=labels),
        negative_log_likelihood_from_logits(truth, logits, labels=labels),
        rtol=1e-5,
    )


@settings(max_examples=30, deadline=None)
@given(cases, st.integers(0, 2**16))
def test_order_names_and_repetitions(case, seed):
    y, prob = case
    rng = np.random.default_rng(seed)
    prob = np.clip(prob, 1e-6, None) + np.linspace(0, 1e-6, prob.shape[1])  # no ties inside a row
    prob /= prob.sum(axis=1, keepdims=True)
    weight = rng.integers(0, 4, len(y))
    weight[0] = 1
    repeated = rng.permutation(np.repeat(np.arange(len(y)), weight))
    columns = rng.permutation(prob.shape[1])
    names = np.array(["f", "a", "d", "b", "e", "c", "h", "g"])[: prob.shape[1]]
    for score in SCORES:
        expected = score(y, prob, labels=np.arange(prob.shape[1]), sample_weight=weight)
        found = score(names[y][repeated], prob[repeated][:, columns], labels=names[columns])
        assert_allclose(found, expected, atol=1e-12)
        scaled = score(y, prob, labels=np.arange(prob.shape[1]), sample_weight=0.1 * weight)
        assert_allclose(scaled, expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases)
def test_against_scikit_learn(case):
    y, prob = case
    labels = np.arange(prob.shape[1])
    half = 2 if prob.shape[1] == 2 else 1
    theirs = half * brier_score_loss(y, prob, labels=labels)
    assert_allclose(brier_score(y, prob, labels=labels), theirs, atol=1e-12)
    prob = np.clip(prob, 1e-9, None)
    prob /= prob.sum(axis=1, keepdims=True)
    assert_allclose(
        negative_log_likelihood(y, prob, labels=labels),
        log_loss(y, prob, labels=labels),
        rtol=1e-9,
        atol=1e-12,
    )


class TestDecomposition:
    def test_binned_by_hand(self):
        parts = brier_decomposition([1, 0, 1, 1], [0.6, 0.8, 0.9, 1.0], method="binned", n_bins=8)
        # One row is in (0.5, 0.625], one in (0.75, 0.875], and two are in (0.875, 1].
        assert_allclose(parts.reliability, (0.4**2 + 0.8**2 + 2 * 0.05**2) / 4)
        assert_allclose(parts.resolution, (0.25**2 + 0.75**2 + 2 * 0.25**2) / 4)
        assert_allclose(parts.uncertainty, 3 / 16)
        assert_allclose(parts.within_bin_variance, 2 * 0.05**2 / 4)
        assert_allclose(parts.within_bin_covariance, 0, atol=1e-15)

    def test_isotonic_by_hand(self):
        # The isotonic fit to 1, 0, 1, 1 is 1/2, 1/2, 1, 1.
        parts = brier_decomposition([1, 0, 1, 1], [0.6, 0.8, 0.9, 1.0])
        score = (0.4**2 + 0.8**2 + 0.1**2) / 4
        assert_allclose(parts, (score - 0.125, 3 / 16 - 0.125, 3 / 16))

    @settings(max_examples=40, deadline=None)
    @given(cases, st.integers(1, 20), st.sampled_from(["uniform", "quantile"]), st.booleans())
    def test_parts_add_up(self, case, n_bins, strategy, with_weights):
        y, prob = case
        weight = np.random.default_rng(0).uniform(0, 2, len(y)) if with_weights else None
        options = {"labels": np.arange(prob.shape[1]), "sample_weight": weight}
        score = top_label_brier_score(y, prob, **options)
        mcb, dsc, unc = brier_decomposition(y, prob, **options)
        assert_allclose(mcb - dsc + unc, score, atol=1e-12)
        assert min(mcb, dsc, unc) >= 0
        binned = {**options, "n_bins": n_bins, "strategy": strategy}
        parts = brier_decomposition(y, prob, method="binned", **binned)
        assert_allclose(parts.uncertainty, unc, atol=1e-12)
        total = parts.reliability - parts.resolution + parts.uncertainty
        assert_allclose(total + parts.within_bin_variance - parts.within_bin_covariance, score, atol=1e-12)

    def test_reliability_is_the_squared_calibration_error(self):
        y, prob = random_case(1, 500, 4)
        parts = brier_decomposition(y, prob, method="binned")
        assert_allclose(parts.reliability, root_mean_square_calibration_error(y, prob) ** 2, atol=1e-15)
        bins = calibration_bins(y, prob)
        filled = bins.weight > 0
        assert_allclose(parts.reliability, np.sum(bins.residual[filled] ** 2 / bins.weight[filled]) / 500)

    def test_a_monotone_map_changes_miscalibration_only(self):
        rng = np.random.default_rng(3)
        p, y = rng.uniform(0.5, 1, 300), rng.integers(0, 2, 300)
        first, second = brier_decomposition(y, p), brier_decomposition(y, 0.5 + 2 * (p - 0.5) ** 2)
        assert_allclose(second[1:], first[1:], atol=1e-12)
        assert abs(second.miscalibration - first.miscalibration) > 1e-3

    def test_miscalibration_against_isotonic_regression_of_scikit_learn(self):
        from sklearn.isotonic import IsotonicRegression

        y, prob = random_case(5, 400, 3, grid=32)
        confidence, correct = prob.max(axis=1), (prob.argmax(axis=1) == y).astype(float)
        fitted = IsotonicRegression().fit_transform(confidence, correct)
        expected = np.mean((confidence - correct) ** 2) - np.mean((fitted - correct) ** 2)
        assert_allclose(brier_decomposition(y, prob).miscalibration, expected, atol=1e-12)

    @pytest.mark.parametrize("n", [1, 2, 30])
    def test_certain_and_single_rows(self, n):
        y = np.arange(n) % 3
        for method in ("corp", "binned"):
            wrong = brier_decomposition(y, np.eye(3)[(y + 1) % 3], labels=[0, 1, 2], method=method)
            assert_allclose(wrong[:3], (1, 0, 0), atol=1e-15)
            right = brier_decomposition(y, np.eye(3)[y], labels=[0, 1, 2], method=method)
            assert_allclose(right, 0, atol=1e-15)


class TestLogits:
    @settings(max_examples=30, deadline=None)
    @given(cases, st.integers(0, 2**16))
    def test_agrees_with_probabilities(self, case, seed):
        y, prob = case
        rng = np.random.default_rng(seed)
        logits = np.log(np.clip(prob, 1e-9, None)) + rng.normal(size=(len(y), 1)) * 30
        labels, weight = np.arange(prob.shape[1]), rng.uniform(0.1, 2, len(y))
        options = {"labels": labels, "sample_weight": weight}
        expected = negative_log_likelihood(y, softmax(logits, axis=1), **options)
        assert_allclose(
            negative_log_likelihood_from_logits(y, logits, **options), expected, rtol=1e-9, atol=1e-9
        )
        rows = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
        found = negative_log_likelihood_from_logits(y, logits, **options)
        assert_allclose(found, np.average(rows, weights=weight), rtol=1e-11, atol=1e-11)

    def test_losses_are_not_clipped(self):
        assert negative_log_likelihood_from_logits([0, 1], [[0, 5000], [0, 5000]]) == 2500
        # The loss is below the resolution of numbers near 1.
        assert_allclose(negative_log_likelihood_from_logits([0], [[0, -50]], labels=[0, 1]), np.exp(-50))
        assert_allclose(negative_log_likelihood_from_logits([0, 1], [[1e308, -1e308], [-1e308, 1e308]]), 0)
        assert negative_log_likelihood_from_logits([1], [[1e308, -1e308]], labels=[0, 1]) == np.inf

    def test_minus_infinity_is_probability_zero(self):
        logits = [[0.0, -np.inf, 0.0], [-np.inf, 3.0, -np.inf]]
        assert_allclose(
            negative_log_likelihood_from_logits(["a", "b"], logits, labels=["a", "b", "c"]), np.log(2) / 2
        )
        assert negative_log_likelihood_from_logits(["b", "b"], logits, labels=["a", "b", "c"]) == np.inf
        weight = [0, 1]
        found = negative_log_likelihood_from_logits(
            ["b", "b"], logits, labels=["a", "b", "c"], sample_weight=weight
        )
        assert found == 0

    def test_log_odds_of_two_classes(self):
        y, odds = ["no", "yes", "yes"], np.array([-2.0, 1.0, -0.5])
        expected = np.mean(np.log1p(np.exp([-2.0, -1.0, 0.5])))
        for dtype in (np.float32, np.float64):
            assert_allclose(negative_log_likelihood_from_logits(y, odds.astype(dtype)), expected)
        assert_allclose(negative_log_likelihood_from_logits(y, -odds, labels=["yes", "no"]), expected)

    def test_column_order(self):
        y, logits = ["d", "a"], np.array([[3.0, 0.0, 1.0], [0.0, 1.0, 5.0]])
        expected = -log_softmax(logits, axis=1)[[0, 1], [0, 2]].mean()
        assert_allclose(negative_log_likelihood_from_logits(y, logits, labels=["d", "b", "a"]), expected)

    @pytest.mark.parametrize("row", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
    def test_invalid_logits_raise(self, row):
        with pytest.raises(ValueError, match="logits contain NaN, plus infinity, or a row"):
            negative_log_likelihood_from_logits([0, 1], [[0.0, 1.0], row])

    def test_against_torch(self):
        torch = pytest.importorskip("torch")
        y, prob = random_case(2, 300, 20)
        logits = np.log(prob) * 3
        theirs = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(y))
        assert_allclose(
            negative_log_likelihood_from_logits(y, logits, labels=np.arange(20)), float(theirs), atol=1e-12
        )


class TestBaseToNew:
    def test_published_row(self):
        # Average over eleven data sets in Table 1 of Zhou et al., "Conditional prompt learning".
        assert round(harmonic_mean(80.47, 71.69), 2) == 75.83
        assert round(harmonic_mean(0.8269, 0.6322), 4) == 0.7166

    def test_elementwise(self):
        assert_allclose(harmonic_mean([[0.5], [1.0]], [0.5, 1.0]), [[0.5, 2 / 3], [2 / 3, 1.0]])
        assert_array_equal(harmonic_mean([0, 0, 1], [0, 0.4, 0]), [0, 0, 0])
        assert harmonic_mean(5e-324, 1.0) < 1e-300
        assert_allclose(harmonic_mean(1e308, 1e308), 1e308)
        assert isinstance(harmonic_mean(np.float32(0.5), 1), float)

    def test_summary(self):
        base, new = [0.9, 0.5], [0.6, 0.8]
        summary = base_to_new_summary(base, new)
        assert_allclose(summary, (0.7, 0.7, 0.7))
        # The mean of the harmonic means is lower.
        assert np.mean(harmonic_mean(base, new)) < summary.mean
        assert_allclose(base_to_new_summary(0.1, 0.3, average="arithmetic"), (0.1, 0.3, 0.2))
        assert_allclose(base_to_new_summary(0.1, 0.3), (0.1, 0.3, 0.15))

    @pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
    def test_invalid_numbers_raise(self, bad):
        with pytest.raises(ValueError, match="new must hold finite, non-negative numbers"):
            harmonic_mean([0.5, 0.5], [0.5, bad])
        with pytest.raises(ValueError, match="cannot be broadcast"):
            harmonic_mean([0.5, 0.5], [0.5, 0.5, 0.5])
        with pytest.raises(ValueError, match=r"shapes \(2,\) and \(\)"):
            base_to_new_summary([0.5, 0.5], 0.5)
        with pytest.raises(ValueError, match="average"):
            base_to_new_summary(0.5, 0.5, average="geometric")


@pytest.mark.filterwarnings("ignore:Every row of logits")
def test_input_is_not_modified():
    y, prob = random_case(0, 20, 3)
    before = prob.copy()
    for score in (*SCORES, brier_decomposition, negative_log_likelihood_from_logits):
        score(y, prob, labels=[0, 1, 2])
        assert_array_equal(prob, before)


def test_invalid_input_raises():
    for score in SCORES:
        with pytest.raises(ValueError, match="NaN"):
            score([0, 1], [[np.nan, 1.0], [0.5, 0.5]])
        with pytest.raises(ValueError, match=r"softmax\(logits"):
            score([0, 1], [[-3.0, 4.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="must sum to 1"):
        brier_score([0, 1], [[0.5, 0.4], [0.5, 0.5]])
    with pytest.raises(ValueError, match="method"):
        brier_decomposition([0, 1], [[0.5, 0.5], [0.5, 0.5]], method="murphy")
