"""From labels and probabilities to what calibration is measured on.

Every metric, scorer and plot reads its input here, so all of them accept and refuse the same things.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from .._compat import _check_sample_weight

__all__ = ["ClassProbabilities", "TopLabel", "read_class_probabilities", "read_top_label", "row_blocks"]

Floats = NDArray[np.float64]

# Rounding pushes float32 softmax outputs past 1 by about 1e-7; anything further out is not a probability.
_RANGE_TOLERANCE = 1e-6
# A float16 softmax misses a row sum of 1 by 4e-4.
_ROW_SUM_TOLERANCE = 1e-3
# What reads all columns would count the surplus itself as an error.
_ROW_SUM_LIMIT = 1e-2
# Rows are read in blocks that stay in the processor's cache, so that several passes cost one.
_BLOCK_ENTRIES = 2**17


class TopLabel(NamedTuple):
    """What the model said about its first choice, row by row (rows of weight zero are left out)."""

    confidence: Floats
    correct: Floats
    weight: Floats


class ClassProbabilities(NamedTuple):
    """What the model said about every class, row by row (rows of weight zero are left out)."""

    labels: NDArray[Any]  # sorted, one a column
    prob: NDArray[np.floating]  # (n_samples, n_classes), in the caller's precision
    true_column: NDArray[np.intp]
    weight: Floats


class _Scan(NamedTuple):
    first_choice: NDArray[np.intp]
    confidence: Floats
    worst_row_sum: float  # largest distance from 1


def read_top_label(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> TopLabel:
    """Check the input of a top-label metric and reduce it to confidence, correctness and weight.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` is legal and counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities; a 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column. By default the sorted distinct values of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    top_label : TopLabel
        Confidence, correctness (0 or 1) and weight of each row of positive weight, in float64.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together.
    """
    y, prob, columns = _read(y_true, y_prob, labels)
    scan = _scan(prob)
    if scan.worst_row_sum > _ROW_SUM_TOLERANCE:
        _warn_of_row_sums(scan.worst_row_sum, "The confidences are used as they are")
    correct = np.asarray(columns[scan.first_choice] == y, dtype=np.float64)
    kept, weight = _read_weight(sample_weight, len(y))
    return TopLabel(scan.confidence[kept], correct[kept], weight)


def read_class_probabilities(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> ClassProbabilities:
    """Check the input of a metric that looks at the probability of every class.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels, all of them in `labels`.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities; a 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column. By default the sorted distinct values of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    classes : ClassProbabilities
        Sorted labels, probabilities in their order and in the precision that they came in (use
        :func:`row_blocks` to walk them in float64), the column of each true label, and weights.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, does not fit together, or holds
        a true label without a column, or if a row's sum is further than 0.01 from 1.
    """
    y, prob, columns = _read(y_true, y_prob, labels)
    true_column = np.minimum(np.searchsorted(columns, y), len(columns) - 1)
    absent = columns[true_column] != y
    if absent.any():
        raise ValueError(
            f"y_true holds labels without a column: {np.unique(y[absent])[:5].tolist()!r}. This number needs "
            "the probability of each true class; leave these rows out, or use a top-label metric."
        )
    worst = _scan(prob).worst_row_sum
    if worst > _ROW_SUM_LIMIT:
        raise ValueError(
            f"The rows of y_prob must sum to 1, but one misses it by {worst:.3g}. "
            "Divide each row by its sum: y_prob / y_prob.sum(axis=1, keepdims=True)."
        )
    if worst > _ROW_SUM_TOLERANCE:
        _warn_of_row_sums(worst, "The probabilities are used as they are")
    if prob.ndim == 1:
        prob = prob.astype(np.float64)
        prob = np.column_stack([1.0 - prob, prob])
    kept, weight = _read_weight(sample_weight, len(y))
    return ClassProbabilities(columns, prob[kept], true_column[kept], weight)


def row_blocks(
    prob: NDArray[np.floating], block_entries: int = _BLOCK_ENTRIES
) -> Iterator[tuple[slice, Floats]]:
    """Walk a matrix of probabilities in blocks of rows that fit the cache, in float64 and in [0, 1].

    Parameters
    ----------
    prob : ndarray of shape (n_samples, n_classes)
        Probabilities that have been checked.

    block_entries : int, default=131072
        About how many entries a block holds.

    Yields
    ------
    rows : slice
        Where the block stands.

    block : ndarray of shape (n_rows, n_classes)
        A copy of these rows in C order, clipped to [0, 1].
    """
    for rows in _row_slices(prob, block_entries):
        block = prob[rows].astype(np.float64, order="C")
        yield rows, np.clip(block, 0.0, 1.0, out=block)


def _row_slices(prob: NDArray[Any], block_entries: int) -> Iterator[slice]:
    width = 1 if prob.ndim == 1 else max(1, prob.shape[1])
    step = max(1, block_entries // width)
    for start in range(0, len(prob), step):
        yield slice(start, start + step)


def _read(
    y_true: ArrayLike, y_prob: ArrayLike, labels: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[np.floating], NDArray[Any]]:
    """Return true labels, probabilities (1-D as they came) and the sorted label of each column."""
    y = column_or_1d(y_true)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("y_true contains NaN or infinity. Drop those rows, or give them a label.")
    prob = check_array(
        y_prob,
        dtype=[np.float64, np.float32, np.float16],
        ensure_2d=False,
        ensure_all_finite=False,
        input_name="y_prob",
    )
    check_consistent_length(y, prob)
    columns, order = _columns(y, 2 if prob.ndim == 1 else prob.shape[1], labels)
    if order is not None:
        prob = prob[:, order] if prob.ndim == 2 else 1.0 - prob.astype(np.float64)
    return y, prob, columns


def _read_weight(sample_weight: ArrayLike | None, n_samples: int) -> tuple[Any, Floats]:
    """Return the index of the rows that count, and their weights."""
    if sample_weight is None:
        return slice(None), np.ones(n_samples)
    weight = _check_sample_weight(
        sample_weight, np.empty((n_samples, 1)), dtype=np.float64, ensure_non_negative=True
    )
    if not weight.any():
        raise ValueError("All entries of sample_weight are zero; at least one row must count.")
    kept = weight > 0
    return kept, weight[kept]


def _scan(prob: NDArray[np.floating]) -> _Scan:
    """Check the range, and return the first choice, its probability and the worst sum of a row."""
    first_choice = np.empty(len(prob), dtype=np.intp)
    confidence = np.empty(len(prob))
    worst = 0.0
    for rows in _row_slices(prob, _BLOCK_ENTRIES):
        block = prob[rows]
        if block.dtype == np.float16 or prob.ndim == 1:  # half precision is slow, and 1 - p would round
            block = block.astype(np.float64)
        _check_range(block)
        if prob.ndim == 1:
            first_choice[rows] = block > 0.5
            confidence[rows] = np.maximum(block, 1.0 - block)
        else:
            chosen = block.argmax(axis=1)
            first_choice[rows] = chosen
            confidence[rows] = np.take_along_axis(block, chosen[:, None], axis=1)[:, 0]
            worst = max(worst, float(np.abs(block.sum(axis=1) - 1.0).max()))
    return _Scan(first_choice, np.clip(confidence, 0.0, 1.0, out=confidence), worst)


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


def _warn_of_row_sums(worst: float, consequence: str) -> None:
    warnings.warn(
        f"The rows of y_prob should sum to 1, but one misses it by {worst:.3g}. {consequence}; "
        "divide each row by its sum if that is not what you mean.",
        UserWarning,
        stacklevel=5,
    )


def _columns(
    y: NDArray[Any], n_columns: int, labels: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[np.intp] | None]:
    """Return sorted column labels, and the order that sorts them if they are not sorted already."""
    if labels is None:
        columns = np.unique(y)
        if len(columns) != n_columns:
            raise ValueError(
                f"y_prob has {n_columns} columns but y_true holds {len(columns)} distinct labels, so the "
                "columns cannot be told apart. Pass labels=estimator.classes_."
            )
        return columns, None

    columns = column_or_1d(labels)
    if len(columns) != n_columns:
        raise ValueError(
            f"labels names {len(columns)} classes but y_prob has {n_columns} columns. "
            "Pass one label for each column, such as labels=estimator.classes_."
        )
    order = np.argsort(columns, kind="stable")
    columns = columns[order]
    if (columns[1:] == columns[:-1]).any():
        raise ValueError(f"labels must be distinct; got {column_or_1d(labels).tolist()!r}.")
    if _is_text(columns) != _is_text(y):
        raise ValueError(
            f"y_true and labels are of different kinds: {y[0]!r} against {columns[0]!r}. "
            "Pass both as text or both as numbers."
        )
    return columns, None if (order == np.arange(len(order))).all() else order


def _is_text(values: NDArray[Any]) -> bool:
    if values.dtype.kind == "O":
        return isinstance(values[0], str)
    return values.dtype.kind in "UST"
