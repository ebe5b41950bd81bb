"""How the residuals of bins vary from one test set to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ._null import BinnedRows

__all__ = [
    "BinnedResiduals",
    "absolute_sum",
    "bin_residuals",
    "error_bounds",
    "most_excess",
    "resample_residuals",
    "spread_shift",
]

Floats = NDArray[np.float64]

# Up to this many rows they are drawn one by one; beyond, bin sums come from their normal limit. A bin too
# thin for that limit holds so small a share of so many rows that it cannot matter.
_ROW_BY_ROW = 20_000
_BLOCK = 2**21
# A bin further from zero than this many standard deviations is taken to have the sign that it shows.
_CLEAR = 2.5


class BinnedResiduals(NamedTuple):
    """Signed residuals of bins as shares of all weight, and how much they vary."""

    residual: Floats
    deviation: Floats
    hidden: Floats  # the part of the deviation that comes from exceptions that were not seen


def absolute_sum(residuals: Floats) -> Floats:
    """Sum absolute residuals over bins: the calibration error of each row of residuals."""
    return np.abs(residuals).sum(axis=1)


def bin_residuals(rows: BinnedRows, correct: Floats) -> BinnedResiduals:
    """Sum the residuals of each bin, and estimate how much each sum varies between samples.

    The mean square of a residual is unbiased for what a bin of any size adds to the variance. A bin that is
    all right or all wrong may hide rare exceptions, so it varies at least as if two rows of each kind had
    been added (Agresti and Coull).
    """
    confidence, weight, index, n_bins = rows

    def total(values: Floats) -> Floats:
        return np.bincount(index, weights=values, minlength=n_bins).astype(np.float64)

    residual = total(weight * (confidence - correct))
    variance = total((weight * (confidence - correct)) ** 2)
    right, wrong = total(weight * correct), total(weight * (1.0 - correct))
    square = total(weight**2)
    n_effective = np.divide((right + wrong) ** 2, square, out=np.zeros(n_bins), where=square > 0)
    unanimous = ((right == 0) != (wrong == 0)) & (square > 0)
    least = square * 2.0 * (n_effective + 2.0) / (n_effective + 4.0) ** 2
    hidden = np.where(unanimous, np.maximum(least - variance, 0.0), 0.0)
    whole = weight.sum()
    return BinnedResiduals(residual / whole, np.sqrt(variance + hidden) / whole, np.sqrt(hidden) / whole)


def error_bounds(
    bins: BinnedResiduals, level: float, n_resamples: int, generator: np.random.RandomState
) -> tuple[float, float]:
    """Bound the sum of absolute expected residuals from below and above, with half of 1 - level each.

    Below: the error shown exceeds the true one by at most the sum of the bins' absolute noise, where a bin
    with a clear sign counts with signed noise. Above: of all true residuals with a given absolute sum, those
    in proportion to the noise of their bin show the smallest error on average; the bound is the largest sum
    for which even they would seldom show as little as was seen, with room for exceptions that were not seen.
    """
    filled = bins.deviation > 0
    residual, deviation = bins.residual[filled], bins.deviation[filled]
    shown = float(np.abs(residual).sum())
    tail = (1.0 - level) / 2.0
    noise = deviation * generator.standard_normal((n_resamples, len(residual)))
    low = shown - float(np.quantile(most_excess(residual, deviation, noise), 1.0 - tail))
    high = spread_shift(shown, deviation, noise, tail) * float(deviation.sum())
    high = max(high, shown - float(ndtri(tail)) * float(np.linalg.norm(bins.hidden)))
    return max(low, 0.0), min(max(high, shown), 1.0)


def most_excess(residual: Floats, deviation: Floats, noise: Floats) -> Floats:
    """Draw the most by which the error shown may exceed the true one, given what each bin shows."""
    clear = np.where(np.abs(residual) > _CLEAR * deviation, residual, 0.0)
    return absolute_sum(clear + noise) - float(np.abs(clear).sum())


def spread_shift(shown: float, deviation: Floats, noise: Floats, tail: float) -> float:
    """Find how many deviations every bin must be off for `shown` to be the `tail` quantile of the error."""

    def quantile(shift: float) -> float:
        return float(np.quantile(absolute_sum(noise + shift * deviation), tail))

    if quantile(0.0) >= shown:
        return 0.0
    below, above = 0.0, 1.0
    # Signed noise grows no further with the shift, so doubling it must pass what was shown.
    while quantile(above) < shown:
        below, above = above, 2.0 * above
    for _ in range(20):
        middle = (below + above) / 2.0
        below, above = (middle, above) if quantile(middle) < shown else (below, middle)
    return above


def resample_residuals(
    models: Sequence[tuple[BinnedRows, Floats]], n_resamples: int, generator: np.random.RandomState
) -> Iterator[Floats]:
    """Draw test sets with replacement, and give the residuals of all bins of all models side by side.

    Bins keep their edges. Each row is drawn for all models at once, so what they have in common stays so.
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
        # Where all weights are equal, rounding would otherwise be all that varies in their sum.
        drawn = np.where(np.abs(sums[:, -1:] - whole) <= 1e-9 * whole, whole, sums[:, -1:])
        yield sums[:, :-1] / drawn


def _normal_limit(columns: list[tuple[NDArray[np.intp], int, Floats]]) -> tuple[Floats, Floats]:
    """Return a root of the covariance of the resampled sums, and their mean."""
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
