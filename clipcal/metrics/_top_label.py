"""Validation of labels and probabilities, shared by all metrics, scorers and plots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._caller import warn_caller
from clipcal.metrics._input import BLOCK_ENTRIES, Scan, read_matrix, read_weight, row_slices, scan_rows
from clipcal.metrics._labels import Columns, find_columns, read_columns

__all__ = [
    "ClassProbabilities",
    "Reading",
    "TopLabel",
    "read_class_probabilities",
    "read_input",
    "read_top_label",
    "row_blocks",
]

Floats = NDArray[np.float64]

# Row sums of a float16 softmax differ from 1 by up to 4e-4.
_ROW_SUM_TOLERANCE = 1e-3
# Metrics over all classes would count a larger difference as error.
_ROW_SUM_LIMIT = 1e-2


class TopLabel(NamedTuple):
    """Confidence, correctness (0 or 1) and weight of each row; rows of weight zero are dropped."""

    confidence: Floats
    correct: Floats
    weight: Floats


class ClassProbabilities(NamedTuple):
    """Probabilities of all classes for each row; rows of weight zero are dropped."""

    labels: NDArray[Any]  # one per column, in the order of the input
    prob: NDArray[np.floating]  # (n_samples, n_classes), with the order and precision of the input
    true_column: NDArray[np.intp]
    weight: Floats


class Reading(NamedTuple):
    """Validated input; the functions below accept it in place of probabilities."""

    y: NDArray[Any]  # rows of positive weight only, like weight and scan
    weight: Floats
    scan: Scan
    columns: Columns
    prob: NDArray[np.floating]  # all rows of the input
    rows: NDArray[np.intp] | None  # rows of positive weight; None for all

    @property
    def top_label(self) -> TopLabel:
        """Confidence, correctness and weight of each row."""
        correct = self.columns.labels[self.scan.first_choice] == self.y
        return TopLabel(self.scan.confidence, np.asarray(correct, dtype=np.float64), self.weight)

    def column(self, position: int) -> Floats:
        """Probabilities of one class."""
        column = self.prob if self.prob.ndim == 1 else self.prob[:, position]
        forecast = (column if self.rows is None else column[self.rows]).astype(np.float64)
        if self.prob.ndim == 1 and position == 0:
            forecast = 1.0 - forecast
        return np.clip(forecast, 0.0, 1.0, out=forecast)

    def check_row_sums(self, *, warn: bool = True) -> None:
        """Raise an error for row sums that are far from 1, and warn of smaller differences."""
        worst = self.scan.worst_row_sum
        if worst > _ROW_SUM_LIMIT:
            raise ValueError(
                f"The rows of y_prob must sum to 1, but the sum of one differs by {worst:.3g}. "
                "Divide each row by its sum: y_prob / y_prob.sum(axis=1, keepdims=True)."
            )
        if warn:
            self.warn_of_row_sums("The probabilities are used unchanged")

    def warn_of_row_sums(self, consequence: str = "The confidences are used unchanged") -> None:
        """Warn of rows that do not sum to 1."""
        if self.scan.worst_row_sum > _ROW_SUM_TOLERANCE:
            warn_caller(
                "The rows of y_prob should sum to 1, but the sum of one differs by "
                f"{self.scan.worst_row_sum:.3g}. {consequence}; divide each row by its sum if this is not "
                "intended."
            )


def read_top_label(
    y_true: ArrayLike,
    y_prob: ArrayLike | Reading,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> TopLabel:
    """Validate the input of a top-label metric and reduce it to confidence, correctness and weight.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,), or Reading
        Probabilities; a 1-D array holds those of the second of two classes. With a `Reading`, the other
        arguments are ignored, and warnings are not repeated.

    labels : array-like of shape (n_classes,), default=None
        The label of each column. By default, the sorted unique values of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    top_label : TopLabel
        Confidence, correctness (0 or 1) and weight of each row of positive weight, in float64.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.
    """
    if isinstance(y_prob, Reading):
        return y_prob.top_label
    reading = read_input(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    reading.warn_of_row_sums()
    return reading.top_label


def read_class_probabilities(
    y_true: ArrayLike,
    y_prob: ArrayLike | Reading,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> ClassProbabilities:
    """Validate the input of a metric over the probabilities of all classes.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels, all of them in `labels`.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,), or Reading
        Probabilities; a 1-D array holds those of the second of two classes. With a `Reading`, the other
        arguments are ignored, and warnings are not repeated.

    labels : array-like of shape (n_classes,), default=None
        The label of each column. By default, the sorted unique values of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    classes : ClassProbabilities
        Labels and probabilities with the order and precision of the input (use :func:`row_blocks` to
        iterate over them in float64), the column of each true label, and weights.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels,
        if a true label has no column, or if the sum of a row differs from 1 by more than 0.01.
    """
    if isinstance(y_prob, Reading):
        reading = y_prob
    else:
        reading = read_input(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    true_column = find_columns(
        reading.y,
        reading.columns,
        "This metric needs the probability of each true class. Drop these rows, or use a top-label metric.",
    )
    reading.check_row_sums(warn=reading is not y_prob)
    prob = reading.prob if reading.rows is None else reading.prob[reading.rows]
    if prob.ndim == 1:
        prob = prob.astype(np.float64)
        prob = np.column_stack([1.0 - prob, prob])
    return ClassProbabilities(reading.columns.labels, prob, true_column, reading.weight)


def read_input(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> Reading:
    """Validate labels, probabilities and weights, except row sums; rows of weight zero are ignored.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities; a 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column. By default, the sorted unique values of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    reading : Reading
        The validated input.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.
    """
    all_labels, prob = read_matrix(y_true, y_prob, "y_prob")
    rows, weight = read_weight(sample_weight, len(all_labels))
    y = all_labels if rows is None else all_labels[rows]
    columns = read_columns(y, all_labels, y_prob, prob.shape, labels)
    return Reading(y, weight, scan_rows(prob, rows, columns.rank), columns, prob, rows)


def row_blocks(
    prob: NDArray[np.floating], block_entries: int = BLOCK_ENTRIES
) -> Iterator[tuple[slice, Floats]]:
    """Iterate over probabilities in blocks of rows that fit the cache, as float64 in [0, 1].

    Parameters
    ----------
    prob : ndarray of shape (n_samples, n_classes)
        Validated probabilities.

    block_entries : int, default=131072
        Approximate number of entries per block.

    Yields
    ------
    rows : slice
        Rows of the block.

    block : ndarray of shape (n_rows, n_classes)
        A copy of these rows in C order, clipped to [0, 1].
    """
    for rows in row_slices(len(prob), prob.shape[1], block_entries):
        block = prob[rows].astype(np.float64, order="C")
        yield rows, np.clip(block, 0.0, 1.0, out=block)
