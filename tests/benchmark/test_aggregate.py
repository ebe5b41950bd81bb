"""Means over seeds and data sets, and paired comparisons."""

import itertools
import math

import numpy as np
import pytest
from fake_results import base_to_new_cells, few_shot_cells, make_cell, transfer_cells, write_results
from scipy import stats

from clipcal.benchmark import read_results
from clipcal.benchmark._aggregate import Estimate, Model, average_over_seeds, make_grids
from clipcal.benchmark._comparisons import compare, compare_pairs

COOP, DOR = Model("CoOp", "none", "none", 16), Model("CoOp", "DOR", "none", 16)


def grid_of(tmp_path, cells, accuracy=None, **options):
    """Return the only grid of results with the given accuracies."""
    metrics = None if accuracy is None else lambda cell: {"accuracy": accuracy(cell)}
    [grid] = make_grids(read_results(write_results(tmp_path, cells, metrics=metrics, **options)))
    return grid


def test_mean_and_deviation_of_a_published_example():
    """The sample output of the CoOp repository: 91.81, 92.01 and 92.17 are 92.00 ± 0.15."""
    found = average_over_seeds([91.81, 92.01, 92.17])
    assert f"{found.mean:.2f} ± {found.std:.2f}" == "92.00 ± 0.15"
    assert found.half_width == pytest.approx(1.96 * found.std / math.sqrt(3))


def test_one_seed_has_no_deviation():
    assert average_over_seeds([0.5]) == Estimate(0.5, None, 1)
    assert average_over_seeds([0.5]).half_width is None


def test_harmonic_mean_is_of_the_averages(tmp_path):
    """Averages of a published table: 82.28 and 75.14 have the harmonic mean 78.55."""
    values = {("one", "base"): 0.9, ("one", "new"): 0.9, ("two", "base"): 0.7456, ("two", "new"): 0.6028}
    cells = base_to_new_cells(["one", "two"], [("CoOp", "none")])
    grid = grid_of(tmp_path, cells, lambda cell: values[cell["dataset"], cell["classes"]])
    assert grid.over_datasets(COOP, "base", "accuracy").mean == pytest.approx(0.8228)
    assert grid.over_datasets(COOP, "new", "accuracy").mean == pytest.approx(0.7514)
    joined = grid.joined(COOP, None, "accuracy").mean
    assert round(100 * joined, 2) == 78.55
    means = [grid.joined(COOP, name, "accuracy").mean for name in ("one", "two")]
    assert np.mean(means) < joined - 1e-3


def test_harmonic_mean_is_of_the_means_over_seeds(tmp_path):
    values = {("base", 1): 0.9, ("base", 2): 0.5, ("new", 1): 0.3, ("new", 2): 0.7}
    cells = base_to_new_cells(["one"], [("CoOp", "none")], seeds=[1, 2])
    grid = grid_of(tmp_path, cells, lambda cell: values[cell["classes"], cell["seed"]])
    assert grid.joined(COOP, "one", "accuracy").mean == pytest.approx(2 * 0.7 * 0.5 / 1.2)


def test_harmonic_mean_with_zero_is_zero(tmp_path):
    cells = base_to_new_cells(["one"], [("CoOp", "none")])
    grid = grid_of(tmp_path, cells, lambda cell: 0.8 if cell["classes"] == "base" else 0.0)
    assert grid.joined(COOP, None, "accuracy") == Estimate(0.0)


def test_errors_have_the_arithmetic_mean(tmp_path):
    cells = base_to_new_cells(["one", "two"], [("CoOp", "none")])
    errors = {"base": 0.005, "new": 0.15}
    write_results(tmp_path, cells, metrics=lambda cell: {"ece": errors[cell["classes"]]})
    [grid] = make_grids(read_results(tmp_path))
    assert grid.joined(COOP, None, "ece").mean == pytest.approx(0.0775)
    assert grid.joined(COOP, "one", "ece").mean == pytest.approx(0.0775)


def test_deviation_of_an_average_is_over_the_averages_of_seeds(tmp_path):
    cells = few_shot_cells(["one", "two"], [("CoOp", "none")], n_shots=[16], seeds=[1, 2])
    # The data sets differ by 0.4, and the averages over them by 0.02.
    values = {("one", 1): 0.5, ("two", 1): 0.9, ("one", 2): 0.54, ("two", 2): 0.9}
    grid = grid_of(tmp_path, cells, lambda cell: values[cell["dataset"], cell["seed"]])
    found = grid.over_datasets(COOP, "all", "accuracy")
    assert (found.mean, found.std, found.n) == (pytest.approx(0.71), pytest.approx(0.01), 2)


@pytest.mark.parametrize("state", ["missing", "failed"])
def test_incomplete_means_are_refused(tmp_path, state):
    cells = base_to_new_cells(["one", "two"])
    lost = make_cell("base-to-new", "one", "one", "new", "CoOp", seed=2)
    grid = grid_of(tmp_path, cells, **{state: lambda cell: cell == lost})
    assert grid.over_seeds(COOP, "one", "new", "accuracy") == Estimate(note="2 of 3 seeds")
    assert grid.over_datasets(COOP, "new", "accuracy") == Estimate(note="1 of 2 data sets")
    assert grid.joined(COOP, "one", "accuracy") == Estimate(note="new: 2 of 3 seeds")
    assert grid.joined(COOP, None, "ece") == Estimate(note="new: 1 of 2 data sets")
    # Nothing else is affected.
    assert grid.over_datasets(COOP, "base", "accuracy").mean is not None
    assert grid.joined(DOR, None, "accuracy").mean is not None
    assert compare(grid, DOR, "new", "accuracy").note == "5 of 6 pairs"
    assert compare(grid, DOR, "new", "accuracy").difference is None
    assert compare(grid, DOR, "base", "accuracy").difference is not None


def test_metric_that_a_cell_lacks_is_missing(tmp_path):
    grid = grid_of(tmp_path, few_shot_cells(["one"], [("CoOp", "none")], [16], [1]))
    assert grid.over_seeds(COOP, "one", "all", "mce") == Estimate(note="0 of 1 seed")


def test_unplanned_cells_are_told_apart_from_missing_ones(tmp_path):
    cells = base_to_new_cells(["one", "two"], [("CoOp", "none"), ("CoOp", "DOR")])
    lacks_new = [cell for cell in cells if (cell["regularizer"], cell["classes"]) != ("DOR", "new")]
    grid = grid_of(tmp_path / "new", lacks_new)
    assert grid.over_datasets(DOR, "new", "accuracy").note == "not in the plan"
    assert grid.joined(DOR, None, "accuracy").note == "new: not in the plan"
    # A mean over other data sets than those of the other models is not comparable to theirs.
    lacks_two = [cell for cell in cells if (cell["regularizer"], cell["dataset"]) != ("DOR", "two")]
    grid = grid_of(tmp_path / "two", lacks_two)
    assert grid.over_datasets(DOR, "new", "accuracy").note == "1 of 2 data sets"


def test_average_of_transfer_leaves_out_the_source(tmp_path):
    accuracies = {"imagenet": 0.9, "dtd": 0.4, "eurosat": 0.5}
    grid = grid_of(tmp_path, transfer_cells(), lambda cell: accuracies[cell["dataset"]])
    assert grid.source == "imagenet" and grid.averaged == ("dtd", "eurosat")
    assert grid.over_datasets(COOP, "all", "accuracy").mean == pytest.approx(0.45)


def test_domain_generalization_averages_the_four_variants(tmp_path):
    names = ["imagenetv2", "imagenet-sketch", "imagenet-a", "imagenet-r"]
    accuracies = dict(zip(["imagenet", *names], [0.9, 0.1, 0.2, 0.3, 0.4], strict=True))
    cells = transfer_cells("domain-generalization", "imagenet", names)
    grid = grid_of(tmp_path, cells, lambda cell: accuracies[cell["dataset"]])
    assert grid.over_datasets(COOP, "all", "accuracy").mean == pytest.approx(0.25)


def test_numbers_of_images_are_separate_models(tmp_path):
    grid = grid_of(tmp_path, few_shot_cells(n_shots=[1, 16]), lambda cell: 0.5 + cell["n_shots"] / 100)
    few, many = Model("CoOp", "none", "none", 1), COOP
    assert [model.label for model in grid.models] == ["zero-shot", "CoOp", "CoOp", "CoOp + DOR", "CoOp + DOR"]
    assert grid.over_datasets(few, "all", "accuracy").mean == pytest.approx(0.51)
    assert grid.over_datasets(many, "all", "accuracy").mean == pytest.approx(0.66)


def test_protocols_are_separate_grids(tmp_path):
    write_results(tmp_path, [*base_to_new_cells(), *few_shot_cells(), *transfer_cells()])
    grids = make_grids(read_results(tmp_path))
    assert [grid.protocol for grid in grids] == ["base-to-new", "few-shot", "cross-dataset"]


# Comparisons.


def signed_rank_pvalue(differences):
    """Return the exact two-sided p-value of the signed-rank test, from all assignments of signs."""
    ranks = stats.rankdata(np.abs(differences))
    statistic = abs(np.dot(np.sign(differences), ranks))
    signs = itertools.product((-1, 1), repeat=len(differences))
    return np.mean([abs(np.dot(one, ranks)) >= statistic - 1e-9 for one in signs])


def test_comparison_of_pairs_against_all_sign_assignments():
    differences = np.random.default_rng(3).normal(0.02, 0.03, size=11)
    found = compare_pairs(differences)
    assert found.pvalue == pytest.approx(signed_rank_pvalue(differences))
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.difference == pytest.approx(differences.mean()) and found.n_pairs == 11


def test_differences_that_are_equal_up_to_rounding_errors_are_ties():
    differences = np.array([0.1, 0.1 + 1e-17, -0.1, 0.3, 0.3 - 1e-16, 0.2, 0.1])
    assert compare_pairs(differences).pvalue == compare_pairs(differences.round(3)).pvalue


def test_no_difference_at_all():
    found = compare_pairs(np.zeros(8))
    assert (found.difference, found.low, found.high, found.pvalue) == (0.0, 0.0, 0.0, 1.0)


def test_too_few_pairs_have_no_test():
    found = compare_pairs(np.full(5, -0.1))
    assert found.difference == pytest.approx(-0.1) and found.note == "too few pairs"
    assert found.pvalue is None and found.low is None


def test_pairs_are_data_sets_if_there_are_enough(tmp_path):
    cells = base_to_new_cells([f"set {i}" for i in range(7)])
    grid = grid_of(tmp_path, cells)
    found = compare(grid, DOR, "new", "ece")
    assert found.n_pairs == 7
    ours, theirs = (
        [grid.over_seeds(model, name, "new", "ece").mean for name in grid.datasets] for model in (DOR, COOP)
    )
    assert found.difference == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found.pvalue == pytest.approx(signed_rank_pvalue(np.subtract(ours, theirs)))


def test_pairs_are_cells_if_there_are_few_data_sets(tmp_path):
    grid = grid_of(tmp_path, base_to_new_cells(["one", "two"]))
    found = compare(grid, DOR, "base", "accuracy")
    assert found.n_pairs == 6
    differences = [
        grid.by_seed(DOR, name, "base", "accuracy")[seed] - grid.by_seed(COOP, name, "base", "accuracy")[seed]
        for name in grid.datasets
        for seed in (1, 2, 3)
    ]
    assert found.difference == pytest.approx(np.mean(differences))


def test_comparison_is_with_the_same_calibrator(tmp_path):
    cells = base_to_new_cells(calibrators=["none", "temperature"])
    grid = grid_of(tmp_path, cells, lambda cell: 0.5 if cell["calibrator"] == "none" else 0.8)
    scaled = Model("CoOp", "DOR", "temperature", 16)
    assert scaled.baseline == Model("CoOp", "none", "temperature", 16)
    assert compare(grid, scaled, "new", "accuracy").difference == 0.0


def test_models_without_a_counterpart_are_not_compared(tmp_path):
    grid = grid_of(tmp_path, base_to_new_cells(contenders=[("CoOp", "DOR")]))
    assert compare(grid, DOR, "new", "ece").note == "the plan has no such model without the loss term"
    assert COOP.baseline is None
