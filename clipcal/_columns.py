"""Which column is whose: data frames name their columns, arrays do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import to_numpy

__all__ = ["column_names", "column_order", "contradict", "in_class_order", "shorten"]


def in_class_order(values: Any, classes: ArrayLike, source: str) -> NDArray[Any]:
    """Return what a classifier answered as an array whose columns follow its classes.

    Parameters
    ----------
    values : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities or logits: an array, a tensor or a data frame.

    classes : array-like of shape (n_classes,)
        The classifier's ``classes_``.

    source : str
        Where `values` come from, for the error: ``"SVC.predict_proba"``.

    Returns
    -------
    array : ndarray of the same shape
        In the order of `classes` if the columns of a data frame bear their names, and else as it came.

    Raises
    ------
    ValueError
        If the columns are named after some of the classes, but not after all of them.
    """
    names = column_names(values)
    array = np.asarray(to_numpy(values))
    if names is None or array.ndim != 2:
        return array
    labels = _listed(classes)
    order = column_order(names, labels)
    if order is None and contradict(names, labels):
        raise ValueError(
            f"{source} returned columns named {shorten(names)} for the classes {shorten(labels)}. Name one "
            "column after each class, or return an array whose columns follow classes_."
        )
    return array if order is None or order == sorted(order) else array[:, order]


def column_names(values: Any) -> list[Any] | None:
    """Return the names that a data frame gives to its columns; None for all else.

    Parameters
    ----------
    values : object
        A data frame of pandas, polars, pyarrow or their like, or something else.

    Returns
    -------
    names : list or None
        One for each column.
    """
    columns = getattr(values, "columns", None)
    if hasattr(type(values), "column_names"):  # of a pyarrow table, whose columns are its data
        columns = values.column_names
    if columns is None or callable(columns):
        return None
    return _listed(columns) if hasattr(columns, "dtype") else list(columns)


def column_order(names: Sequence[Any], labels: Sequence[Any]) -> list[int] | None:
    """Find the column of each label by name.

    Parameters
    ----------
    names : sequence of length n_columns
        Names of columns. Those that are text also name labels that are written in the same way, since
        some kinds of data frames know no other names.

    labels : sequence of length n_classes
        Distinct labels.

    Returns
    -------
    order : list of int or None
        The position of each label's column; None if the names are not exactly the labels.
    """
    all_text = all(isinstance(name, str) for name in names)
    for known in (list(labels), list(map(str, labels))) if all_text else (list(labels),):
        place = {name: position for position, name in enumerate(names)}
        if len(place) == len(names) == len(known) and set(place) == set(known):
            return [place[label] for label in known]
    return None


def shorten(values: Sequence[Any]) -> str:
    """Write a list, the first five entries of a long one."""
    values = list(values)
    return repr(values) if len(values) <= 5 else f"[{', '.join(map(repr, values[:5]))}, ...]"


def _listed(labels: Any) -> list[Any]:
    """Return Python values, which compare equal whatever the type of the array; dates as points in time."""
    array = np.asarray(labels)
    return (array.astype("M8[us]") if array.dtype.kind == "M" else array).tolist()


def contradict(names: Sequence[Any], labels: Sequence[Any]) -> bool:
    """Tell whether only some of the columns are named after labels.

    Parameters
    ----------
    names : sequence of length n_columns
        Names of columns for which :func:`column_order` finds no order. Numbers counted from 0 name
        nothing: they are what a data frame gives to columns without names.

    labels : sequence of length n_classes
        Distinct labels.

    Returns
    -------
    contradicting : bool
        Whether such names and labels speak of different classes.
    """
    if list(names) == list(range(len(names))):
        return False
    return bool(set(map(str, names)) & set(map(str, labels)))
