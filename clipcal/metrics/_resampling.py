"""How the residuals of bins vary from one test set to the next."""

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

# Up to this many rows they are drawn one by one; beyond, bin sums come from their normal limit. A bin too
# thin for that limit holds so small a share of so many rows that it cannot matter.
_ROW_BY_ROW = 20_000
_BLOCK = 2**21
# A bin further from zero than this many standard deviations is taken to have the sign that it shows.
_CLEAR = 2.5
# So many exceptions may hide in a bin. None seen leaves 3.7 / n plausible at 97.5 %, by the binomial law;
# 1.96 deviations of a rate of 4 / (n + 4) give 3.9 / n.
_HIDDEN_EXCEPTIONS = 4.0


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

    The mean square of a residual is unbiased for what a bin of any size adds to the variance. Where few rows
    are right, or few are wrong, it is often far too small, since most of it hangs on the exceptions that
    happened to be seen. So a bin varies at least as if there had been four more of them.
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
    share = np.minimum((n_effective * rarer + _HIDDEN_EXCEPTIONS) / (n_effective + _HIDDEN_EXCEPTIONS), 0.5)
    hidden = np.maximum(square * share * (1.0 - share) - variance, 0.0)
    whole = weight.sum()
    return BinnedResiduals(residual / whole, np.sqrt(variance + hidden) / whole, np.sqrt(hidden) / whole)


def error_bounds(bins: BinnedResiduals, noise: Floats, tail: float) -> tuple[float, float]:
    """Bound the sum of absolute expected residuals from below and above, each but for a share `tail`.

    Below: the error shown exceeds the true one by at most the sum of the bins' absolute noise, where a bin
    with a clear sign counts with signed noise. Above: of all true residuals with a given absolute sum, those
    in proportion to the noise of their bin show the smallest error on average; the bound is the largest sum
    for which even they would seldom show as little as was seen, with room for exceptions that were not seen.
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
    """Draw the most by which the error shown may exceed the true one, given what each bin shows."""
    clear = np.where(np.abs(residual) > _CLEAR * deviation, residual, 0.0)
    return absolute_sum(clear + noise) - float(np.abs(clear).sum())


def most_excess_over(
    first: BinnedResiduals, first_noise: Floats, second: BinnedResiduals, second_noise: Floats
) -> Floats:
    """Draw the most by which the difference of two errors, first minus second, may exceed the true one.

    The first may be too high as in `most_excess`. The second can be too low by no more than its noise along
    the true sign of each bin. Where that sign is not clear, the one counts that lets both noises add up.
    """
    sure, clear = (
        np.where(np.abs(b.residual) > _CLEAR * b.deviation, b.residual, 0.0) for b in (first, second)
    )
    together = (first_noise @ np.sign(sure)) @ second_noise
    signs = np.where(clear != 0, np.sign(clear), np.where(together > 0, -1.0, 1.0))
    return most_excess(first.residual, first.deviation, first_noise) - second_noise @ signs


def _spread_shift(shown: float, deviation: Floats, noise: Floats, tail: float) -> float:
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


def pair_noise(
    models: Sequence[tuple[BinnedRows, Floats]], n_draws: int, generator: np.random.RandomState
) -> tuple[list[BinnedResiduals], list[Floats]]:
    """Draw the noise of the bins of two models on the same rows, whose number of bins must be the same.

    Returns the residuals of each model and of their difference bin by bin, and normal noise for these three.
    The difference does not vary where both models say the same.
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
        # An exception where both are right, or both wrong, is one for both.
        unseen.append(weight * np.where(correct > 0, 1.0, -1.0) * scale[rows.bin_of])

    def total(i: int, j: int, parts: list[list[Floats]]) -> Floats:
        products = np.sum([part[i] * part[j] for part in parts], axis=0)
        return np.bincount(cell, weights=products).astype(np.float64)

    def apart(deviation: list[Floats], parts: list[list[Floats]]) -> Floats:
        same = places[0] == places[1]
        shared = np.bincount(places[0][same], weights=total(0, 1, parts)[same], minlength=n_bins)
        both = deviation[0] ** 2 + deviation[1] ** 2
        # What is left where both models say the same is rounding.
        return np.sqrt(np.where(both - 2.0 * shared > 1e-12 * both, both - 2.0 * shared, 0.0))

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
