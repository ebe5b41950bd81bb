"""Distribution of bin residuals under the null hypothesis of a calibrated model.

Under this hypothesis each row is correct with a probability equal to its confidence, independently of the
other rows. With equal weights the distribution is computed, otherwise it is simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from clipcal.metrics._bins import Strategy, assign_bins
from clipcal.metrics._top_label import TopLabel

__all__ = ["BinnedRows", "PerfectBin", "bin_rows", "perfect_bins", "perfect_residuals", "placeholder_labels"]

Floats = NDArray[np.float64]

# Above this variance of the count, the normal approximation of E|S| has a relative error below 1 / 24,000.
_NORMAL_FROM = 1000.0
# By Bernstein's inequality, counts outside the window have a probability below 2 exp(-35), about 1e-15.
_LOG_TAIL = 35.0
# Below this probability, 16 terms of the series of the logarithm give double precision.
_RARE = 0.05
_TERMS = 16
# Number of values that are simulated at a time, which bounds the memory.
_BLOCK = 2**21


class BinnedRows(NamedTuple):
    """Rows and their bins, which depend on confidences and weights only."""

    confidence: Floats
    weight: Floats
    bin_of: NDArray[np.intp]
    n_bins: int

    @property
    def equal_weights(self) -> bool:
        """Whether all rows have the same weight."""
        return bool((self.weight == self.weight[0]).all())


class PerfectBin(NamedTuple):
    """Distribution of the number of correct rows in one bin: ``probability[j]`` is that of ``first + j``."""

    bin: int
    n_rows: int
    expected: float
    first: int
    probability: Floats

    @property
    def residuals(self) -> Floats:
        """Sum of confidences minus number of correct rows, for each possible number."""
        return self.expected - np.arange(self.first, self.first + len(self.probability), dtype=np.float64)


def placeholder_labels(y_prob: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return placeholder labels of rows and columns, for reading probabilities without true labels."""
    shape = np.shape(y_prob)
    return np.zeros(shape[0] if shape else 1, dtype=np.intp), np.arange(shape[1] if len(shape) == 2 else 2)


def bin_rows(top_label: TopLabel, *, n_bins: int, strategy: Strategy = "uniform") -> BinnedRows:
    """Assign rows to bins, with the edges of `bin_top_label`."""
    edges, index = assign_bins(top_label, n_bins=n_bins, strategy=strategy)
    return BinnedRows(top_label.confidence, top_label.weight, index, len(edges) - 1)


def perfect_bins(rows: BinnedRows) -> Iterator[PerfectBin]:
    """Yield the distribution of the number of correct rows of each non-empty bin, for equal weights."""
    order = np.argsort(rows.bin_of, kind="stable")
    bins, starts = np.unique(rows.bin_of[order], return_index=True)
    for bin_, confidence in zip(bins, np.split(rows.confidence[order], starts[1:]), strict=True):
        first, probability = _count_correct(confidence)
        yield PerfectBin(int(bin_), len(confidence), float(confidence.sum()), first, probability)


def perfect_residuals(rows: BinnedRows, n_draws: int, generator: np.random.RandomState) -> Iterator[Floats]:
    """Draw bin residuals, as fractions of the total weight, in blocks of shape (n_block, n_bins)."""
    if not rows.equal_weights:
        yield from _weighted_residuals(rows, n_draws, generator)
        return
    n_rows = len(rows.weight)
    laws = [(law.bin, law.residuals / n_rows, np.cumsum(law.probability)) for law in perfect_bins(rows)]
    for size in _block_sizes(n_draws, rows.n_bins):
        drawn = np.zeros((size, rows.n_bins))
        for bin_, residuals, cumulative in laws:
            place = np.searchsorted(cumulative, generator.random_sample(size) * cumulative[-1], side="right")
            drawn[:, bin_] = residuals[np.minimum(place, len(residuals) - 1)]
        yield drawn


def _block_sizes(n_draws: int, width: int) -> list[int]:
    block = max(1, _BLOCK // max(1, width))
    return [min(block, n_draws - start) for start in range(0, n_draws, block)]


def _weighted_residuals(rows: BinnedRows, n_draws: int, generator: np.random.RandomState) -> Iterator[Floats]:
    confidence, weight, bin_of, n_bins = rows
    variance = np.bincount(bin_of, weights=weight**2 * confidence * (1 - confidence), minlength=n_bins)
    largest = np.zeros(n_bins)
    np.maximum.at(largest, bin_of, weight)
    normal = variance > _NORMAL_FROM * largest**2
    deviation = np.sqrt(variance[normal])

    # A draw for each row would be slow. For rows with a small probability of their unlikely outcome (wrong
    # for a confident row, correct otherwise), only the rare events are drawn.
    one_by_one = ~normal[bin_of]
    p_unlikely = np.minimum(confidence, 1.0 - confidence)
    rare = np.flatnonzero(one_by_one & (p_unlikely <= _RARE))
    common = np.flatnonzero(one_by_one & (p_unlikely > _RARE))
    common = common[np.argsort(bin_of[common], kind="stable")]
    common_bins, starts = np.unique(bin_of[common], return_index=True)
    step = np.where(confidence[rare] >= 0.5, weight[rare], -weight[rare])
    expected = weight[rare] * (confidence[rare] - (confidence[rare] >= 0.5))
    likely_residual = np.bincount(bin_of[rare], weights=expected, minlength=n_bins).astype(np.float64)
    rates = np.cumsum(-np.log1p(-p_unlikely[rare]))

    total_rate = float(rates[-1]) if rare.size else 0.0
    for size in _block_sizes(n_draws, n_bins + len(common) + int(total_rate)):
        drawn = np.tile(likely_residual, (size, 1))
        drawn[:, normal] = generator.standard_normal((size, len(deviation))) * deviation
        if total_rate > 0:
            draw, row = _draw_unlikely(rates, size, generator)
            drawn += np.bincount(
                draw * n_bins + bin_of[rare[row]], weights=step[row], minlength=size * n_bins
            ).reshape(size, n_bins)
        if common.size:
            correct = generator.random_sample((size, len(common))) < confidence[common]
            gaps = weight[common] * (confidence[common] - correct)
            drawn[:, common_bins] += np.add.reduceat(gaps, starts, axis=1)
        yield drawn / weight.sum()


def _draw_unlikely(
    rates: Floats, size: int, generator: np.random.RandomState
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw the rows with an unlikely outcome in each of `size` draws, in time proportional to their number.

    Events hit rows as a Poisson process. A row with rate -log(1 - p) has at least one event with
    probability p. Returns the indices of draws and of rows.
    """
    n_events = generator.poisson(size * rates[-1])
    draw = generator.randint(0, size, size=n_events)
    row = np.searchsorted(rates, generator.random_sample(n_events) * rates[-1], side="right")
    return np.divmod(np.unique(draw * len(rates) + np.minimum(row, len(rates) - 1)), len(rates))


def _count_correct(confidence: Floats) -> tuple[int, Floats]:
    """Compute the Poisson-binomial distribution of the number of correct rows.

    Returns the smallest number in the window of non-negligible counts, and the probabilities from there
    on. Unlikely outcomes are counted instead of correct rows, so that the width of the window depends on
    the variance, not on the number of rows.
    """
    confident = confidence >= 0.5
    p_unlikely = np.where(confident, 1.0 - confidence, confidence)
    variance = float((p_unlikely * (1.0 - p_unlikely)).sum())
    mean = float(p_unlikely[~confident].sum() - p_unlikely[confident].sum())
    reach = _LOG_TAIL / 3 + np.sqrt((_LOG_TAIL / 3) ** 2 + 2 * _LOG_TAIL * variance)
    least = max(int(np.floor(mean - reach)), -int((p_unlikely[confident] > 0).sum()))
    most = min(int(np.ceil(mean + reach)), int((p_unlikely[~confident] > 0).sum()))
    counts = np.arange(least, most + 1)
    if variance > _NORMAL_FROM:
        edges = (np.append(counts, most + 1) - 0.5 - mean) / np.sqrt(variance)
        probability = np.diff(ndtr(edges))
    else:
        z = np.exp(2j * np.pi * np.arange(len(counts) // 2 + 1) / len(counts))
        transform = _generating(p_unlikely[~confident], z) * np.conj(_generating(p_unlikely[confident], z))
        probability = np.roll(np.fft.hfft(transform, n=len(counts)) / len(counts), -least)
    probability = np.maximum(probability, 0.0)
    return int(confident.sum()) + least, probability / probability.sum()


def _generating(p_unlikely: Floats, z: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Compute the probability generating function of the number of unlikely outcomes, at each `z`."""
    rare = p_unlikely[p_unlikely <= _RARE]
    step = z - 1.0
    logarithm = np.zeros_like(z)
    for power in range(_TERMS, 0, -1):
        # Horner's scheme for sum_j (-1)^(j+1) step^j sum_i p_i^j / j.
        sign = 1.0 if power % 2 else -1.0
        logarithm = step * (logarithm + sign * float((rare**power).sum()) / power)
    out: NDArray[np.complex128] = np.exp(logarithm)
    common = p_unlikely[p_unlikely > _RARE]
    size = max(1, _BLOCK // (8 * len(z)))
    for start in range(0, len(common), size):
        out *= np.prod(1.0 + common[start : start + size, np.newaxis] * step, axis=0)
    return out
