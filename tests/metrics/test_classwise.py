"""The classwise error: values computed by hand, other libraries, and properties."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from clipcal.metrics import classwise_calibration_error

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


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


def by_definition(y, prob, *, n_bins, closed="right", norm="l1", threshold=0.0, weight=None):
    """The definition, with loops over classes and bins."""
    weight = np.ones(len(y)) if weight is None else weight
    edges = np.linspace(0, 1, n_bins + 1)
    errors = []
    for k, forecast in enumerate(np.asarray(prob, dtype=float).T):
        index = np.searchsorted(edges[1:-1], forecast, side="left" if closed == "right" else "right")
        total = 0.0
        for b in range(n_bins):
            here = (index == b) & (forecast >= threshold)
            if weight[here].sum() > 0:
                gap = (weight * (forecast - (y == k)))[here].sum() / weight[here].sum()
                total += weight[here].sum() * (abs(gap) if norm == "l1" else gap**2)
        kept = weight[forecast >= threshold].sum()
        error = total / kept if kept else 0.0
        errors.append(error if norm == "l1" else np.sqrt(error))
    return np.array(errors)


PROB = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.3, 0.1, 0.6], [0.1, 0.1, 0.8]]
TRUTH = ["cat", "dog", "owl", "owl"]


def test_by_hand():
    # cat: 0.1 | 0.3, 0.3 | 0.8 (true); dog: 0.1 three times | 0.6 (true);
    # owl: 0.1 twice | 0.6 (true) | 0.8 (true). Each group is in its own bin.
    errors = np.array([0.1 + 0.6 + 0.2, 0.3 + 0.4, 0.2 + 0.4 + 0.2]) / 4
    options = {"n_bins": 5}
    assert_allclose(classwise_calibration_error(TRUTH, PROB, average=None, **options), errors)
    assert_allclose(classwise_calibration_error(TRUTH, PROB, **options), errors.mean())
    assert_allclose(classwise_calibration_error(TRUTH, PROB, average="sum", **options), errors.sum())
    weighted = classwise_calibration_error(TRUTH, PROB, average="weighted", **options)
    assert_allclose(weighted, errors @ [0.25, 0.25, 0.5])


def test_root_mean_square_by_hand():
    squares = np.array([0.01 + 0.36 / 2 + 0.04, 0.09 / 3 + 0.16, 0.04 / 2 + 0.16 + 0.04]) / 4
    options = {"n_bins": 5, "norm": "l2"}
    assert_allclose(classwise_calibration_error(TRUTH, PROB, average=None, **options), np.sqrt(squares))
    assert_allclose(classwise_calibration_error(TRUTH, PROB, **options), np.sqrt(squares.mean()))
    assert_allclose(
        classwise_calibration_error(TRUTH, PROB, average="sum", **options), np.sqrt(squares.sum())
    )


def test_equal_weight_bins_and_threshold_by_hand():
    options = {"n_bins": 2, "strategy": "quantile", "average": None}
    # Equal values (0.3 of cat, 0.1 of dog) share a bin.
    errors = [(0.7 + 0.2) / 4, (0.3 + 0.4) / 4, (0.2 + 0.6) / 4]
    assert_allclose(classwise_calibration_error(TRUTH, PROB, **options), errors)
    # Above the threshold: cat 0.3, 0.3, 0.8; dog 0.6; owl 0.6, 0.8.
    errors = [(0.6 + 0.2) / 3, 0.4, (0.4 + 0.2) / 2]
    assert_allclose(classwise_calibration_error(TRUTH, PROB, threshold=0.2, **options), errors)
    # No probability reaches the threshold 1.
    assert_array_equal(classwise_calibration_error(TRUTH, PROB, threshold=1.0, **options), [0, 0, 0])


def test_closed_side_matters_for_values_on_edges():
    y, prob = [0, 1, 0, 1], [[0.5, 0.5], [0.75, 0.25], [0.5, 0.5], [0.0, 1.0]]
    right = classwise_calibration_error(y, prob, n_bins=2, average=None)
    left = classwise_calibration_error(y, prob, n_bins=2, average=None, closed="left")
    assert_allclose(right, [(1.0 + 0.75) / 4, 0.25 / 4])
    assert_allclose(left, [(0.25 + 0) / 4, (0.75 + 1.0) / 4])


def test_absent_classes_are_included():
    y, prob = ["ant", "bee"], [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]]
    errors = classwise_calibration_error(y, prob, labels=["ant", "bee", "cow"], n_bins=1, average=None)
    assert_allclose(errors, [0, 0.1, 0.1], atol=1e-12)
    with pytest.raises(ValueError, match="without a column"):
        classwise_calibration_error(["ant", "dog"], prob, labels=["ant", "bee", "cow"])


def test_values_are_in_column_order():
    names = np.array(["cat", "dog", "owl"])
    errors = classwise_calibration_error(TRUTH, PROB, labels=names, average=None)
    turned = classwise_calibration_error(
        TRUTH, np.array(PROB)[:, [2, 0, 1]], labels=names[[2, 0, 1]], average=None
    )
    assert_array_equal(turned, errors[[2, 0, 1]])


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_memory_layout_does_not_matter(strategy):
    y, prob = random_case(8, 300, 12)
    options = {"strategy": strategy, "average": None}
    errors = classwise_calibration_error(y, prob, **options)
    for laid_out in (np.asfortranarray(prob), np.repeat(prob, 2, axis=1)[:, ::2], pd.DataFrame(prob)):
        assert_allclose(classwise_calibration_error(y, laid_out, **options), errors, atol=1e-12)


cases = st.tuples(
    st.integers(0, 2**16), st.integers(1, 60), st.integers(1, 25), st.sampled_from([None, 16])
).map(lambda case: random_case(*case))


@settings(max_examples=40, deadline=None)
@given(
    cases,
    st.integers(1, 20),
    st.sampled_from(["right", "left"]),
    st.sampled_from(["l1", "l2"]),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.booleans(),
)
def test_against_the_definition(case, n_bins, closed, norm, threshold, weighted):
    y, prob = case
    weight = np.random.default_rng(len(y)).integers(0, 3, len(y)) + np.eye(1, len(y))[0] if weighted else None
    options = {"n_bins": n_bins, "closed": closed, "norm": norm, "threshold": threshold}
    before = prob.copy()
    ours = classwise_calibration_error(
        y, prob, labels=np.arange(prob.shape[1]), sample_weight=weight, average=None, **options
    )
    assert_allclose(ours, by_definition(y, prob, weight=weight, **options), atol=1e-12)
    assert_array_equal(prob, before)


@settings(max_examples=30, deadline=None)
@given(cases, st.sampled_from(["uniform", "quantile"]), st.sampled_from(["l1", "l2"]), st.integers(0, 2**16))
def test_order_names_and_equal_weights_do_not_matter(case, strategy, norm, seed):
    y, prob = case
    n_classes = prob.shape[1]
    rng = np.random.default_rng(seed)
    order, columns = rng.permutation(len(y)), rng.permutation(n_classes)
    names = rng.permutation([f"name {k}" for k in range(n_classes)])
    options = {"strategy": strategy, "norm": norm, "average": None}
    errors = classwise_calibration_error(y, prob, labels=np.arange(n_classes), **options)
    turned = classwise_calibration_error(
        names[y][order], prob[order][:, columns], labels=names[columns], **options
    )
    assert_allclose(turned, errors[columns], atol=1e-12)
    equal = np.full(len(y), 0.3)
    weighted = classwise_calibration_error(
        y, prob, labels=np.arange(n_classes), sample_weight=equal, **options
    )
    assert_allclose(weighted, errors, atol=1e-12)
    assert ((errors >= 0) & (errors <= 1 + 1e-12)).all()


@settings(max_examples=20, deadline=None)
@given(cases, st.integers(0, 2**16))
def test_integer_weights_repeat_rows(case, seed):
    y, prob = case
    weight = np.random.default_rng(seed).integers(0, 4, len(y))
    weight[0] = 1
    repeated = np.repeat(np.arange(len(y)), weight)
    options = {"labels": np.arange(prob.shape[1]), "norm": "l2", "average": "weighted"}
    assert_allclose(
        classwise_calibration_error(y, prob, sample_weight=weight, **options),
        classwise_calibration_error(y[repeated], prob[repeated], **options),
        atol=1e-12,
    )


def test_weights_of_very_different_size():
    y, prob = random_case(1, 40, 30)
    weight = np.where(np.arange(40) == 0, 1e-200, 1.0)
    options = {"n_bins": 15, "norm": "l2"}
    ours = classwise_calibration_error(
        y, prob, labels=range(30), sample_weight=weight, average=None, **options
    )
    assert_allclose(ours, by_definition(y, prob, weight=weight, **options), atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 8), st.integers(2, 4))
def test_finer_bins_never_decrease_the_error(seed, n_bins, factor):
    y, prob = random_case(seed, 200, 4)
    options = {"labels": range(4), "average": None}
    coarse = classwise_calibration_error(y, prob, n_bins=n_bins, **options)
    fine = classwise_calibration_error(y, prob, n_bins=n_bins * factor, **options)
    assert (coarse <= fine + 1e-12).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_saturated_predictions(dtype, strategy):
    y = np.arange(30) % 3
    for norm in ("l1", "l2"):
        options = {"norm": norm, "strategy": strategy}
        assert classwise_calibration_error(y, np.eye(3, dtype=dtype)[y], **options) == 0
        wrong = classwise_calibration_error(y, np.eye(3, dtype=dtype)[(y + 1) % 3], n_bins=2, **options)
        # For each class, one third of the rows is predicted wrongly, and one third is missed.
        if norm == "l1":
            assert_allclose(wrong, 2 / 3)
        else:
            assert_allclose(wrong, np.sqrt(1 / 3 + 2 / 3 * 0.5**2))


@pytest.mark.parametrize("n", range(1, 31))
def test_few_rows_one_class_and_one_column(n):
    rng = np.random.default_rng(n)
    prob = np.eye(3)[rng.integers(0, 3, n)].astype(np.float32)
    prob[::3] = [0.5, 0.25, 0.25]
    for strategy in ("uniform", "quantile"):
        for y in (rng.integers(0, 3, n), np.zeros(n)):
            assert 0 <= classwise_calibration_error(y, prob, labels=[0, 1, 2], strategy=strategy) <= 1
        assert classwise_calibration_error(np.zeros(n), np.ones((n, 1)), strategy=strategy) == 0


def test_one_dimensional_probabilities():
    y, p = [0, 1, 1, 0], np.array([0.1, 0.35, 0.8, 0.6])
    two = classwise_calibration_error(y, np.column_stack([1 - p, p]), average=None)
    assert_array_equal(classwise_calibration_error(y, p, average=None), two)


def test_single_precision_gives_nearly_the_same_error():
    y, prob = random_case(5, 1000, 40)
    for strategy in ("uniform", "quantile"):
        options = {"labels": range(40), "average": "sum", "strategy": strategy, "n_bins": 7}
        exact = classwise_calibration_error(y, prob, **options)
        single = classwise_calibration_error(y, prob.astype(np.float32), **options)
        assert_allclose(single, exact, atol=1e-6)


@pytest.mark.parametrize("n_bins", [2, 200])
def test_memory_with_many_classes(n_bins):
    rng = np.random.default_rng(0)
    n_classes = 10_000
    prob = rng.random((400, n_classes), dtype=np.float32)
    prob /= prob.sum(axis=1, keepdims=True)
    prob[:200] = 0
    y = rng.integers(0, n_classes, 400)
    prob[np.arange(200), y[:200]] = 1
    tracemalloc.start()
    error = classwise_calibration_error(y, prob, labels=np.arange(n_classes), average="sum", n_bins=n_bins)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Half of the rows are certain and correct; the others have small probabilities, all in the first bin.
    miss = np.bincount(y[200:], minlength=n_classes) - prob[200:].sum(axis=0, dtype=float)
    assert_allclose(error, np.abs(miss).sum() / 400, atol=1e-6)
    # A float64 copy would take 32 MB.
    assert peak < (16e6 if n_bins == 2 else 8 * 8 * n_bins * n_classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"average": "micro"}, "average"),
        ({"norm": "max"}, "norm"),
        ({"strategy": "mass"}, "strategy"),
        ({"n_bins": 0}, "n_bins"),
    ],
)
def test_invalid_parameters_raise(options, message):
    with pytest.raises(ValueError, match=message):
        classwise_calibration_error(TRUTH, PROB, **options)


def test_row_sums():
    with pytest.raises(ValueError, match="Divide each row"):
        classwise_calibration_error([0, 1], [[0.5, 0.4], [0.1, 0.9]])
    with pytest.warns(UserWarning, match="sum to 1") as caught:
        classwise_calibration_error([0, 1], [[0.5, 0.495], [0.1, 0.9]])
    assert caught[0].filename == __file__


@pytest.mark.parametrize("grid", [None, 32])
@pytest.mark.parametrize(("n", "n_bins", "n_classes"), [(777, 10, 3), (1003, 16, 20)])
def test_against_uncertainty_calibration(n, n_bins, n_classes, grid):
    other = pytest.importorskip("calibration.utils")
    y, prob = random_case(n, n, n_classes, grid)
    theirs = other.get_ece(prob, y, num_bins=n_bins, mode="marginal")
    assert_allclose(classwise_calibration_error(y, prob, n_bins=n_bins), theirs, atol=1e-12)
    for strategy, scheme in (("uniform", other.get_equal_prob_bins), ("quantile", other.get_equal_bins)):
        for p in (1, 2):
            theirs = other.lower_bound_scaling_ce(
                prob, y, p=p, debias=False, num_bins=n_bins, binning_scheme=scheme, mode="marginal"
            )
            ours = classwise_calibration_error(y, prob, n_bins=n_bins, strategy=strategy, norm=f"l{p}")
            assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("grid", [None, 20])
def test_against_netcal_class_by_class(grid):
    other = pytest.importorskip("netcal.metrics")
    y, prob = random_case(3, 900, 6, grid)
    theirs = [other.ECE(10).measure(np.ascontiguousarray(prob[:, k]), (y == k).astype(int)) for k in range(6)]
    ours = classwise_calibration_error(y, prob, n_bins=10, closed="left", average=None)
    assert_allclose(ours, theirs, atol=1e-12)
