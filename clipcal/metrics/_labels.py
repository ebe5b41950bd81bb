"""True labels, and the label of each column of probabilities."""

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
    order: NDArray[np.intp] | None  # what sorts the labels; None if they are sorted

    @property
    def rank(self) -> NDArray[np.intp] | None:
        """The place of each label in sorted order; None if they are sorted."""
        return None if self.order is None else np.argsort(self.order)


def read_labels(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return labels as an array, without a look at what they are.

    Parameters
    ----------
    values : array-like of shape (n,)
        Labels.

    name : str
        What the caller calls them.

    Returns
    -------
    labels : ndarray of shape (n,)
        In the caller's type.

    Raises
    ------
    ValueError
        If they have another shape.
    """
    values = to_numpy(values)
    shape = np.shape(values)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return column_or_1d(values)
    per = "column" if name == "labels" else "row"
    raise ValueError(f"{name} must hold one label for each {per}, as a 1d array; got the shape {shape}.")


def check_labels(values: NDArray[Any], name: str) -> None:
    """Refuse labels that are missing, or that cannot be told apart by ``==``.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Labels.

    name : str
        What the caller calls them.

    Raises
    ------
    ValueError
        If a label is missing, or some are text and others numbers.
    """
    missing = _missing(values)
    if len(missing):
        what = "infinity" if values.dtype.kind in "fc" else f"another missing value, here {missing[0]!r}"
        cure = "Name every column." if name == "labels" else "Drop those rows, or give them a label."
        raise ValueError(f"{name} contains NaN or {what}. {cure}")
    if values.dtype.kind == "O" and len({_kind_of_type(type(value)) for value in values}) > 1:
        kinds = {_kind_of_type(type(value)): value for value in values[::-1]}
        (kind, value), (other, another) = sorted(kinds.items())[:2]
        raise ValueError(
            f"{name} mixes {kind} and {other}, such as {value!r} and {another!r}, which are never equal. "
            "Make all labels text, or all of them numbers."
        )


def check_same_kind(values: NDArray[Any], others: NDArray[Any], names: tuple[str, str]) -> None:
    """Refuse to compare labels that could never be equal.

    Parameters
    ----------
    values, others : ndarray of shape (n,)
        Labels that :func:`check_labels` has let pass, at least one in each.

    names : tuple of two str
        What the caller calls them.

    Raises
    ------
    ValueError
        If one holds text and the other numbers, or one text and the other bytes.
    """
    kinds = _kind(values), _kind(others)
    if kinds[0] != kinds[1]:
        cure = "Pass both as text or both as numbers."
        if set(kinds) == {"text", "bytes"}:
            cure = "Turn bytes into text: np.char.decode(values)."
        raise ValueError(
            f"{names[0]} and {names[1]} are of different kinds: {kinds[0]} such as "
            f"{values[:1].tolist()[0]!r} against {kinds[1]} such as {others[:1].tolist()[0]!r}. {cure}"
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
    """Find out which label each column belongs to.

    Parameters
    ----------
    y : ndarray of shape (n_kept,)
        True labels of the rows that count.

    all_rows : ndarray of shape (n_samples,)
        True labels of all rows. They may name columns that no row of weight belongs to.

    y_prob : array-like
        What the caller passed. A data frame names its columns, which must not contradict the labels.

    shape : tuple of int
        Shape of the probabilities.

    labels : array-like of shape (n_classes,) or None
        What the caller says.

    name : str, default="y_prob"
        What the caller calls the probabilities, or the logits in their place.

    Returns
    -------
    columns : Columns
        A label for each column.

    Raises
    ------
    ValueError
        If columns cannot be told apart, or labels do not fit `y` or `y_prob`.
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
            f"labels names {len(columns)} classes but {name} has {n_columns} columns. "
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
        What the error tells the caller to do.

    Returns
    -------
    true_column : ndarray of shape (n_samples,)
        Positions.

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
            f"A 1-D {name} is about the second of two classes, and holds its {number}; but y_true holds "
            f"{what}. Pass labels=[first, second], such as labels=estimator.classes_."
        )
    remedy = "labels=estimator.classes_"
    if n_columns == 1 and len(found) == 2:
        remedy = f"{name}[:, 0], which is then about the second of the two labels"
    columns_of = "1 column" if n_columns == 1 else f"{n_columns} columns"
    raise ValueError(
        f"{name} has {columns_of} but y_true holds {len(found)} distinct labels, so the "
        f"columns cannot be told apart. Pass {remedy}."
    )


def _missing(values: NDArray[Any]) -> Sequence[Any] | NDArray[Any]:
    """Return the labels that are missing."""
    if values.dtype.kind in "fc":
        return values[~np.isfinite(values)]
    if values.dtype.kind in "mM":
        return values[np.isnat(values)]
    return [v for v in values.tolist() if is_missing(v)] if values.dtype.kind in "OT" else []


def is_missing(value: Any) -> bool:
    """Tell whether a label is None, or one of the values that do not equal themselves.

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
    except TypeError:  # pandas.NA is neither equal nor unequal to anything
        return True
    except ValueError:  # an array is no label, but it is not missing
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
