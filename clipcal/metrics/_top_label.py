"""From labels and probabilities to the three columns that calibration is measured on.

Every metric, scorer and plot reads its input here, so all of them accept and refuse the same things.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from .._compat import _check_sample_weight

__all__ = ["TopLabel", "read_top_label"]

# Rounding pushes float32 softmax outputs past 1 by about 1e-7; anything further out is not a probability.
_RANGE_TOLERANCE = 1e-6
# A float16 softmax misses a row sum of 1 by 4e-4.
_ROW_SUM_TOLERANCE = 1e-3


class TopLabel(NamedTuple):
    """What the model said about its first choice, row by row (rows of weight zero are left out)."""

    confidence: NDArray[np.float64]
    correct: NDArray[np.float64]
    weight: NDArray[np.float64]


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
    y = _read_labels(y_true)
    prob = _read_probabilities(y_prob)
    check_consistent_length(y, prob)
    columns, prob = _order_columns(y, prob, labels)

    first_choice = prob.argmax(axis=1)
    confidence = prob[np.arange(len(prob)), first_choice]
    correct = np.asarray(columns[first_choice] == y, dtype=np.float64)
    if sample_weight is None:
        return TopLabel(confidence, correct, np.ones(len(y)))

    weight = _check_sample_weight(sample_weight, prob, dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("All entries of sample_weight are zero; at least one row must count.")
    kept = weight > 0
    return TopLabel(confidence[kept], correct[kept], weight[kept])


def _read_labels(y_true: ArrayLike) -> NDArray[Any]:
    y = column_or_1d(y_true)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("y_true contains NaN or infinity. Drop those rows, or give them a label.")
    return y


def _read_probabilities(y_prob: ArrayLike) -> NDArray[np.float64]:
    prob = check_array(y_prob, dtype=np.float64, ensure_2d=False, input_name="y_prob")
    if prob.min() < -_RANGE_TOLERANCE or prob.max() > 1 + _RANGE_TOLERANCE:
        raise ValueError(
            f"y_prob must lie in [0, 1]; got values from {prob.min():.6g} to {prob.max():.6g}. "
            "If these are logits, pass scipy.special.softmax(logits, axis=1)."
        )
    prob = np.clip(prob, 0.0, 1.0)
    if prob.ndim == 1:
        return np.column_stack([1.0 - prob, prob])
    worst = np.abs(prob.sum(axis=1) - 1.0).max()
    if worst > _ROW_SUM_TOLERANCE:
        warnings.warn(
            f"The rows of y_prob should sum to 1, but one misses it by {worst:.3g}. The confidences are "
            "used as they are; divide each row by its sum if that is not what you mean.",
            UserWarning,
            stacklevel=5,
        )
    return prob


def _order_columns(
    y: NDArray[Any], prob: NDArray[np.float64], labels: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return sorted column labels and the columns in that order."""
    n_classes = prob.shape[1]
    if labels is None:
        columns = np.unique(y)
        if len(columns) != n_classes:
            raise ValueError(
                f"y_prob has {n_classes} columns but y_true holds {len(columns)} distinct labels, so the "
                "columns cannot be told apart. Pass labels=estimator.classes_."
            )
        return columns, prob

    columns = column_or_1d(labels)
    if len(columns) != n_classes:
        raise ValueError(
            f"labels names {len(columns)} classes but y_prob has {n_classes} columns. "
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
    return columns, prob[:, order]


def _is_text(values: NDArray[Any]) -> bool:
    if values.dtype.kind == "O":
        return isinstance(values[0], str)
    return values.dtype.kind in "UST"
