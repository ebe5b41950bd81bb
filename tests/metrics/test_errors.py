"""Top-label calibration errors: values computed by hand, other libraries, and properties."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.preprocessing import KBinsDiscretizer

from clipcal.metrics import (
    adaptive_calibration_error,
    area_under_risk_coverage,
    brier_score,
    calibration_bins,
    calibration_interval,
    classwise_calibration_error,
    compare_calibration,
    expected_calibration_error,
    maximum_calibration_error,
    mean_confidence_gap,
    negative_log_likelihood,
    over_under_confidence,
    proximity_informed_calibration_error,
    root_mean_square_calibration_error,
    smooth_calibration_error,
    summary,
)

# NumPy warnings about division or overflow indicate an edge case that is not handled.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

LABELS = ["no", "yes"]


def rows(confidence, correct):
    """Two-class rows that predict "no" with the given confidence, which may be below one half."""
    confidence = np.asarray(confidence, dtype=float)
    return np.where(np.asarray(correct) == 1, "no", "yes"), np.column_stack([confidence, 0 * confidence])


def random_case(seed, n, n_classes, grid=None):
    """Probabilities and labels with gaps of both signs; with a grid there are many ties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * rng.uniform(0.3, 3, size=(n, 1))
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if grid:
        prob = np.floor(prob * grid) / grid
        prob[np.arange(n), prob.argmax(axis=1)] += 1 - prob.sum(axis=1)
    truth = np.where(rng.random(n) < 0.6, prob.argmax(axis=1), rng.integers(0, n_classes, n))
    return truth, prob


@pytest.mark.filterwarnings("ignore:The rows of y_prob")
@pytest.mark.parametrize(
    ("confidence", "correct", "right", "left"),
    [
        ([0.9, 1.0], [1, 0], 0.55, 0.45),
        ([0.5, 0.5, 0.55, 0.9, 0.9, 0.95, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0], 0.3375, 0.2875),
        ([1, 1, 1, 1], [1, 1, 0, 0], 0.5, 0.5),
        ([0, 0, 0.3], [0, 1, 0], 1.3 / 3, 1.3 / 3),
    ],
)
def test_expected_error_by_hand(confidence, correct, right, left):
    y, prob = rows(confidence, correct)
    assert_allclose(expected_calibration_error(y, prob, labels=LABELS, n_bins=10), right, atol=1e-12)
    assert_allclose(
        expected_calibration_error(y, prob, labels=LABELS, n_bins=10, closed="left"), left, atol=1e-12
    )


@pytest.mark.filterwarnings("ignore:The rows of y_prob")
def test_both_maximum_errors_by_hand():
    y, prob = rows([0.5, 0.5, 0.55, 0.9, 0.9, 0.95, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0])
    options = {"labels": LABELS, "n_bins": 10}
    # The last bin has 0.95, 1 and 1, one of which is correct.
    assert_allclose(maximum_calibration_error(y, prob, **options), (2.95 - 1) / 3)
    assert_allclose(maximum_calibration_error(y, prob, weighted=True, **options), 0.24375)
    assert_allclose(maximum_calibration_error(y, prob, weighted=True, closed="left", **options), 0.21875)


@pytest.mark.filterwarnings("ignore:The rows of y_prob")
def test_maximum_of_left_closed_bins_by_hand():
    y, prob = rows([0.5, 0.5, 0.55, 0.9, 0.9, 0.95, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0])
    # 0.9, 0.9, 0.95, 1 and 1 are in the last bin, 0.5, 0.5 and 0.55 in the sixth.
    assert_allclose(maximum_calibration_error(y, prob, labels=LABELS, n_bins=10, closed="left"), 1.75 / 5)


@pytest.mark.filterwarnings("ignore:The rows of y_prob")
def test_root_mean_square_error_by_hand():
    y, prob = rows([0.5, 0.5, 0.55, 0.9, 0.9, 0.95, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0])
    options = {"labels": LABELS, "n_bins": 10}
    # Residuals of the bins: 0 (two rows), 0.55 (one), -0.2 (two), 1.95 (three).
    right = np.sqrt((0.55**2 + 0.2**2 / 2 + 1.95**2 / 3) / 8)
    assert_allclose(root_mean_square_calibration_error(y, prob, **options), right)
    left = np.sqrt((0.55**2 / 3 + 1.75**2 / 5) / 8)
    assert_allclose(root_mean_square_calibration_error(y, prob, closed="left", **options), left)
    weighted = root_mean_square_calibration_error(y, prob, sample_weight=[0, 0, 0, 0, 0, 1, 2, 1], **options)
    assert_allclose(weighted, 1.95 / 4)
    halves = root_mean_square_calibration_error(y, prob, labels=LABELS, n_bins=2, strategy="quantile")
    # Equal confidences share a bin: five rows with residual 0.35, three with 1.95.
    assert_allclose(halves, np.sqrt((0.35**2 / 5 + 1.95**2 / 3) / 8))


@pytest.mark.filterwarnings("ignore:The rows of y_prob")
def test_maximum_error_with_min_count():
    y, prob = rows([0.95, 0.55, 0.55], [0, 1, 1])
    options = {"labels": LABELS, "n_bins": 10}
    assert_allclose(maximum_calibration_error(y, prob, **options), 0.95)
    assert_allclose(maximum_calibration_error(y, prob, min_count=2, **options), 0.45)
    with pytest.raises(ValueError, match="largest has 2"):
        maximum_calibration_error(y, prob, min_count=3, **options)


def test_labels_without_a_column_count_as_wrong():
    assert expected_calibration_error(["owl", "owl"], [[1, 0], [0, 1]], labels=["ant", "bee"]) == 1.0


def test_one_class_and_one_row():
    assert expected_calibration_error([3, 4], [[1.0], [1.0]], labels=[3]) == 0.5
    assert_allclose(expected_calibration_error([1], [0.75], labels=[0, 1]), 0.25)


def test_perfect_and_all_wrong_predictions():
    y = np.arange(30) % 3
    for metric in (
        expected_calibration_error,
        maximum_calibration_error,
        root_mean_square_calibration_error,
    ):
        assert metric(y, np.eye(3)[y]) == 0
        assert metric(y, np.eye(3)[(y + 1) % 3]) == 1
    assert adaptive_calibration_error(y, np.eye(3)[y], n_bins=5) == 0


def test_adaptive_error_warns_of_few_rows_per_bin():
    y, prob = random_case(0, 40, 3)
    with pytest.warns(UserWarning, match="n_bins=8") as caught:
        adaptive_calibration_error(y, prob)
    assert caught[0].filename == __file__


cases = st.tuples(
    st.integers(0, 2**16), st.integers(1, 80), st.integers(2, 6), st.sampled_from([None, 32])
).map(lambda case: random_case(*case))


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(1, 20))
def test_order_of_the_errors(case, n_bins):
    y, prob = case
    options = {"labels": np.arange(prob.shape[1])}
    binned = {**options, "n_bins": n_bins}
    ece = expected_calibration_error(y, prob, **binned)
    gap = mean_confidence_gap(y, prob, **options)
    over, under = over_under_confidence(y, prob, **binned)
    rms = root_mean_square_calibration_error(y, prob, **binned)
    maximum = maximum_calibration_error(y, prob, **binned)
    chain = [0, maximum_calibration_error(y, prob, weighted=True, **binned), ece, rms, maximum, 1]
    assert (np.diff(chain) >= -1e-12).all()
    assert abs(gap) <= ece + 1e-12
    assert_allclose([over + under, over - under], [ece, gap], atol=1e-12)
    assert_allclose(expected_calibration_error(y, prob, n_bins=1, **options), abs(gap), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases, st.integers(0, 2**16))
def test_integer_weights_repeat_rows_and_scale_does_not_matter(case, seed):
    y, prob = case
    weight = np.random.default_rng(seed).integers(0, 4, len(y))
    weight[0] = 1
    options = {"labels": np.arange(prob.shape[1])}
    repeated = np.repeat(np.arange(len(y)), weight)
    for metric in (
        expected_calibration_error,
        maximum_calibration_error,
        mean_confidence_gap,
        root_mean_square_calibration_error,
    ):
        weighted = metric(y, prob, sample_weight=weight, **options)
        assert_allclose(weighted, metric(y[repeated], prob[repeated], **options), atol=1e-12)
        assert_allclose(weighted, metric(y, prob, sample_weight=weight * 0.1, **options), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(0, 2**16), st.integers(1, 20))
@pytest.mark.filterwarnings("ignore:.*are fewer than five")
def test_weights_with_equal_weight_bins(case, seed, n_bins):
    y, prob = case
    rng = np.random.default_rng(seed)
    options = {"labels": np.arange(prob.shape[1]), "n_bins": n_bins}
    weight = rng.integers(0, 4, len(y))
    weight[0] = 1
    repeated = np.repeat(np.arange(len(y)), weight)
    whole = calibration_bins(y, prob, sample_weight=weight, strategy="quantile", **options)
    as_rows = calibration_bins(y[repeated], prob[repeated], strategy="quantile", **options)
    assert_allclose(whole.edges, as_rows.edges, rtol=0, atol=0)
    ace = adaptive_calibration_error(y, prob, sample_weight=weight, **options)
    assert_allclose(ace, adaptive_calibration_error(y[repeated], prob[repeated], **options), atol=1e-12)

    plain = adaptive_calibration_error(y, prob, **options)
    nearly = 1 + 1e-6 * rng.uniform(-1, 1, len(y))
    for equal, tolerance in ((np.full(len(y), 0.3), 1e-12), (nearly, 1e-5)):
        assert_allclose(
            adaptive_calibration_error(y, prob, sample_weight=equal, **options), plain, atol=tolerance
        )

    weight = rng.uniform(0.1, 5, len(y))
    values = [
        adaptive_calibration_error(y, prob, sample_weight=weight * c, **options) for c in (1, 0.3, 1e150)
    ]
    assert_allclose(values, values[0], atol=1e-12)


def test_a_cut_inside_a_heavy_row_is_moved_behind_it():
    # Six units in two bins: the cut after the third unit would split the second row.
    confidence, weight = np.array([0.6, 0.7, 0.8]), [1, 4, 1]
    prob = np.column_stack([confidence, 1 - confidence])
    bins = calibration_bins(
        ["no"] * 3, prob, labels=LABELS, sample_weight=weight, n_bins=2, strategy="quantile"
    )
    assert bins.count.tolist() == [2, 1]
    assert_allclose(bins.edges, [0, 0.75, 1])
    # A single row with an integer weight of 5 is one bin.
    bins = calibration_bins(
        ["no"], [[0.9, 0.1]], labels=LABELS, sample_weight=[5], n_bins=3, strategy="quantile"
    )
    assert bins.count.tolist() == [1]


def test_adjacent_floats_are_in_different_bins():
    low = 0.75
    high = np.nextafter(low, 1)
    confidence = np.array([low, high, np.nextafter(high, 1)])
    prob = np.column_stack([confidence, 1 - confidence])
    bins = calibration_bins(["no"] * 3, prob, labels=LABELS, n_bins=3, strategy="quantile")
    assert bins.count.tolist() == [1, 1, 1]


METRICS = [
    adaptive_calibration_error,
    area_under_risk_coverage,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    mean_confidence_gap,
    negative_log_likelihood,
    root_mean_square_calibration_error,
    smooth_calibration_error,
]


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 5e307])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.filterwarnings("ignore:.*are fewer than five")
def test_weights_of_extreme_scale(metric, scale):
    y, p, weight = [1, 0, 1, 1], [0.9, 0.6, 0.4, 0.8], np.array([1.0, 2.0, 1.0, 3.0])
    with np.errstate(all="raise", under="ignore"):
        # Not integers, so that weights do not count as repetitions.
        assert_allclose(
            metric(y, p, sample_weight=weight * scale), metric(y, p, sample_weight=weight * 0.3), rtol=1e-3
        )
        # Tiny weights beside large ones have no effect.
        # The area counts non-integer weights in units of the mean weight.
        tolerance = 0.05 if metric is area_under_risk_coverage else 1e-9
        lopsided = [1.0, 1.0, 1e-320, 1e-320]
        assert_allclose(metric(y, p, sample_weight=lopsided), metric(y[:2], p[:2]), atol=tolerance)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.filterwarnings("ignore:.*are fewer than five")
def test_rows_of_weight_zero_are_ignored(metric):
    y, prob = random_case(8, 30, 3)
    options = {"labels": [0, 1, 2]}
    expected = metric(y, prob, **options)
    junk = np.array([[np.nan, 7, 0], [9, 9, 9], [0.1, 0.1, 0.1]])
    labels = np.concatenate([y.astype(object), ["?", None, 99]])
    weight = np.append(np.ones(30), np.zeros(3))
    found = metric(labels, np.vstack([prob, junk]), sample_weight=weight, **options)
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ties_are_resolved_in_favor_of_the_label_that_sorts_first(dtype):
    rng = np.random.default_rng(0)
    prob = (rng.multinomial(4, np.full(5, 0.2), size=400) / 4).astype(dtype)
    y, order = rng.integers(0, 5, 400), rng.permutation(5)
    sorted_first = mean_confidence_gap(y, prob, labels=np.arange(5))
    assert mean_confidence_gap(y, prob[:, order], labels=order) == sorted_first
    # The test needs rows with ties.
    assert (np.sort(prob, axis=1)[:, -1] == np.sort(prob, axis=1)[:, -2]).mean() > 0.2
    for labels, gap in (([0, 1], -0.5), ([1, 0], -0.5)):
        assert mean_confidence_gap([0], [0.5], labels=labels) == gap


def test_closed_side_of_over_and_under_confidence():
    y, p = [1, 0, 1, 1, 0], [0.8, 0.8, 0.9, 0.7, 0.75]
    for side in ("left", "right"):
        parts = over_under_confidence(y, p, n_bins=5, closed=side)
        assert_allclose(sum(parts), expected_calibration_error(y, p, n_bins=5, closed=side))
    assert over_under_confidence(y, p, n_bins=5, closed="left") != over_under_confidence(y, p, n_bins=5)


@pytest.mark.parametrize(
    ("n_rows", "n_bins", "cure"), [(3, 1, "more rows"), (4, 9, "more rows"), (5, 9, "n_bins=1")]
)
def test_advice_of_the_adaptive_error(n_rows, n_bins, cure):
    with pytest.warns(UserWarning, match=f"Pass {cure}"):
        adaptive_calibration_error([0] + [1] * (n_rows - 1), np.full(n_rows, 0.7), n_bins=n_bins)


@settings(max_examples=30, deadline=None)
@given(cases, st.integers(0, 2**16))
@pytest.mark.filterwarnings("ignore:.*are fewer than five")
def test_order_of_rows_and_columns_and_names_do_not_matter(case, seed):
    y, prob = case
    prob = prob + np.linspace(0, 1e-5, prob.shape[1])  # no ties inside a row
    prob /= prob.sum(axis=1, keepdims=True)
    names = np.array(["f", "a", "d", "b", "e", "c"])[: prob.shape[1]]
    rng = np.random.default_rng(seed)
    order, columns = rng.permutation(len(y)), rng.permutation(prob.shape[1])
    for metric in (
        expected_calibration_error,
        adaptive_calibration_error,
        maximum_calibration_error,
        root_mean_square_calibration_error,
    ):
        assert_allclose(
            metric(names[y][order], prob[order][:, columns], labels=names[columns]),
            metric(y, prob, labels=np.arange(prob.shape[1])),
            atol=1e-12,
        )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 8), st.integers(2, 4))
def test_finer_bins_never_decrease_the_error(seed, n_bins, factor):
    y, prob = random_case(seed, 200, 4)
    coarse = expected_calibration_error(y, prob, labels=np.arange(4), n_bins=n_bins)
    assert coarse <= expected_calibration_error(y, prob, labels=np.arange(4), n_bins=n_bins * factor) + 1e-12


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 20))
def test_the_opposite_event_has_the_same_error_with_the_opposite_sign(seed, n_bins):
    rng = np.random.default_rng(seed)
    confidence, correct = rng.random(60), rng.integers(0, 2, 60)
    tables = [_bins_of(c, a, n_bins) for c, a in ((confidence, correct), (1 - confidence, 1 - correct))]
    assert_allclose(tables[0].error, tables[1].error, atol=1e-12)
    assert_allclose(tables[0].over, tables[1].under, atol=1e-12)


def _bins_of(confidence, correct, n_bins):
    with pytest.warns(UserWarning, match="sum to 1"):
        return calibration_bins(*rows(confidence, correct), labels=LABELS, n_bins=n_bins)


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_equal_confidences_are_the_mean_gap(weighted):
    y = np.array([1, 0, 1, 1, 0, 1, 0])
    prob = np.full(7, 0.8)
    weight = np.arange(1.0, 8.0) if weighted else None
    gap = abs(mean_confidence_gap(y, prob, sample_weight=weight))
    for metric in (
        expected_calibration_error,
        maximum_calibration_error,
        root_mean_square_calibration_error,
    ):
        assert_allclose(metric(y, prob, sample_weight=weight), gap)
    assert_allclose(adaptive_calibration_error(y, prob, sample_weight=weight, n_bins=1), gap)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float16, 1e-3)])
def test_lower_precision_gives_nearly_the_same_error(dtype, tolerance):
    y, prob = random_case(5, 1000, 10)
    for metric in (expected_calibration_error, root_mean_square_calibration_error):
        assert_allclose(metric(y, prob.astype(dtype), n_bins=1), metric(y, prob, n_bins=1), atol=tolerance)
    single = expected_calibration_error(y, prob.astype(np.float32))
    assert_allclose(single, expected_calibration_error(y, prob), atol=1e-6)


@pytest.mark.parametrize("n", range(1, 31))
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:.*are fewer than five")
def test_few_saturated_and_tied_rows(n, dtype):
    rng = np.random.default_rng(n)
    y = rng.integers(0, 3, n)
    prob = np.eye(3)[rng.integers(0, 3, n)]
    prob[::3] = [0.5, 0.25, 0.25]
    for metric in (
        expected_calibration_error,
        adaptive_calibration_error,
        maximum_calibration_error,
        root_mean_square_calibration_error,
    ):
        assert 0 <= metric(y, prob.astype(dtype), labels=[0, 1, 2]) <= 1
        # A single class in y_true, and a single column.
        assert 0 <= metric(np.zeros(n), prob.astype(dtype), labels=[0, 1, 2]) <= 1
        assert metric(np.zeros(n), np.ones((n, 1), dtype)) == 0


def test_ten_thousand_classes():
    rng = np.random.default_rng(0)
    y, prob = rng.integers(0, 10_000, 50), np.full((50, 10_000), 1e-5, dtype=np.float32)
    prob[np.arange(50), y] = 1 - 9_999e-5
    error = expected_calibration_error(y.astype(str), prob, labels=np.arange(10_000).astype(str))
    # Labels sort as text, not as numbers.
    assert_allclose(error, 9_999e-5, atol=1e-6)


@pytest.mark.parametrize("grid", [None, 32])
@pytest.mark.parametrize(("n", "n_bins"), [(777, 10), (1003, 16)])
def test_against_uncertainty_calibration(n, n_bins, grid):
    # A test folder is also called "calibration", which Python would import as a namespace package.
    other = pytest.importorskip("calibration.utils")
    y, prob = random_case(n, n, 5, grid)
    assert_allclose(
        expected_calibration_error(y, prob, n_bins=n_bins),
        other.get_ece(prob, y, num_bins=n_bins),
        atol=1e-12,
    )
    assert_allclose(
        adaptive_calibration_error(y, prob, n_bins=n_bins),
        other.get_ece_em(prob, y, num_bins=n_bins),
        atol=1e-12,
    )
    for strategy, scheme in (("uniform", other.get_equal_prob_bins), ("quantile", other.get_equal_bins)):
        assert_allclose(
            root_mean_square_calibration_error(y, prob, n_bins=n_bins, strategy=strategy),
            other.lower_bound_scaling_ce(
                prob, y, p=2, debias=False, num_bins=n_bins, binning_scheme=scheme, mode="top-label"
            ),
            atol=1e-12,
        )


def test_against_netcal():
    other = pytest.importorskip("netcal.metrics")
    y, prob = random_case(3, 900, 6)
    assert_allclose(expected_calibration_error(y, prob), other.ECE(15).measure(prob, y), atol=1e-12)
    assert_allclose(maximum_calibration_error(y, prob), other.MCE(15).measure(prob, y), atol=1e-12)


@pytest.mark.parametrize("n_bins", [10, 15, 20])
def test_left_closed_bins_against_netcal(n_bins):
    other = pytest.importorskip("netcal.metrics")
    rng = np.random.default_rng(n_bins)
    # Many confidences lie on edges, some at 1, and neighboring values have gaps of opposite sign.
    ticks = rng.integers(20, 41, 300)
    confidence = ticks / 40
    correct = (rng.random(300) < np.where(ticks % 2, 1.0, 0.4)).astype(int)
    prob = np.column_stack([confidence, 1 - confidence])
    y = 1 - correct
    options = {"labels": [0, 1], "n_bins": n_bins, "closed": "left"}
    theirs = other.ECE(n_bins).measure(confidence, correct)
    assert_allclose(expected_calibration_error(y, prob, **options), theirs, atol=1e-12)
    assert abs(expected_calibration_error(y, prob, labels=[0, 1], n_bins=n_bins) - theirs) > 1e-4
    theirs = other.MCE(n_bins).measure(confidence, correct)
    assert_allclose(maximum_calibration_error(y, prob, **options), theirs, atol=1e-12)


def test_against_torchmetrics():
    other = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    y, prob = random_case(4, 900, 6)
    for metric, norm in (
        (expected_calibration_error, "l1"),
        (root_mean_square_calibration_error, "l2"),
        (maximum_calibration_error, "max"),
    ):
        theirs = other.multiclass_calibration_error(
            torch.tensor(prob), torch.tensor(y), num_classes=6, n_bins=15, norm=norm
        )
        assert_allclose(metric(y, prob), float(theirs), atol=1e-6)


@pytest.mark.parametrize("n_bins", [10, 20])
def test_right_closed_bins_against_the_formula_of_papers_on_prompt_tuning(n_bins):
    rng = np.random.default_rng(n_bins)
    # Many confidences lie on edges, some at 1, and neighboring bins have gaps of opposite sign.
    ticks = rng.integers(20, 41, 400)
    confidence = ticks / 40
    correct = (rng.random(400) < np.where(np.ceil(ticks * n_bins / 40) % 2, 1.0, 0.3)).astype(int)
    edges, expected = [i / n_bins for i in range(n_bins + 1)], 0.0
    for low, high in itertools.pairwise(edges):
        inside = [(c, a) for c, a in zip(confidence, correct, strict=True) if low < c <= high]
        if inside:
            gap = sum(a for _, a in inside) / len(inside) - sum(c for c, _ in inside) / len(inside)
            expected += abs(gap) * len(inside) / 400
    prob = np.column_stack([confidence, 1 - confidence])
    options = {"labels": [0, 1], "n_bins": n_bins}
    assert_allclose(expected_calibration_error(1 - correct, prob, **options), expected, atol=1e-12)
    assert abs(expected_calibration_error(1 - correct, prob, closed="left", **options) - expected) > 0.01


def quantile_error(confidence, correct, n_bins, method):
    """The adaptive error with edges at quantiles."""
    cuts = KBinsDiscretizer(n_bins, encode="ordinal", quantile_method=method, subsample=None)
    index = cuts.fit_transform(confidence[:, None])[:, 0]
    gaps = [(confidence - correct)[index == b].sum() for b in range(n_bins)]
    return np.abs(gaps).sum() / len(confidence)


@pytest.mark.parametrize("method", ["linear", "averaged_inverted_cdf"])
@pytest.mark.parametrize("n", [50, 200, 1000])
def test_quantile_edges_give_the_same_error_if_bins_have_equal_counts(n, method):
    y, prob = random_case(n, n, 5)
    confidence, correct = prob.max(axis=1), prob.argmax(axis=1) == y
    theirs = quantile_error(confidence, correct, 10, method)
    assert_allclose(adaptive_calibration_error(y, prob, labels=range(5), n_bins=10), theirs, atol=1e-12)
    fewer = adaptive_calibration_error(y[3:], prob[3:], labels=range(5), n_bins=9)
    assert abs(fewer - quantile_error(confidence[3:], correct[3:], 9, method)) > 1e-6


def test_ties_at_a_cut_are_in_the_lower_bin():
    confidence = np.repeat([0.6, 0.7, 0.8], [5, 10, 5])
    bins = calibration_bins(np.ones(20), confidence, labels=[0, 1], n_bins=2, strategy="quantile")
    assert bins.count.tolist() == [15, 5]
    upper = KBinsDiscretizer(2, encode="ordinal", quantile_method="linear").fit_transform(confidence[:, None])
    assert np.bincount(upper[:, 0].astype(int)).tolist() == [5, 15]


def test_against_scikit_learn_curve():
    from sklearn.calibration import calibration_curve

    y, prob = random_case(6, 900, 4, grid=32)
    confidence = prob.max(axis=1)
    correct = prob.argmax(axis=1) == y
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=15)
    bins = calibration_bins(y, prob)
    filled = bins.count > 0
    assert_allclose(bins.accuracy[filled], accuracy, atol=1e-12)
    assert_allclose(bins.confidence[filled], mean_confidence, atol=1e-12)
    error = bins.count[filled] @ np.abs(accuracy - mean_confidence) / len(y)
    assert_allclose(expected_calibration_error(y, prob), error, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.filterwarnings("ignore:.*are fewer than five", "ignore:The rows of y_prob")
def test_tensors_are_accepted(metric):
    y, prob = random_case(3, 60, 3)
    weight = np.arange(1.0, 61.0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        given = torch.tensor(prob, dtype=dtype)
        expected = metric(y, given.double().numpy(), sample_weight=weight)
        options = {"sample_weight": torch.tensor(weight, requires_grad=True), "labels": torch.arange(3)}
        for tensor in (given, given.clone().requires_grad_(True), torch.nn.Parameter(given) * 1):
            assert_allclose(metric(torch.tensor(y), tensor, **options), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*are fewer than five")
@pytest.mark.parametrize("seed", range(100))
def test_rounding_keeps_fractions_in_range(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    weight = (rng.uniform(0.1, 1, n), rng.exponential(size=n), rng.uniform(size=n) ** 8)[seed % 3]
    # All rows are certain and correct, or certain and wrong: all fractions are 0 or 1.
    y, p = np.full(n, seed % 2), np.ones(n)
    right = float(seed % 2)
    data = {"labels": [0, 1], "sample_weight": weight}
    both = np.column_stack([1 - p, p])
    for metric in (expected_calibration_error, adaptive_calibration_error, maximum_calibration_error):
        assert 0 <= metric(y, p, **data) <= 1
    for average in ("macro", "weighted"):
        for norm in ("l1", "l2"):
            assert 0 <= classwise_calibration_error(y, both, average=average, norm=norm, **data) <= 1
    assert (classwise_calibration_error(y, both, average=None, **data) <= 1).all()
    assert -1 <= mean_confidence_gap(y, p, **data) <= 1
    assert 0 <= brier_score(y, p, **data) <= 2
    near = rng.uniform(size=n)
    assert 0 <= proximity_informed_calibration_error(y, p, proximity=near, **data) <= 1
    bins = calibration_bins(y, p, n_bins=3, **data)
    assert (bins.accuracy[2], bins.confidence[2]) == (right, 1.0)
    interval = calibration_interval(y, p, metric="gap", **data)
    assert -1 <= interval.low <= interval.estimate <= interval.high <= 1
    record = summary(y, p, **data, n_resamples=99, random_state=0)
    assert (record["accuracy"], record["confidence"]) == (right, 1.0)
    assert -1 <= record["gap"] <= 1 and 0 <= record["classwise_ece"] <= 1
    if n > 3:
        found = compare_calibration(y, p, 1 - p, n_resamples=99, random_state=0, **data)
        assert min(found.value_a, found.value_b) >= 0 and max(found.value_a, found.value_b) <= 1
        assert -1 <= found.low <= found.difference <= found.high <= 1
