"""Validation of true labels and of the labels of probability columns."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d

from clipcal._arrays import to_numpy
from clipcal._columns import check_names

__all__ = [
    "Columns",
    "check_labels",
    "check_same_kind",
    "find_columns",
    "is_missing",
    "read_columns",
    "read_labels",
]

_KIND_OF_DTYPE = {"U": "text", "T": "text", "S": "bytes", "M": "dates", "m": "durations"}
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "text"),
    (bytes, "bytes"),
    ((datetime.date, np.datetime64), "dates"),
    ((datetime.timedelta, np.timedelta64), "durations"),
    ((Number, np.bool_), "numbers"),
)


class Columns(NamedTuple):
    """The label of each column, as the caller ordered them."""

    labels: NDArray[Any]
    order: NDArray[np.intp] | None  # indices that sort the labels; None if they are sorted

    @property
    def rank(self) -> NDArray[np.intp] | None:
        """The position of each label in sorted order; None if they are sorted."""
        return None if self.order is None else np.argsort(self.order)


def read_labels(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return labels as a 1-D array, without checking the values.

    Parameters
    ----------
    values : array-like of shape (n,)
        Labels.

    name : str
        Name of the labels in error messages.

    Returns
    -------
    labels : ndarray of shape (n,)
        With the dtype of the input.

    Raises
    ------
    ValueError
        If the shape is not (n,) or (n, 1).
    """
    values = to_numpy(values)
    shape = np.shape(values)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return column_or_1d(values)
    per = "column" if name == "labels" else "row"
    raise ValueError(f"{name} must be a 1d array with one label for each {per}; got the shape {shape}.")


def check_labels(values: NDArray[Any], name: str) -> None:
    """Raise an error if labels are missing or of mixed kinds.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Labels.

    name : str
        Name of the labels in error messages.

    Raises
    ------
    ValueError
        If a label is missing, or if some are text and others numbers.
    """
    missing = _missing(values)
    if len(missing):
        what = "infinity" if values.dtype.kind in "fc" else f"another missing value, here {missing[0]!r}"
        cure = "Pass a label for each column." if name == "labels" else "Drop these rows, or label them."
        raise ValueError(f"{name} contains NaN or {what}. {cure}")
    if values.dtype.kind == "O" and len({_kind_of_type(type(value)) for value in values}) > 1:
        kinds = {_kind_of_type(type(value)): value for value in values[::-1]}
        (kind, value), (other, another) = sorted(kinds.items())[:2]
        raise ValueError(
            f"{name} mixes {kind} and {other}, such as {value!r} and {another!r}, which are never equal. "
            "Pass labels of one kind: all text, or all numbers."
        )


def check_same_kind(values: NDArray[Any], others: NDArray[Any], names: tuple[str, str]) -> None:
    """Raise an error if two arrays of labels are of different kinds.

    Parameters
    ----------
    values, others : ndarray of shape (n,)
        Non-empty arrays of labels that have passed :func:`check_labels`.

    names : tuple of two str
        Names of the arrays in error messages.

    Raises
    ------
    ValueError
        If one array holds text and the other numbers or bytes, for example.
    """
    kinds = _kind(values), _kind(others)
    if kinds[0] != kinds[1]:
        cure = "Pass both as text or both as numbers."
        if set(kinds) == {"text", "bytes"}:
            cure = "Convert bytes to text: np.char.decode(values)."
        raise ValueError(
            f"{names[0]} and {names[1]} are of different kinds: {kinds[0]} such as "
            f"{values[:1].tolist()[0]!r} and {kinds[1]} such as {others[:1].tolist()[0]!r}. {cure}"
        )


def read_columns(
    y: NDArray[Any],
    all_rows: NDArray[Any],
    y_prob: Any,
    shape: tuple[int, ...],
    labels: ArrayLike | None,
    *,
    name: str = "y_prob",
) -> Columns:
    """Determine the label of each column.

    Parameters
    ----------
    y : ndarray of shape (n_kept,)
        True labels of the rows of positive weight.

    all_rows : ndarray of shape (n_samples,)
        True labels of all rows. Rows of weight zero may contain classes that occur in no other row.

    y_prob : array-like
        Input of the caller. The column names of a data frame must not contradict the labels.

    shape : tuple of int
        Shape of the probabilities.

    labels : array-like of shape (n_classes,) or None
        Labels passed by the caller.

    name : str, default="y_prob"
        Name of the probabilities or logits in error messages.

    Returns
    -------
    columns : Columns
        A label for each column.

    Raises
    ------
    ValueError
        If the labels of the columns cannot be determined, or labels are inconsistent with `y` or `y_prob`.
    """
    check_labels(y, "y_true")
    n_columns = 2 if len(shape) == 1 else shape[1]
    if labels is None:
        columns = _default_columns(y, all_rows, shape, name)
        check_names(y_prob, columns, name, "the columns are taken to be those of the sorted labels")
        return Columns(columns, None)
    columns = read_labels(labels, "labels")
    if len(columns) != n_columns:
        raise ValueError(
            f"labels has {len(columns)} entries but {name} has {n_columns} columns. "
            "Pass one label for each column, such as labels=estimator.classes_."
        )
    check_labels(columns, "labels")
    check_same_kind(y, columns, ("y_true", "labels"))
    order = np.argsort(columns, kind="stable")
    ordered = columns[order]
    if (ordered[1:] == ordered[:-1]).any():
        raise ValueError(f"labels must be distinct; got {columns.tolist()!r}.")
    check_names(y_prob, columns, name, "labels says")
    return Columns(columns, None if (order == np.arange(len(order))).all() else order)


def find_columns(y: NDArray[Any], columns: Columns, cure: str) -> NDArray[np.intp]:
    """Return the column of each true label.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        True labels.

    columns : Columns
        The label of each column.

    cure : str
        Advice at the end of the error message.

    Returns
    -------
    true_column : ndarray of shape (n_samples,)
        Column indices.

    Raises
    ------
    ValueError
        If a label has no column.
    """
    labels, order = columns
    ordered = labels if order is None else labels[order]
    place = np.minimum(np.searchsorted(ordered, y), len(ordered) - 1)
    absent = ordered[place] != y
    if absent.any():
        raise ValueError(
            f"y_true holds labels without a column: {np.unique(y[absent])[:5].tolist()!r}. {cure}"
        )
    return place if order is None else order[place]


def _default_columns(
    y: NDArray[Any], all_rows: NDArray[Any], shape: tuple[int, ...], name: str
) -> NDArray[Any]:
    n_columns = 2 if len(shape) == 1 else shape[1]
    columns = found = np.unique(y)
    if len(columns) != n_columns and len(all_rows) > len(y) and not len(_missing(all_rows)):
        check_labels(all_rows, "y_true")
        columns = np.unique(all_rows)
    if len(columns) == n_columns:
        return columns
    if len(shape) == 1:
        number = "log-odds" if name == "logits" else "probability"
        what = f"only {found.tolist()[0]!r}" if len(found) == 1 else f"{len(found)} distinct labels"
        raise ValueError(
            f"A 1-D {name} holds the {number} of the second of two classes, but y_true has {what}. "
            "Pass labels=[first, second], such as labels=estimator.classes_."
        )
    remedy = "labels=estimator.classes_"
    if n_columns == 1 and len(found) == 2:
        remedy = f"{name}[:, 0] if it refers to the second of the two labels"
    columns_of = "1 column" if n_columns == 1 else f"{n_columns} columns"
    raise ValueError(
        f"{name} has {columns_of} but y_true has {len(found)} distinct labels, so the "
        f"labels of the columns are unknown. Pass {remedy}."
    )


def _missing(values: NDArray[Any]) -> Sequence[Any] | NDArray[Any]:
    """Return the labels that are missing."""
    if values.dtype.kind in "fc":
        return values[~np.isfinite(values)]
    if values.dtype.kind in "mM":
        return values[np.isnat(values)]
    return [v for v in values.tolist() if is_missing(v)] if values.dtype.kind in "OT" else []


def is_missing(value: Any) -> bool:
    """Return whether a label is None or not equal to itself.

    Parameters
    ----------
    value : object
        A label.

    Returns
    -------
    missing : bool
        True for None, NaN, NaT and pandas.NA.
    """
    if isinstance(value, str) or value is None:
        return value is None
    try:
        return bool(value != value)
    except TypeError:  # comparison with pandas.NA has no truth value
        return True
    except ValueError:  # an array is an invalid label, but not a missing one
        return False


def _kind(values: NDArray[Any]) -> str:
    if values.dtype.kind == "O":
        return _kind_of_type(type(values[0]))
    return _KIND_OF_DTYPE.get(values.dtype.kind, "numbers")


def _kind_of_type(kind: type) -> str:
    for known, name in _KINDS:
        if issubclass(kind, known):
            return name
    return kind.__name__
