"""Which rows or classes a calibrator is fitted on, and their logits."""

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
    """Positions of rows, and their logits for all classes; minus infinity where the model lacked one."""

    rows: NDArray[np.intp]
    logits: NDArray[np.float64]


def held_out_rows(
    estimator: Any, X: Any, y: NDArray[Any], splits: Splits, fit_params: dict[str, Any]
) -> HeldOut:
    """Return the rows that each split's model could score, and their logits.

    Parameters
    ----------
    estimator : classifier
        Clones of it are fitted on the training parts.

    X : indexable of length n_samples
        What `estimator` accepts.

    y : ndarray of shape (n_samples,)
        True labels.

    splits : iterable of (train, test)
        Positions. Rows whose class is missing from the training part are left out.

    fit_params : dict
        Further arguments of ``fit``; those with one entry a row are split too.

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
            "No row has its class in the training part of its fold, so no calibrator can be fitted. "
            "Use stratified splits, or fit the estimator on other rows and pass cv='prefit'."
        )
    return _join(parts)


def held_out_classes(
    estimator: Any, X: Any, y: NDArray[Any], splits: Splits, fit_params: dict[str, Any]
) -> tuple[HeldOut, HeldOut]:
    """Return logits of held-out pictures of trained classes, and of classes that were left out.

    Parameters
    ----------
    estimator : classifier with ``with_classes``
        Clones of it are fitted on the training parts.

    X : indexable of length n_samples
        What `estimator` accepts.

    y : ndarray of shape (n_samples,)
        True labels.

    splits : iterable of (train, test)
        Positions, from :class:`~clipcal.model_selection.LeaveClassesOut`.

    fit_params : dict
        Further arguments of ``fit``; those with one entry a row are split too.

    Returns
    -------
    seen, unseen : HeldOut
        Rows whose class was trained, scored among the trained classes; and rows whose class was left out,
        scored among the classes left out.

    Raises
    ------
    ValueError
        If the splits hold back no class, or no picture of a trained class.
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
        missing = "picture of a trained class" if unseen_parts else "class"
        raise ValueError(
            f"The splits hold back no {missing}. Pass cv=LeaveClassesOut(seen_size=0.2), "
            "or cv='classes', which is the same."
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
    """Return what ``check_cv`` takes; a number of folds is lowered to the size of the smallest class."""
    if cv is not None and not isinstance(cv, Integral):
        return cv
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"The class {classes.tolist()[counts.argmin()]!r} has only one sample, which cannot be both "
            "fitted and held out. Add samples, or fit the estimator on other rows and pass cv='prefit'."
        )
    return min(5 if cv is None else int(cv), int(counts.min()))


def check_prefit(estimator: Any, labels: NDArray[Any], cv: Any, fit_params: dict[str, Any]) -> Any:
    """Return a fitted estimator that knows all labels, or say what is wrong with it."""
    name = type(estimator).__name__
    if fit_params:
        raise TypeError(f"A fitted {name} is not fitted again, so it takes no {sorted(fit_params)} in fit.")
    if holds_out_classes(cv):
        raise ValueError(
            f"cv={cv!r} fits the classifier on a part of the classes, which a {name} does not allow. "
            "Pass the classifier itself, or cv='prefit'."
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise NotFittedError(
            f"A prefit estimator is expected, but this {name} is not fitted. Call its fit first, or pass "
            "cv=5. In searches and cross-validation, which clone, wrap it: FrozenEstimator(estimator)."
        ) from error
    unknown = np.setdiff1d(labels, plain_labels(estimator.classes_))
    if len(unknown):
        raise ValueError(
            f"y contains labels that the fitted {name} does not know: {unknown[:5].tolist()!r}. "
            "Leave these rows out, or pass cv=5 to fit it again."
        )
    return estimator


def holds_out_classes(cv: Any) -> bool:
    """Tell whether `cv` asks for classes to be left out."""
    return isinstance(cv, LeaveClassesOut) or (isinstance(cv, str) and cv == "classes")


def class_splitter(cv: Any, estimator: Any, calibrator: Calibrator) -> LeaveClassesOut:
    """Return the splitter that leaves out classes, or say why that is not possible."""
    if not calibrator.class_agnostic or not calibrator.preserves_argmax or calibrator.side_inputs:
        raise ValueError(
            f"cv={cv!r} fits a calibrator on classes that come and go, which {type(calibrator).__name__} "
            "does not support. Use method='temperature', or cv=5."
        )
    if not hasattr(estimator, "with_classes"):
        raise ValueError(
            f"cv={cv!r} asks the classifier about classes that it was not fitted on, which "
            f"{type(estimator).__name__} cannot answer, as it has no with_classes. Pass cv=5."
        )
    if isinstance(cv, LeaveClassesOut) and cv.seen_size == 0:
        raise ValueError(
            f"{cv!r} holds back no picture of a trained class, on which a calibrator is to be fitted too. "
            "Pass LeaveClassesOut(seen_size=0.2), or cv='classes', which is the same."
        )
    return cv if isinstance(cv, LeaveClassesOut) else LeaveClassesOut(seen_size=0.2, random_state=0)
