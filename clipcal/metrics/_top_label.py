"""From labels and probabilities to what calibration is measured on.

Every metric, scorer and plot reads its input here, so all of them accept and refuse the same things.
"""

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

# A float16 softmax misses a row sum of 1 by 4e-4.
_ROW_SUM_TOLERANCE = 1e-3
# What reads all columns would count the surplus itself as an error.
_ROW_SUM_LIMIT = 1e-2


class TopLabel(NamedTuple):
    """What the model said about its first choice, row by row (rows of weight zero are left out)."""

    confidence: Floats
    correct: Floats
    weight: Floats


class ClassProbabilities(NamedTuple):
    """What the model said about every class, row by row (rows of weight zero are left out)."""

    labels: NDArray[Any]  # one a column, in the caller's order
    prob: NDArray[np.floating]  # (n_samples, n_classes), in the caller's order and precision
    true_column: NDArray[np.intp]
    weight: Floats


class Reading(NamedTuple):
    """Input that has been checked; the readers below take it in place of probabilities."""

    y: NDArray[Any]  # of the rows that count, as are the next two
    weight: Floats
    scan: Scan
    columns: Columns
    prob: NDArray[np.floating]  # of all rows, as they came
    rows: NDArray[np.intp] | None  # which of them count; None if all do

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
        """Refuse rows whose sum an error over all classes would count as an error, and warn of others."""
        worst = self.scan.worst_row_sum
        if worst > _ROW_SUM_LIMIT:
            raise ValueError(
                f"The rows of y_prob must sum to 1, but one misses it by {worst:.3g}. "
                "Divide each row by its sum: y_prob / y_prob.sum(axis=1, keepdims=True)."
            )
        if warn:
            self.warn_of_row_sums("The probabilities are used as they are")

    def warn_of_row_sums(self, consequence: str = "The confidences are used as they are") -> None:
        """Warn of rows that do not sum to 1."""
        if self.scan.worst_row_sum > _ROW_SUM_TOLERANCE:
            warn_caller(
                f"The rows of y_prob should sum to 1, but one misses it by {self.scan.worst_row_sum:.3g}. "
                f"{consequence}; divide each row by its sum if that is not what you mean."
            )


def read_top_label(
    y_true: ArrayLike,
    y_prob: ArrayLike | Reading,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> TopLabel:
    """Check the input of a top-label metric and reduce it to confidence, correctness and weight.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` is legal and counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,), or Reading
        Probabilities; a 1-D array holds those of the second of two classes. With a `Reading` the other
        arguments are not looked at, and nothing is warned of again.

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
    """Check the input of a metric that looks at the probability of every class.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels, all of them in `labels`.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,), or Reading
        Probabilities; a 1-D array holds those of the second of two classes. With a `Reading` the other
        arguments are not looked at, and nothing is warned of again.

    labels : array-like of shape (n_classes,), default=None
        The label of each column. By default the sorted distinct values of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    classes : ClassProbabilities
        Labels and probabilities in the order and in the precision that they came in (use
        :func:`row_blocks` to walk them in float64), the column of each true label, and weights.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, does not fit together, or holds
        a true label without a column, or if a row's sum is further than 0.01 from 1.
    """
    if isinstance(y_prob, Reading):
        reading = y_prob
    else:
        reading = read_input(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    true_column = find_columns(
        reading.y,
        reading.columns,
        "This number needs the probability of each true class; leave these rows out, or use a top-label "
        "metric.",
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
    """Check all there is to check without a word about row sums; rows of weight zero are not looked at.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities; a 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column. By default the sorted distinct values of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    reading : Reading
        What was found.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together.
    """
    all_labels, prob = read_matrix(y_true, y_prob, "y_prob")
    rows, weight = read_weight(sample_weight, len(all_labels))
    y = all_labels if rows is None else all_labels[rows]
    columns = read_columns(y, all_labels, y_prob, prob.shape, labels)
    return Reading(y, weight, scan_rows(prob, rows, columns.rank), columns, prob, rows)


def row_blocks(
    prob: NDArray[np.floating], block_entries: int = BLOCK_ENTRIES
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
    for rows in row_slices(len(prob), prob.shape[1], block_entries):
        block = prob[rows].astype(np.float64, order="C")
        yield rows, np.clip(block, 0.0, 1.0, out=block)
