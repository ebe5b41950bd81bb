"""The metrics: literals worked out by hand, other libraries, and laws that must hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from clipcal.metrics import (
    adaptive_calibration_error,
    calibration_bins,
    expected_calibration_error,
    maximum_calibration_error,
    mean_confidence_gap,
    over_under_confidence,
)

LABELS = ["no", "yes"]


def rows(confidence, correct):
    """Two-class rows whose prediction is "no" at the given confidence, which may be below one half."""
    confidence = np.asarray(confidence, dtype=float)
    return np.where(np.asarray(correct) == 1, "no", "yes"), np.column_stack([confidence, 0 * confidence])


def random_case(seed, n, n_classes, grid=None):
    """Probabilities and labels whose gaps have both signs; on a grid there are many ties."""
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
        calibration_bins(y, prob, labels=LABELS, n_bins=10, closed="left").error, left, atol=1e-12
    )


@pytest.mark.filterwarnings("ignore:The rows of y_prob")
def test_both_maximum_errors_by_hand():
    y, prob = rows([0.5, 0.5, 0.55, 0.9, 0.9, 0.95, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0])
    options = {"labels": LABELS, "n_bins": 10}
    # The last bin holds 0.95, 1 and 1 with a single hit between them.
    assert_allclose(maximum_calibration_error(y, prob, **options), (2.95 - 1) / 3)
    assert_allclose(maximum_calibration_error(y, prob, weighted=True, **options), 0.24375)
    assert_allclose(maximum_calibration_error(y, prob, weighted=True, closed="left", **options), 0.21875)


@pytest.mark.filterwarnings("ignore:The rows of y_prob")
def test_maximum_error_can_skip_thin_bins():
    y, prob = rows([0.95, 0.55, 0.55], [0, 1, 1])
    options = {"labels": LABELS, "n_bins": 10}
    assert_allclose(maximum_calibration_error(y, prob, **options), 0.95)
    assert_allclose(maximum_calibration_error(y, prob, min_count=2, **options), 0.45)
    with pytest.raises(ValueError, match="fullest has 2"):
        maximum_calibration_error(y, prob, min_count=3, **options)


def test_labels_outside_the_columns_count_as_wrong():
    assert expected_calibration_error(["owl", "owl"], [[1, 0], [0, 1]], labels=["ant", "bee"]) == 1.0


def test_one_class_and_one_row():
    assert expected_calibration_error([3, 4], [[1.0], [1.0]], labels=[3]) == 0.5
    assert_allclose(expected_calibration_error([1], [0.75], labels=[0, 1]), 0.25)


def test_perfect_and_hopeless_predictions():
    y = np.arange(30) % 3
    for metric in (expected_calibration_error, maximum_calibration_error):
        assert metric(y, np.eye(3)[y]) == 0
        assert metric(y, np.eye(3)[(y + 1) % 3]) == 1
    assert adaptive_calibration_error(y, np.eye(3)[y], n_bins=5) == 0


def test_adaptive_error_warns_when_bins_are_nearly_empty():
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
    bins = calibration_bins(y, prob, **binned)
    filled = bins.weight > 0
    rms = np.sqrt((bins.residual[filled] ** 2 / bins.weight[filled]).sum() / bins.weight.sum())
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
    for metric in (expected_calibration_error, maximum_calibration_error, mean_confidence_gap):
        weighted = metric(y, prob, sample_weight=weight, **options)
        assert_allclose(weighted, metric(y[repeated], prob[repeated], **options), atol=1e-12)
        assert_allclose(weighted, metric(y, prob, sample_weight=weight * 0.1, **options), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases, st.integers(0, 2**16))
@pytest.mark.filterwarnings("ignore:.*leave fewer than five")
def test_rows_columns_and_names_do_not_matter(case, seed):
    y, prob = case
    prob = prob + np.linspace(0, 1e-5, prob.shape[1])  # no ties inside a row
    prob /= prob.sum(axis=1, keepdims=True)
    names = np.array(["f", "a", "d", "b", "e", "c"])[: prob.shape[1]]
    rng = np.random.default_rng(seed)
    order, columns = rng.permutation(len(y)), rng.permutation(prob.shape[1])
    for metric in (expected_calibration_error, adaptive_calibration_error, maximum_calibration_error):
        assert_allclose(
            metric(names[y][order], prob[order][:, columns], labels=names[columns]),
            metric(y, prob, labels=np.arange(prob.shape[1])),
            atol=1e-12,
        )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 8), st.integers(2, 4))
def test_finer_bins_never_lower_the_error(seed, n_bins, factor):
    y, prob = random_case(seed, 200, 4)
    coarse = expected_calibration_error(y, prob, labels=np.arange(4), n_bins=n_bins)
    assert coarse <= expected_calibration_error(y, prob, labels=np.arange(4), n_bins=n_bins * factor) + 1e-12


def test_float32_changes_nothing_visible():
    y, prob = random_case(5, 1000, 10)
    single = expected_calibration_error(y, prob.astype(np.float32))
    assert_allclose(single, expected_calibration_error(y, prob), atol=1e-6)


@pytest.mark.parametrize("grid", [None, 32])
@pytest.mark.parametrize(("n", "n_bins"), [(777, 10), (1003, 16)])
def test_against_uncertainty_calibration(n, n_bins, grid):
    # The name is also that of a folder of tests, which Python takes for a package without code.
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


def test_against_netcal():
    other = pytest.importorskip("netcal.metrics")
    y, prob = random_case(3, 900, 6)
    assert_allclose(expected_calibration_error(y, prob), other.ECE(15).measure(prob, y), atol=1e-12)
    assert_allclose(maximum_calibration_error(y, prob), other.MCE(15).measure(prob, y), atol=1e-12)


def test_against_torchmetrics():
    other = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    y, prob = random_case(4, 900, 6)
    for metric, norm in ((expected_calibration_error, "l1"), (maximum_calibration_error, "max")):
        theirs = other.multiclass_calibration_error(
            torch.tensor(prob), torch.tensor(y), num_classes=6, n_bins=15, norm=norm
        )
        assert_allclose(metric(y, prob), float(theirs), atol=1e-6)


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
