"""A row of weight zero is as good as absent: what is wrong with it, or only in it, must not matter."""

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
    """Return one weight for each row.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        Weights; None for equal ones.

    n_samples : int
        Number of rows.

    Returns
    -------
    weight : ndarray of shape (n_samples,)
        Finite and non-negative.

    Raises
    ------
    ValueError
        If weights are negative, not finite, of another number, or all zero.
    """
    if sample_weight is None:
        return np.ones(n_samples)
    return np.asarray(
        _check_sample_weight(
            to_numpy(sample_weight), np.empty((n_samples, 1)), dtype=np.float64, ensure_non_negative=True
        )
    )


def rows_that_count(sample_weight: ArrayLike | None, n_samples: int) -> NDArray[np.intp] | None:
    """Return the positions of the rows of positive weight; None if that is all of them.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        Weights; None for equal ones.

    n_samples : int
        Number of rows.

    Returns
    -------
    rows : ndarray of shape (n_kept,) or None
        In rising order.

    Raises
    ------
    ValueError
        If weights are negative, not finite, of another number, or all zero.
    """
    if sample_weight is None:
        return None
    weight = check_weight(sample_weight, n_samples)
    return None if weight.all() else np.flatnonzero(weight)


def take_rows(rows: NDArray[np.intp] | None, *arrays: Any) -> tuple[Any, ...]:
    """Return some rows of whatever has an entry for each row; images need not be read for this.

    Parameters
    ----------
    rows : ndarray of shape (n_kept,) or None
        Positions; None for all rows.

    *arrays : indexable of length n_samples, or None
        What to take from; None stays None.

    Returns
    -------
    taken : tuple
        One entry for each of `arrays`.
    """
    if rows is None:
        return arrays
    return tuple(None if values is None else _safe_indexing(values, rows) for values in arrays)


def rows_to_score(X: Any, y: ArrayLike, sample_weight: ArrayLike | None) -> tuple[Any, Any, Any]:
    """Return what a fitted classifier is to be scored on: the rows of positive weight.

    Parameters
    ----------
    X : indexable of length n_samples
        What it predicts for.

    y : array-like of shape (n_samples,)
        True labels, in any type of array.

    sample_weight : array-like of shape (n_samples,) or None
        Weights; None for equal ones.

    Returns
    -------
    X, y, sample_weight : indexable
        Of the rows that count.

    Raises
    ------
    ValueError
        If weights are negative, not finite, of another number, or all zero.
    """
    y, weight = plain_labels(y), to_numpy(sample_weight)
    return take_rows(rows_that_count(weight, _num_samples(y)), X, y, weight)  # type: ignore[return-value]


def splits_among(cv: Any, rows: NDArray[np.intp] | None, n_samples: int) -> Any:
    """Turn given splits of all rows into splits of those that are left.

    Parameters
    ----------
    cv : object
        What ``sklearn.model_selection.check_cv`` takes. Only an iterable of splits holds numbers of rows.

    rows : ndarray of shape (n_kept,) or None
        The rows that are left, in rising order; None if that is all of them.

    n_samples : int
        Number of rows that splits speak of.

    Returns
    -------
    cv : object
        The same for the rows that are left. Splits without any of them to test are left out.
    """
    if rows is None or cv is None or isinstance(cv, (int, str)) or hasattr(cv, "split"):
        return cv
    place = np.full(n_samples, -1)
    place[rows] = np.arange(len(rows))
    # Parts may be masks.
    splits = [tuple(place[part][place[part] >= 0] for part in split) for split in cv]
    return [(train, test) for train, test in splits if len(test)]


def distinct_labels(y: NDArray[Any], every_label: NDArray[Any], n_columns: int) -> NDArray[Any]:
    """Return the sorted labels of the rows that count.

    Parameters
    ----------
    y : ndarray of shape (n_kept,)
        Their labels.

    every_label : ndarray of shape (n_samples,)
        Labels of all rows. If these alone are as many as columns, rows without weight name columns too.

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
    except TypeError:  # labels of several kinds, or missing ones, which do not matter there
        return labels
    return all_labels if len(all_labels) == n_columns else labels
