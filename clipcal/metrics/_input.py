"""Rows of numbers and their weights, checked but not yet understood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from clipcal._arrays import to_numpy
from clipcal._weights import check_weight
from clipcal.metrics._labels import read_labels

__all__ = ["BLOCK_ENTRIES", "Scan", "read_matrix", "read_weight", "row_slices", "scan_rows"]

Floats = NDArray[np.float64]

# Rounding pushes float32 softmax outputs past 1 by about 1e-7; anything further out is not a probability.
_RANGE_TOLERANCE = 1e-6
# Rows are read in blocks that stay in the processor's cache, so that several passes cost one.
BLOCK_ENTRIES = 2**17
# Squares and quotients of weights within these bounds stay far from overflow and underflow.
_SMALLEST_WEIGHT, _LARGEST_WEIGHT = 1e-100, 1e100


class Scan(NamedTuple):
    """What one pass over the probabilities finds."""

    first_choice: NDArray[np.intp]
    confidence: Floats
    worst_row_sum: float  # largest distance from 1


def row_slices(n_rows: int, width: int, block_entries: int = BLOCK_ENTRIES) -> Iterator[slice]:
    """Cut rows into blocks of about so many entries.

    Parameters
    ----------
    n_rows, width : int
        Shape of the matrix.

    block_entries : int, default=131072
        About how many entries a block holds.

    Yields
    ------
    rows : slice
        Where a block stands.
    """
    step = max(1, block_entries // max(1, width))
    for start in range(0, n_rows, step):
        yield slice(start, start + step)


def read_matrix(y_true: ArrayLike, values: ArrayLike, name: str) -> tuple[NDArray[Any], NDArray[np.floating]]:
    """Read labels and one row of numbers for each, without a look at what they are.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.

    values : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities or logits.

    name : str
        What the caller calls the values.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        Labels.

    values : ndarray of shape (n_samples, n_classes) or (n_samples,)
        In float64, float32 or float16.

    Raises
    ------
    ValueError
        If there are no rows, or the shapes do not fit together.
    """
    values = to_numpy(values)
    if np.ndim(values) not in (1, 2):
        got = f"an array of shape {np.shape(values)}" if np.ndim(values) else repr(values)
        raise ValueError(
            f"{name} must hold a row for each sample; got {got}. "
            "For a single sample write [[p_1, p_2, ...]], with one probability or logit a class."
        )
    y = read_labels(y_true, "y_true")
    matrix = check_array(
        values,
        dtype=[np.float64, np.float32, np.float16],
        ensure_2d=False,
        ensure_all_finite=False,
        input_name=name,
    )
    if len(y) != len(matrix):
        raise ValueError(
            f"y_true and {name} have inconsistent numbers of samples: {len(y)} labels against "
            f"{len(matrix)} rows."
        )
    return y, matrix


def read_weight(sample_weight: ArrayLike | None, n_samples: int) -> tuple[NDArray[np.intp] | None, Floats]:
    """Return which rows count, or None if all do, and their weights.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        Weights.

    n_samples : int
        Number of rows.

    Returns
    -------
    rows : ndarray of shape (n_kept,) or None
        Positions of the rows of positive weight.

    weight : ndarray of shape (n_kept,)
        Their weights, times a power of two if they are so large or small that squares would not be
        numbers: every metric depends on their ratios alone.

    Raises
    ------
    ValueError
        If weights are negative, not finite, or all zero.
    """
    if sample_weight is None:
        return None, np.ones(n_samples)
    weight = check_weight(sample_weight, n_samples)
    largest = float(weight.max())
    if not _SMALLEST_WEIGHT <= largest <= _LARGEST_WEIGHT:
        with np.errstate(under="ignore"):
            weight = np.ldexp(weight, -np.frexp(largest)[1])
    rows = np.flatnonzero(weight)
    return (None, weight) if len(rows) == n_samples else (rows, weight[rows])


def scan_rows(
    prob: NDArray[np.floating], kept: NDArray[np.intp] | None, rank: NDArray[np.intp] | None
) -> Scan:
    """Check the range, and find the first choice, its probability and the worst sum of a row.

    Parameters
    ----------
    prob : ndarray of shape (n_samples, n_classes) or (n_samples,)
        Probabilities.

    kept : ndarray of shape (n_kept,) or None
        Which rows to look at; None for all.

    rank : ndarray of shape (n_classes,) or None
        The place of each column's label in sorted order; None if they are sorted. Of equal largest
        probabilities, the one whose label sorts first is chosen.

    Returns
    -------
    scan : Scan
        One entry for each row that was looked at.

    Raises
    ------
    ValueError
        If a value is no probability.
    """
    n_rows = len(prob) if kept is None else len(kept)
    first_choice = np.empty(n_rows, dtype=np.intp)
    confidence = np.empty(n_rows)
    worst = 0.0
    for rows in row_slices(n_rows, 1 if prob.ndim == 1 else prob.shape[1]):
        block = prob[rows] if kept is None else prob[kept[rows]]
        if block.dtype == np.float16 or prob.ndim == 1:  # half precision is slow, and 1 - p would round
            block = block.astype(np.float64)
        _check_range(block)
        if prob.ndim == 1:
            # At one half the label that sorts first wins.
            first_choice[rows] = block > 0.5 if rank is None else block >= 0.5
            confidence[rows] = np.maximum(block, 1.0 - block)
        else:
            chosen = block.argmax(axis=1)
            highest = np.take_along_axis(block, chosen[:, None], axis=1)
            if rank is not None:
                _break_ties(block, chosen, highest, rank)
            first_choice[rows] = chosen
            confidence[rows] = highest[:, 0]
            worst = max(worst, float(np.abs(block.sum(axis=1) - 1.0).max()))
    return Scan(first_choice, np.clip(confidence, 0.0, 1.0, out=confidence), worst)


def _break_ties(
    block: NDArray[np.floating],
    chosen: NDArray[np.intp],
    highest: NDArray[np.floating],
    rank: NDArray[np.intp],
) -> None:
    """Of equal largest probabilities choose, in place, the one whose label sorts first."""
    others = block.copy()
    others[np.arange(len(block)), chosen] = -1.0
    tied = np.flatnonzero(others.max(axis=1) == highest[:, 0])
    if tied.size:
        chosen[tied] = np.where(block[tied] == highest[tied], rank, len(rank)).argmin(axis=1)


def _check_range(block: NDArray[np.floating]) -> None:
    low, high = block.min(), block.max()
    if low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE:
        return
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            "Input y_prob contains NaN or infinity. Find such rows with "
            "~np.isfinite(y_prob).all(axis=1), and drop them or mend what produced them."
        )
    raise ValueError(
        f"y_prob must lie in [0, 1]; got values from {low:.6g} to {high:.6g}. "
        "If these are logits, pass scipy.special.softmax(logits, axis=1)."
    )
