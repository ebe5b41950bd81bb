"""Validation of probabilities, logits and weights."""

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

# A float32 softmax may exceed 1 by about 1e-7 through rounding; values further out are errors.
_RANGE_TOLERANCE = 1e-6
# Blocks of this size stay in the processor cache, so that several passes over one are cheap.
BLOCK_ENTRIES = 2**17
# Squares and quotients of weights within these bounds neither overflow nor underflow.
_SMALLEST_WEIGHT, _LARGEST_WEIGHT = 1e-100, 1e100


class Scan(NamedTuple):
    """Results of one pass over the probabilities."""

    first_choice: NDArray[np.intp]
    confidence: Floats
    worst_row_sum: float  # largest absolute difference between a row sum and 1


def row_slices(n_rows: int, width: int, block_entries: int = BLOCK_ENTRIES) -> Iterator[slice]:
    """Split rows into blocks of about `block_entries` entries.

    Parameters
    ----------
    n_rows, width : int
        Shape of the matrix.

    block_entries : int, default=131072
        Approximate number of entries per block.

    Yields
    ------
    rows : slice
        Rows of one block.
    """
    step = max(1, block_entries // max(1, width))
    for start in range(0, n_rows, step):
        yield slice(start, start + step)


def read_matrix(y_true: ArrayLike, values: ArrayLike, name: str) -> tuple[NDArray[Any], NDArray[np.floating]]:
    """Convert labels and one row of numbers for each to arrays, without checking the values.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.

    values : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities or logits.

    name : str
        Name of the values in error messages.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        Labels.

    values : ndarray of shape (n_samples, n_classes) or (n_samples,)
        In float64, float32 or float16.

    Raises
    ------
    ValueError
        If there are no rows, or the shapes are inconsistent.
    """
    values = to_numpy(values)
    if np.ndim(values) not in (1, 2):
        got = f"an array of shape {np.shape(values)}" if np.ndim(values) else repr(values)
        raise ValueError(
            f"{name} must have one row per sample; got {got}. "
            "For a single sample, pass [[p_1, p_2, ...]] with one probability or logit per class."
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
            f"y_true and {name} have inconsistent numbers of samples: {len(y)} labels and {len(matrix)} rows."
        )
    return y, matrix


def read_weight(sample_weight: ArrayLike | None, n_samples: int) -> tuple[NDArray[np.intp] | None, Floats]:
    """Return the rows of positive weight, or None if all have one, and their weights.

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
        Their weights. Very large or small ones are scaled by a power of two, so that squares neither
        overflow nor underflow; metrics depend only on the ratios of the weights.

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
    """Check the range, and find the predicted column, its probability and the worst row sum.

    Parameters
    ----------
    prob : ndarray of shape (n_samples, n_classes) or (n_samples,)
        Probabilities.

    kept : ndarray of shape (n_kept,) or None
        Rows to read; None for all.

    rank : ndarray of shape (n_classes,) or None
        The position of the label of each column in sorted order; None if labels are sorted. Ties are
        resolved in favor of the label that sorts first.

    Returns
    -------
    scan : Scan
        One entry for each row that was read.

    Raises
    ------
    ValueError
        If a value is not in [0, 1].
    """
    n_rows = len(prob) if kept is None else len(kept)
    first_choice = np.empty(n_rows, dtype=np.intp)
    confidence = np.empty(n_rows)
    worst = 0.0
    for rows in row_slices(n_rows, 1 if prob.ndim == 1 else prob.shape[1]):
        block = prob[rows] if kept is None else prob[kept[rows]]
        # Arithmetic in half precision is slow, and 1 - p loses digits in single precision.
        if block.dtype == np.float16 or prob.ndim == 1:
            block = block.astype(np.float64)
        _check_range(block)
        if prob.ndim == 1:
            # At exactly 0.5, the label that sorts first is predicted.
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
    """Resolve ties of the largest probability, in place, in favor of the label that sorts first."""
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
            "~np.isfinite(y_prob).all(axis=1), and drop them or fix the step that produced them."
        )
    raise ValueError(
        f"y_prob must lie in [0, 1]; got values from {low:.6g} to {high:.6g}. "
        "If these are logits, pass scipy.special.softmax(logits, axis=1)."
    )
