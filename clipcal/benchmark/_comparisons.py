"""Paired tests of models with a loss term against the same models without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import wilcoxon

from clipcal.benchmark._aggregate import Grid, Model

__all__ = ["MIN_PAIRS", "Comparison", "compare", "compare_pairs", "pairs_are_datasets"]

# With five pairs, the smallest two-sided p-value of the signed-rank test is 0.0625.
MIN_PAIRS = 6
# Differences that are equal up to rounding errors get the same rank.
_DECIMALS = 12


@dataclass(frozen=True)
class Comparison:
    """A model with a loss term, compared to the same model without it.

    Parameters
    ----------
    difference : float or None
        Mean of the paired differences; None if a planned cell is missing.
    low, high : float or None
        Ends of the 95 % interval of the mean difference, from the t distribution.
    pvalue : float or None
        Two-sided p-value of the Wilcoxon signed-rank test.
    n_pairs : int
        Number of paired differences.
    note : str
        Why there is no difference or no test.
    """

    difference: float | None = None
    low: float | None = None
    high: float | None = None
    pvalue: float | None = None
    n_pairs: int = 0
    note: str = ""


def compare(grid: Grid, model: Model, part: str, metric: str) -> Comparison:
    """Compare a model to the same model without its loss term.

    With at least six data sets, the pairs are the means over seeds on each data set, which are independent.
    With fewer, they are the values of each data set and seed.

    Parameters
    ----------
    grid : Grid
        The cells of a protocol.
    model : Model
        A model with a loss term.
    part : str
        Classes of the evaluation.
    metric : str
        Name of the metric.

    Returns
    -------
    comparison : Comparison
    """
    baseline = model.baseline
    if baseline is None or baseline not in grid.models:
        return Comparison(note="the plan has no such model without the loss term")
    names = grid.averaged
    of_datasets, n_planned = [], 0
    for name in names:
        ours, theirs = (grid.by_seed(one, name, part, metric) for one in (model, baseline))
        n_planned += len(set(grid.seeds(model, name, part)) | set(grid.seeds(baseline, name, part)))
        of_datasets.append([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    n_found = sum(map(len, of_datasets))
    if n_planned == 0:
        return Comparison(note="not in the plan")
    if n_found < n_planned or not all(of_datasets):
        return Comparison(note=f"{n_found} of {n_planned} pairs")
    if pairs_are_datasets(grid):
        return compare_pairs(np.array([np.mean(found) for found in of_datasets]))
    return compare_pairs(np.concatenate(of_datasets))


def pairs_are_datasets(grid: Grid) -> bool:
    """Tell whether there are enough data sets to take each as one pair."""
    return len(grid.averaged) >= MIN_PAIRS


def compare_pairs(differences: NDArray[np.float64]) -> Comparison:
    """Test whether paired differences have the median 0."""
    n = len(differences)
    mean = float(differences.mean())
    if n < MIN_PAIRS:
        return Comparison(mean, n_pairs=n, note="too few pairs")
    width = float(stdtrit(n - 1, 0.975) * differences.std(ddof=1) / np.sqrt(n))
    rounded = differences.round(_DECIMALS)
    pvalue = float(wilcoxon(rounded).pvalue) if rounded.any() else 1.0
    return Comparison(mean, mean - width, mean + width, pvalue, n)
