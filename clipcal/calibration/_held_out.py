"""Logits of held-out rows and classes, on which calibrators are fitted."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from clipcal._arrays import plain_labels
from clipcal._compat import _check_method_params, _safe_indexing
from clipcal.calibration._base import Calibrator
from clipcal.calibration._logits import class_logits
from clipcal.model_selection import LeaveClassesOut

__all__ = [
    "HeldOut",
    "check_prefit",
    "class_splitter",
    "held_out_classes",
    "held_out_rows",
    "holds_out_classes",
    "limit_folds",
]

Splits = Iterable[tuple[NDArray[Any], NDArray[Any]]]


class HeldOut(NamedTuple):
    """Row indices, and logits for all classes; minus infinity for classes unknown to the model."""

    rows: NDArray[np.intp]
    logits: NDArray[np.float64]


def held_out_rows(
    estimator: Any, X: Any, y: NDArray[Any], splits: Splits, fit_params: dict[str, Any]
) -> HeldOut:
    """Return the held-out rows whose class is known to the model of their split, and their logits.

    Parameters
    ----------
    estimator : classifier
        Clones of it are fitted on the training parts.

    X : indexable of length n_samples
        Input of `estimator`.

    y : ndarray of shape (n_samples,)
        True labels.

    splits : iterable of (train, test)
        Row indices. Rows whose class is missing in the training part are dropped.

    fit_params : dict
        Additional arguments of ``fit``; entries with one element per row are split as well.

    Returns
    -------
    held_out : HeldOut
        In the order of the splits.

    Raises
    ------
    ValueError
        If no row has its class in its training part.
    """
    classes = np.unique(y)
    parts = []
    for train, test in splits:
        fitted = _fit(estimator, X, y, train, fit_params)
        rows = np.arange(len(y))[test]
        rows = rows[np.isin(y[rows], fitted.classes_)]
        if len(rows):
            parts.append(HeldOut(rows, class_logits(fitted, _safe_indexing(X, rows), classes)))
    if not parts:
        raise ValueError(
            "In each split, the training part lacks all classes of the test part, so no calibrator can be "
            "fitted. Use stratified splits, or fit the estimator on other rows and pass cv='prefit'."
        )
    return _join(parts)


def held_out_classes(
    estimator: Any, X: Any, y: NDArray[Any], splits: Splits, fit_params: dict[str, Any]
) -> tuple[HeldOut, HeldOut]:
    """Return logits of held-out rows of seen classes, and of held-out classes.

    Parameters
    ----------
    estimator : classifier with ``with_classes``
        Clones of it are fitted on the training parts.

    X : indexable of length n_samples
        Input of `estimator`.

    y : ndarray of shape (n_samples,)
        True labels.

    splits : iterable of (train, test)
        Row indices, from :class:`~clipcal.model_selection.LeaveClassesOut`.

    fit_params : dict
        Additional arguments of ``fit``; entries with one element per row are split as well.

    Returns
    -------
    seen, unseen : HeldOut
        Rows of training classes, with logits among the training classes; and rows of held-out classes, with
        logits among the held-out classes.

    Raises
    ------
    ValueError
        If the splits hold out no class, or no row of a training class.
    """
    classes = np.unique(y)
    seen_parts, unseen_parts = [], []
    for train, test in splits:
        fitted = _fit(estimator, X, y, train, fit_params)
        rows = np.arange(len(y))[test]
        trained = np.isin(y[rows], fitted.classes_)
        seen, unseen = rows[trained], rows[~trained]
        if len(seen):
            seen_parts.append(HeldOut(seen, class_logits(fitted, _safe_indexing(X, seen), classes)))
        if len(unseen):
            other = fitted.with_classes(np.unique(y[unseen]).tolist())
            unseen_parts.append(HeldOut(unseen, class_logits(other, _safe_indexing(X, unseen), classes)))
    if not seen_parts or not unseen_parts:
        missing = "row of a training class" if unseen_parts else "class"
        raise ValueError(
            f"The splits hold out no {missing}. Pass cv=LeaveClassesOut(seen_size=0.2), or cv='classes', "
            "which is equivalent."
        )
    return _join(seen_parts), _join(unseen_parts)


def _fit(estimator: Any, X: Any, y: NDArray[Any], train: NDArray[Any], fit_params: dict[str, Any]) -> Any:
    params = _check_method_params(X, params=fit_params, indices=train)
    return clone(estimator).fit(_safe_indexing(X, train), y[train], **params)


def _join(parts: list[HeldOut]) -> HeldOut:
    return HeldOut(
        np.concatenate([part.rows for part in parts]), np.concatenate([part.logits for part in parts])
    )


def limit_folds(cv: Any, y: NDArray[Any]) -> Any:
    """Return an argument for ``check_cv``, with at most as many folds as the smallest class has rows."""
    if cv is not None and not isinstance(cv, Integral):
        return cv
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"The class {classes.tolist()[counts.argmin()]!r} has only one sample, but training and "
            "calibration need different samples. Add samples, or fit the estimator on other rows and pass "
            "cv='prefit'."
        )
    return min(5 if cv is None else int(cv), int(counts.min()))


def check_prefit(estimator: Any, labels: NDArray[Any], cv: Any, fit_params: dict[str, Any]) -> Any:
    """Return the estimator if it is fitted and knows all labels, and raise an error otherwise."""
    name = type(estimator).__name__
    if fit_params:
        raise TypeError(
            f"A fitted {name} is not fitted again, so fit does not accept {sorted(fit_params)}. Omit them."
        )
    if holds_out_classes(cv):
        raise ValueError(
            f"cv={cv!r} fits the classifier on a part of the classes, which a {name} does not support. "
            "Pass the classifier itself, or cv='prefit'."
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise NotFittedError(
            f"cv='prefit' needs a fitted estimator, but this {name} is not fitted. Call fit first, or pass "
            "cv=5. Searches and cross-validation reset estimators by clone; pass FrozenEstimator(estimator)."
        ) from error
    unknown = np.setdiff1d(labels, plain_labels(estimator.classes_))
    if len(unknown):
        raise ValueError(
            f"y contains labels that are unknown to the fitted {name}: {unknown[:5].tolist()!r}. "
            "Drop these rows, or pass cv=5 to fit it again."
        )
    return estimator


def holds_out_classes(cv: Any) -> bool:
    """Return whether `cv` holds out classes."""
    return isinstance(cv, LeaveClassesOut) or (isinstance(cv, str) and cv == "classes")


def class_splitter(cv: Any, estimator: Any, calibrator: Calibrator) -> LeaveClassesOut:
    """Return the splitter that holds out classes, or raise an error if this is not supported."""
    if not calibrator.class_agnostic or not calibrator.preserves_argmax or calibrator.side_inputs:
        raise ValueError(
            f"cv={cv!r} fits a calibrator on different classes in each split, which "
            f"{type(calibrator).__name__} does not support. Use method='temperature', or cv=5."
        )
    if not hasattr(estimator, "with_classes"):
        raise ValueError(
            f"cv={cv!r} needs predictions for unseen classes, but {type(estimator).__name__} has no "
            "with_classes. Pass cv=5."
        )
    if isinstance(cv, LeaveClassesOut) and cv.seen_size == 0:
        raise ValueError(
            f"{cv!r} holds out no rows of training classes, on which the calibrator for seen classes is "
            "fitted. Pass LeaveClassesOut(seen_size=0.2), or cv='classes', which is equivalent."
        )
    return cv if isinstance(cv, LeaveClassesOut) else LeaveClassesOut(seen_size=0.2, random_state=0)
