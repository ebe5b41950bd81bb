"""Which column is whose: data frames name their columns, arrays do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._arrays import plain_labels, to_numpy

__all__ = ["check_names", "class_probabilities", "column_names", "column_order", "in_class_order"]


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
    if order is None and _contradict(names, labels):
        raise ValueError(
            f"{source} returned columns named {_shorten(names)} for the classes {_shorten(labels)}. Name one "
            "column after each class, or return an array whose columns follow classes_."
        )
    return array if order is None or order == sorted(order) else array[:, order]


def class_probabilities(estimator: Any, X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the classes of a fitted classifier, and its probabilities with a column for each.

    Parameters
    ----------
    estimator : fitted classifier
        With ``predict_proba`` and ``classes_``.

    X : object
        Whatever it predicts for.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        As the classifier orders them.

    prob : ndarray of shape (n_samples, n_classes)
        Its columns follow `classes`, whatever their order in a data frame.

    Raises
    ------
    ValueError
        If the columns are named after some of the classes, but not after all of them.
    """
    classes = np.asarray(plain_labels(estimator.classes_))
    source = f"{type(estimator).__name__}.predict_proba"
    prob = in_class_order(estimator.predict_proba(X), classes, source)
    return classes, np.column_stack([1.0 - prob, prob]) if prob.ndim == 1 and len(classes) == 2 else prob


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


def check_names(
    values: Any,
    labels: ArrayLike,
    name: str,
    assumption: str,
    *,
    option: str | None = "labels",
    partly: bool = True,
) -> None:
    """Refuse a data frame whose columns are named after labels, in another order or not all of them.

    Parameters
    ----------
    values : array-like of shape (n_samples, n_classes)
        Probabilities or logits, as the caller passed them.

    labels : array-like of shape (n_classes,)
        The labels that the columns are taken for.

    name : str
        What the caller calls the values.

    assumption : str
        Where the labels come from, for the error: ``"labels says"``.

    option : str or None, default="labels"
        The argument that can say what the labels are; None if there is none.

    partly : bool, default=True
        Whether to refuse columns as well of which only some are named after labels.

    Raises
    ------
    ValueError
        If names and labels contradict each other.
    """
    names = column_names(values)
    if names is None:
        return
    assumed = _listed(labels)
    order = column_order(names, assumed)
    if order == sorted(order) if order else not (partly and _contradict(names, assumed)):
        return
    cure = f"{option}=list({name}.columns)"
    # Text in place of other labels would not be taken for them.
    if order and (option is None or set(names) != set(assumed)):
        cure = f"{name}[{_shorten([names[position] for position in order])}]"
    right = f"{cure} if the names are right, or " if order or option else ""
    raise ValueError(
        f"The columns of {name} are named {_shorten(names)}, but {assumption} {_shorten(assumed)}. Pass "
        f"{right}{name}.to_numpy() if they are not."
    )


def _contradict(names: Sequence[Any], labels: Sequence[Any]) -> bool:
    """Tell whether some columns are named after labels; numbers counted from 0 name nothing."""
    if list(names) == list(range(len(names))):
        return False
    return bool(set(map(str, names)) & set(map(str, labels)))


def _shorten(values: Sequence[Any]) -> str:
    """Write a list, the first five entries of a long one."""
    values = list(values)
    return repr(values) if len(values) <= 5 else f"[{', '.join(map(repr, values[:5]))}, ...]"


def _listed(labels: Any) -> list[Any]:
    """Return Python values, which compare equal whatever the type of the array; dates as points in time."""
    array = np.asarray(labels)
    return (array.astype("M8[us]") if array.dtype.kind == "M" else array).tolist()
