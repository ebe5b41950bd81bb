"""Sample weights. Rows of weight zero are dropped before validation, so their values are ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._arrays import plain_labels, to_numpy
from clipcal._compat import _check_sample_weight, _num_samples, _safe_indexing

__all__ = [
    "check_weight",
    "distinct_labels",
    "rows_that_count",
    "rows_to_score",
    "splits_among",
    "take_rows",
]


def check_weight(sample_weight: ArrayLike | None, n_samples: int) -> NDArray[np.float64]:
    """Validate sample weights.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        Weights; None for equal ones.

    n_samples : int
        Number of rows.

    Returns
    -------
    weight : ndarray of shape (n_samples,)
        Finite, non-negative weights.

    Raises
    ------
    ValueError
        If weights are negative, not finite, all zero, or of another number than the rows.
    """
    if sample_weight is None:
        return np.ones(n_samples)
    return np.asarray(
        _check_sample_weight(
            to_numpy(sample_weight), np.empty((n_samples, 1)), dtype=np.float64, ensure_non_negative=True
        )
    )


def rows_that_count(sample_weight: ArrayLike | None, n_samples: int) -> NDArray[np.intp] | None:
    """Return the indices of the rows of positive weight; None if all weights are positive.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        Weights; None for equal ones.

    n_samples : int
        Number of rows.

    Returns
    -------
    rows : ndarray of shape (n_kept,) or None
        Indices in increasing order.

    Raises
    ------
    ValueError
        If weights are negative, not finite, all zero, or of another number than the rows.
    """
    if sample_weight is None:
        return None
    weight = check_weight(sample_weight, n_samples)
    return None if weight.all() else np.flatnonzero(weight)


def take_rows(rows: NDArray[np.intp] | None, *arrays: Any) -> tuple[Any, ...]:
    """Select rows of several arrays, without reading images.

    Parameters
    ----------
    rows : ndarray of shape (n_kept,) or None
        Indices; None for all rows.

    *arrays : indexable of length n_samples, or None
        The arrays; None stays None.

    Returns
    -------
    taken : tuple
        The selected rows of each array.
    """
    if rows is None:
        return arrays
    return tuple(None if values is None else _safe_indexing(values, rows) for values in arrays)


def rows_to_score(X: Any, y: ArrayLike, sample_weight: ArrayLike | None) -> tuple[Any, Any, Any]:
    """Return the rows of positive weight, on which a fitted classifier is scored.

    Parameters
    ----------
    X : indexable of length n_samples
        Input samples.

    y : array-like of shape (n_samples,)
        True labels, in any type of array.

    sample_weight : array-like of shape (n_samples,) or None
        Weights; None for equal ones.

    Returns
    -------
    X, y, sample_weight : indexable
        Rows of positive weight.

    Raises
    ------
    ValueError
        If weights are negative, not finite, all zero, or of another number than the rows.
    """
    y, weight = plain_labels(y), to_numpy(sample_weight)
    return take_rows(rows_that_count(weight, _num_samples(y)), X, y, weight)  # type: ignore[return-value]


def splits_among(cv: Any, rows: NDArray[np.intp] | None, n_samples: int) -> Any:
    """Restrict precomputed splits to the kept rows.

    Parameters
    ----------
    cv : object
        Argument of ``sklearn.model_selection.check_cv``. Only an iterable of splits is changed.

    rows : ndarray of shape (n_kept,) or None
        Indices of the kept rows, in increasing order; None if all rows are kept.

    n_samples : int
        Number of rows before the selection.

    Returns
    -------
    cv : object
        Splits with indices of kept rows. Splits with an empty test set are dropped.
    """
    if rows is None or cv is None or isinstance(cv, (int, str)) or hasattr(cv, "split"):
        return cv
    place = np.full(n_samples, -1)
    place[rows] = np.arange(len(rows))
    # Train and test sets may be boolean masks.
    splits = [tuple(place[part][place[part] >= 0] for part in split) for split in cv]
    return [(train, test) for train, test in splits if len(test)]


def distinct_labels(y: NDArray[Any], every_label: NDArray[Any], n_columns: int) -> NDArray[Any]:
    """Return the sorted distinct labels of the columns.

    Parameters
    ----------
    y : ndarray of shape (n_kept,)
        Labels of the rows of positive weight.

    every_label : ndarray of shape (n_samples,)
        Labels of all rows. Used if their distinct labels are as many as the columns and those of `y` are not.

    n_columns : int
        Number of columns.

    Returns
    -------
    labels : ndarray
        Sorted distinct labels.
    """
    labels = np.unique(y)
    if len(labels) == n_columns or len(y) == len(every_label):
        return labels
    try:
        all_labels = np.unique(every_label)
    except TypeError:  # rows of weight zero may have labels of mixed types, or missing labels
        return labels
    return all_labels if len(all_labels) == n_columns else labels
