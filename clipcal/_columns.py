"""Match the columns of data frames to classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._arrays import plain_labels, to_numpy

__all__ = ["check_names", "class_probabilities", "column_names", "column_order", "in_class_order"]


def in_class_order(values: Any, classes: ArrayLike, source: str) -> NDArray[Any]:
    """Convert the output of a classifier to an array whose columns are in the order of its classes.

    Parameters
    ----------
    values : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities or logits: an array, a tensor or a data frame.

    classes : array-like of shape (n_classes,)
        The classifier's ``classes_``.

    source : str
        Source of `values` for the error message, such as ``"SVC.predict_proba"``.

    Returns
    -------
    array : ndarray of the same shape
        If the columns of a data frame are named after the classes, in the order of `classes`; otherwise in
        the original order.

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
    """Return the classes of a fitted classifier and its predicted probabilities.

    Parameters
    ----------
    estimator : fitted classifier
        Classifier with ``predict_proba`` and ``classes_``.

    X : object
        Input samples.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Classes in the order of ``classes_``.

    prob : ndarray of shape (n_samples, n_classes)
        Probabilities with columns in the order of `classes`, whatever their order in a data frame.

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
    """Return the column names of a data frame; None for other objects.

    Parameters
    ----------
    values : object
        A data frame of pandas, polars, pyarrow or a similar library, or another object.

    Returns
    -------
    names : list or None
        The name of each column.
    """
    columns = getattr(values, "columns", None)
    if hasattr(type(values), "column_names"):  # a pyarrow table, whose attribute `columns` holds the data
        columns = values.column_names
    if columns is None or callable(columns):
        return None
    return _listed(columns) if hasattr(columns, "dtype") else list(columns)


def column_order(names: Sequence[Any], labels: Sequence[Any]) -> list[int] | None:
    """Find the column of each label by name.

    Parameters
    ----------
    names : sequence of length n_columns
        Column names. If all are strings, they are also compared with ``str(label)``, since some data frames
        support string names only.

    labels : sequence of length n_classes
        Distinct labels.

    Returns
    -------
    order : list of int or None
        Position of the column of each label; None if the names and the labels differ.
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
    """Raise if the columns of a data frame are named after labels in another order, or after only some.

    Parameters
    ----------
    values : array-like of shape (n_samples, n_classes)
        Probabilities or logits, as passed by the caller.

    labels : array-like of shape (n_classes,)
        The assumed label of each column.

    name : str
        Name of the values in the caller's signature, for the error message.

    assumption : str
        Source of the labels, for the error message, such as ``"labels says"``.

    option : str or None, default="labels"
        Argument with which the caller can pass the labels; None if there is none.

    partly : bool, default=True
        Whether to raise if only some columns are named after labels.

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
    fix = f"{option}=list({name}.columns)"
    # Column names that are strings cannot be passed for labels of another type.
    if order and (option is None or set(names) != set(assumed)):
        fix = f"{name}[{_shorten([names[position] for position in order])}]"
    right = f"{fix} if the names are right, or " if order or option else ""
    raise ValueError(
        f"The columns of {name} are named {_shorten(names)}, but {assumption} {_shorten(assumed)}. Pass "
        f"{right}{name}.to_numpy() if they are not."
    )


def _contradict(names: Sequence[Any], labels: Sequence[Any]) -> bool:
    """Whether some columns are named after labels; default names 0, 1, 2, ... do not count."""
    if list(names) == list(range(len(names))):
        return False
    return bool(set(map(str, names)) & set(map(str, labels)))


def _shorten(values: Sequence[Any]) -> str:
    """Return the repr of a list, shortened to five entries."""
    values = list(values)
    return repr(values) if len(values) <= 5 else f"[{', '.join(map(repr, values[:5]))}, ...]"


def _listed(labels: Any) -> list[Any]:
    """Return Python values, which compare equal across dtypes; dates of any unit become datetimes."""
    array = np.asarray(labels)
    return (array.astype("M8[us]") if array.dtype.kind == "M" else array).tolist()
