"""Sampling variation of bin residuals, for confidence intervals and comparisons of calibration errors.

The residual of a bin is the weighted sum of confidence minus correctness over its rows, divided by the total
weight; the calibration error is the sum of the absolute residuals. Two models of the variation are used:

- Normal noise, drawn for each bin with the variance of `bin_residuals` (jointly for two models in
  `pair_noise`). `error_bounds` and `most_excess_over` turn it into bounds that hold for any distribution of
  the true error over the bins.
- Bootstrap samples of rows (`resample_residuals`), which keep the edges of the bins.

All draws come from the `RandomState` of the caller. Bootstrap samples come in blocks of about ``_BLOCK``
numbers; normal noise is one array of shape (n_draws, n_bins), for pairs of models (n_draws, n_cells), where a
cell is a pair of bins that share rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import ndtri

from clipcal.metrics._null import BinnedRows

__all__ = [
    "BinnedResiduals",
    "absolute_sum",
    "bin_residuals",
    "error_bounds",
    "most_excess",
    "most_excess_over",
    "pair_noise",
    "resample_residuals",
]

Floats = NDArray[np.float64]

# Up to this number of rows, rows are resampled. Above it, bin sums are drawn from their normal limit, which
# is much faster. The limit is inaccurate only for bins with a few of the many rows, and these have a
# negligible weight in the error.
_ROW_BY_ROW = 20_000
# Number of values that are drawn at a time, which bounds the memory.
_BLOCK = 2**21
# The observed sign of a residual counts as the true sign above this number of standard deviations.
_CLEAR = 2.5
# Pseudo-rows of the rarer outcome (correct or wrong) that are added to each bin. If none of n rows has the
# outcome, the 97.5 % upper limit of its rate is 3.7 / n by the binomial distribution; with 4 pseudo-rows,
# 1.96 standard deviations of the rate 4 / (n + 4) are 3.9 / n.
_PSEUDO_ROWS = 4.0


class BinnedResiduals(NamedTuple):
    """Signed bin residuals as fractions of the total weight, with standard deviations; shape (n_bins,)."""

    residual: Floats
    deviation: Floats
    hidden: Floats  # part of the standard deviation that comes from the pseudo-rows


def absolute_sum(residuals: Floats) -> Floats:
    """Return the calibration error of each row of bin residuals."""
    return np.abs(residuals).sum(axis=1)


def bin_residuals(rows: BinnedRows, correct: Floats) -> BinnedResiduals:
    """Sum the residuals of each bin, and estimate the standard deviation of each sum.

    The sum of squared residuals is an unbiased estimate of the variance. If few rows of a bin are correct,
    or few are wrong, this estimate depends mostly on these rows and is often far too small. Each variance
    is therefore at least that of a bin with ``_PSEUDO_ROWS`` more rows of its rarer outcome.
    """
    confidence, weight, index, n_bins = rows

    def total(values: Floats) -> Floats:
        return np.bincount(index, weights=values, minlength=n_bins).astype(np.float64)

    residual = total(weight * (confidence - correct))
    variance = total((weight * (confidence - correct)) ** 2)
    right, wrong, square = total(weight * correct), total(weight * (1.0 - correct)), total(weight**2)
    filled = square > 0
    n_effective = np.divide((right + wrong) ** 2, square, out=np.zeros(n_bins), where=filled)
    rarer = np.divide(np.minimum(right, wrong), right + wrong, out=np.zeros(n_bins), where=filled)
    share = np.minimum((n_effective * rarer + _PSEUDO_ROWS) / (n_effective + _PSEUDO_ROWS), 0.5)
    hidden = np.maximum(square * share * (1.0 - share) - variance, 0.0)
    whole = weight.sum()
    return BinnedResiduals(residual / whole, np.sqrt(variance + hidden) / whole, np.sqrt(hidden) / whole)


def error_bounds(bins: BinnedResiduals, noise: Floats, tail: float) -> tuple[float, float]:
    """Return lower and upper confidence bounds of the true error, each with error probability `tail`.

    `noise` has the shape (n_draws, n_bins) and the standard deviations of `bins`. Resampling the observed
    residuals instead would add the upward bias of the error twice, so the bounds are found by inversion:

    - Lower bound: the observed error minus a quantile of `most_excess`.
    - Upper bound: among all true residuals with a given sum of absolute values, residuals proportional to the
      standard deviations give the smallest observed error on average. The bound is the largest sum for which
      these give an error as small as the observed one with probability `tail`. It is raised to cover the
      uncertainty from the pseudo-rows.
    """
    varying = bins.deviation > 0
    fixed = float(np.abs(bins.residual[~varying]).sum())
    residual, deviation, noise = bins.residual[varying], bins.deviation[varying], noise[:, varying]
    shown = float(np.abs(residual).sum())
    low = shown - float(np.quantile(most_excess(residual, deviation, noise), 1.0 - tail))
    high = _spread_shift(shown, deviation, noise, tail) * float(deviation.sum())
    high = max(high, shown - float(ndtri(tail)) * float(np.linalg.norm(bins.hidden)))
    return fixed + max(low, 0.0), min(fixed + max(high, shown), 1.0)


def most_excess(residual: Floats, deviation: Floats, noise: Floats) -> Floats:
    """Return draws of the largest amount by which the observed error may exceed the true one.

    The absolute noise of a bin counts in full unless the sign of its residual is clear; there, noise counts
    with its sign.
    """
    clear = np.where(np.abs(residual) > _CLEAR * deviation, residual, 0.0)
    return absolute_sum(clear + noise) - float(np.abs(clear).sum())


def most_excess_over(
    first: BinnedResiduals, first_noise: Floats, second: BinnedResiduals, second_noise: Floats
) -> Floats:
    """Return draws of the largest excess of the observed difference of two errors, first minus second.

    The first error may be too high as in `most_excess`. The second may be too low by at most its noise in
    the direction of the true sign of each bin. If that sign is not clear, the sign is used for which the
    noise of the two models adds up.
    """
    sure, clear = (
        np.where(np.abs(b.residual) > _CLEAR * b.deviation, b.residual, 0.0) for b in (first, second)
    )
    together = (first_noise @ np.sign(sure)) @ second_noise
    signs = np.where(clear != 0, np.sign(clear), np.where(together > 0, -1.0, 1.0))
    return most_excess(first.residual, first.deviation, first_noise) - second_noise @ signs


def _spread_shift(shown: float, deviation: Floats, noise: Floats, tail: float) -> float:
    """Find the shift, in standard deviations of each bin, at which `shown` is the `tail` quantile."""

    def quantile(shift: float) -> float:
        return float(np.quantile(absolute_sum(noise + shift * deviation), tail))

    if quantile(0.0) >= shown:
        return 0.0
    below, above = 0.0, 1.0
    # The error is at least the shift times the sum of deviations minus the noise, so this loop terminates.
    while quantile(above) < shown:
        below, above = above, 2.0 * above
    for _ in range(20):
        middle = (below + above) / 2.0
        below, above = (middle, above) if quantile(middle) < shown else (below, middle)
    return above


def pair_noise(
    models: Sequence[tuple[BinnedRows, Floats]], n_draws: int, generator: np.random.RandomState
) -> tuple[list[BinnedResiduals], list[Floats]]:
    """Draw correlated normal noise for the bins of two models on the same rows and with equal `n_bins`.

    Returns the residuals of both models and of their bin-wise difference, and the noise of these three, each
    of shape (n_draws, n_bins). Rows are grouped into cells (bin of the first model, bin of the second). The
    noise of the two models is drawn for each cell, with their covariance there, and summed over the cells of
    each bin. Identical predictions give identical noise, so that their difference has none.
    """
    n_bins, weight = models[0][0].n_bins, models[0][0].weight
    bins = [bin_residuals(rows, correct) for rows, correct in models]
    cells, cell = np.unique(models[0][0].bin_of * n_bins + models[1][0].bin_of, return_inverse=True)
    places = np.divmod(cells, n_bins)
    seen, unseen = [], []
    for (rows, correct), found in zip(models, bins, strict=True):
        norm = np.sqrt(np.bincount(rows.bin_of, weights=weight**2, minlength=n_bins))
        scale = np.divide(found.hidden, norm, out=np.zeros(n_bins), where=norm > 0)
        seen.append(weight / weight.sum() * (rows.confidence - correct))
        # The sign makes pseudo-rows positively correlated where both models are correct or both are wrong.
        unseen.append(weight * np.where(correct > 0, 1.0, -1.0) * scale[rows.bin_of])

    def total(i: int, j: int, parts: list[list[Floats]]) -> Floats:
        products = np.sum([part[i] * part[j] for part in parts], axis=0)
        return np.bincount(cell, weights=products).astype(np.float64)

    def apart(deviation: list[Floats], parts: list[list[Floats]]) -> Floats:
        same = places[0] == places[1]
        shared = np.bincount(places[0][same], weights=total(0, 1, parts)[same], minlength=n_bins)
        both = deviation[0] ** 2 + deviation[1] ** 2
        # A tiny remainder is rounding error of identical predictions.
        return np.sqrt(np.where(both - 2.0 * shared > 1e-12 * both, both - 2.0 * shared, 0.0))

    # Cholesky factor of the 2 x 2 covariance matrix of each cell.
    own, common, other = (total(i, j, [seen, unseen]) for i, j in ((0, 0), (0, 1), (1, 1)))
    root = np.sqrt(own)
    along = np.divide(common, root, out=np.zeros(len(cells)), where=root > 0)
    across = np.sqrt(np.maximum(other - along**2, 0.0))
    z, y = generator.standard_normal((2, n_draws, len(cells)))
    at = np.arange(len(cells))
    noise = [
        drawn @ csr_array((np.ones(len(cells)), (at, place)), shape=(len(cells), n_bins))
        for drawn, place in zip((z * root, z * along + y * across), places, strict=True)
    ]
    between = BinnedResiduals(
        bins[0].residual - bins[1].residual,
        apart([b.deviation for b in bins], [seen, unseen]),
        apart([b.hidden for b in bins], [unseen]),
    )
    return [*bins, between], [*noise, noise[0] - noise[1]]


def resample_residuals(
    models: Sequence[tuple[BinnedRows, Floats]], n_resamples: int, generator: np.random.RandomState
) -> Iterator[Floats]:
    """Yield bootstrap residuals of the bins of all models, in blocks of shape (n_block, n_all_bins).

    Rows are resampled with replacement; the edges of the bins are fixed. All models share each sample, which
    preserves their correlation. The sampled weight is one more column, by which each sample is normalized.
    """
    weight = models[0][0].weight
    n_rows, whole = len(weight), float(weight.sum())
    columns = [(rows.bin_of, rows.n_bins, weight * (rows.confidence - correct)) for rows, correct in models]
    columns.append((np.zeros(n_rows, dtype=np.intp), 1, weight))
    width = sum(n_bins for _, n_bins, _ in columns)
    block = max(1, _BLOCK // width)
    limit = None if n_rows <= _ROW_BY_ROW else _normal_limit(columns)
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        if limit is None:
            sums = np.empty((size, width))
            for i in range(size):
                count = np.bincount(generator.randint(0, n_rows, size=n_rows), minlength=n_rows)
                parts = [np.bincount(index, weights=count * v, minlength=n) for index, n, v in columns]
                sums[i] = np.concatenate(parts)
        else:
            root, mean = limit
            sums = mean + generator.standard_normal((size, width)) @ root.T
        # With equal weights the total weight is constant; remove its rounding errors.
        drawn = np.where(np.abs(sums[:, -1:] - whole) <= 1e-9 * whole, whole, sums[:, -1:])
        yield sums[:, :-1] / drawn


def _normal_limit(columns: list[tuple[NDArray[np.intp], int, Floats]]) -> tuple[Floats, Floats]:
    """Return a square root of the covariance matrix of the resampled sums, and their mean."""
    n_rows = len(columns[0][0])
    mean = np.concatenate([np.bincount(index, weights=v, minlength=n) for index, n, v in columns])
    rows = [
        [
            np.bincount(i * n_j + j, weights=v * u, minlength=n_i * n_j).reshape(n_i, n_j)
            for j, n_j, u in columns
        ]
        for i, n_i, v in columns
    ]
    covariance = np.block(rows) - np.outer(mean, mean) / n_rows
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0)), mean
