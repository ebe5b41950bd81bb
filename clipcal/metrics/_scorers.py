"""Calibration errors as scikit-learn scorers: the negated error, so that greater is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import indexable
from sklearn.utils.validation import check_is_fitted

from .._compat import HasMethods, _BaseScorer, _safe_indexing, validate_params
from ._errors import (
    adaptive_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
)

__all__ = [
    "ace_scorer",
    "cross_val_calibration_error",
    "ece_scorer",
    "make_calibration_scorer",
    "mce_scorer",
]


class _CalibrationScorer(_BaseScorer):
    """A scorer that tells the metric which class each column of probabilities belongs to.

    ``sklearn.metrics.make_scorer`` keeps ``estimator.classes_`` to itself, so a fold that lacks a class
    could not be scored, and it passes a single column for two classes.
    """

    def _score(
        self, method_caller: Callable[..., Any], estimator: Any, X: Any, y_true: ArrayLike, **kwargs: Any
    ) -> float:
        check_is_fitted(estimator)
        classes = np.asarray(estimator.classes_)
        if len(classes) > 1:
            y_prob = np.asarray(method_caller(estimator, "predict_proba", X, pos_label=None))
        else:
            # scikit-learn's helper refuses a classifier that saw one class; its error rate is still defined.
            y_prob = np.asarray(estimator.predict_proba(X))
        return self._sign * self._score_func(y_true, y_prob, labels=classes, **{**self._kwargs, **kwargs})

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._kwargs.items())
        return f"make_calibration_scorer({self._score_func.__name__}{options})"


def make_calibration_scorer(metric: Callable[..., float], **kwargs: Any) -> Callable[..., float]:
    """Turn a calibration error into a scorer that scikit-learn can maximise.

    Parameters
    ----------
    metric : callable
        A function ``metric(y_true, y_prob, *, labels, sample_weight=None, **kwargs)`` of which lower
        values are better, such as those of :mod:`clipcal.metrics`.

    **kwargs : dict
        Further arguments of `metric`, such as ``n_bins=10``.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, *, sample_weight=None)``, the negated error. It works in
        cross-validation and grid search, alone or among several, and with metadata routing.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from clipcal.metrics import expected_calibration_error, make_calibration_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> scorer = make_calibration_scorer(expected_calibration_error, n_bins=10)
    >>> scorer
    make_calibration_scorer(expected_calibration_error, n_bins=10)
    >>> scorer(LogisticRegression(max_iter=500).fit(X, y), X, y) > -0.1
    True
    """
    return _CalibrationScorer(metric, -1, kwargs, "predict_proba")


ece_scorer = make_calibration_scorer(expected_calibration_error)
ace_scorer = make_calibration_scorer(adaptive_calibration_error)
mce_scorer = make_calibration_scorer(maximum_calibration_error)


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "cv": ["cv_object"],
        "metric": [callable],
    }
)
def cross_val_calibration_error(
    estimator: BaseEstimator,
    X: Any,
    y: ArrayLike,
    *,
    cv: Any = 5,
    groups: ArrayLike | None = None,
    metric: Callable[..., float] = expected_calibration_error,
) -> float:
    """Compute a calibration error once, from the pooled out-of-fold probabilities.

    Binned errors are biased upwards when rows are few, so averaging them over folds overstates the
    error: a calibrated model with 1000 rows shows about 0.03 in one piece and 0.07 as the mean of five
    folds. Pooling first avoids that.

    Parameters
    ----------
    estimator : estimator with ``fit`` and ``predict_proba``
        The classifier; clones of it are fitted.

    X : indexable of length n_samples
        Whatever `estimator` accepts: an array, a data frame, a list of images or of paths.

    y : array-like of shape (n_samples,)
        True labels.

    cv : int, cross-validation generator or iterable, default=5
        The splits. A class that is missing from a training part gets probability 0 in that fold; rows
        that are tested more than once count each time.

    groups : array-like of shape (n_samples,), default=None
        Group labels, for splitters that use them.

    metric : callable, default=expected_calibration_error
        A function ``metric(y_true, y_prob, *, labels)``.

    Returns
    -------
    error : float
        The value of `metric`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from clipcal.metrics import cross_val_calibration_error
    >>> X, y = load_iris(return_X_y=True)
    >>> round(cross_val_calibration_error(GaussianNB(), X, y, cv=5), 3)
    0.039
    """
    X, y, groups = indexable(X, y, groups)
    labels = np.asarray(y)
    classes = np.unique(labels)
    splitter = check_cv(cv, labels, classifier=is_classifier(estimator))
    truths, pooled = [], []
    for train, test in splitter.split(X, labels, groups):
        fitted = clone(estimator).fit(_safe_indexing(X, train), _safe_indexing(y, train))
        prob = np.zeros((len(test), len(classes)))
        columns = np.searchsorted(classes, fitted.classes_)
        prob[:, columns] = fitted.predict_proba(_safe_indexing(X, test))
        truths.append(labels[test])
        pooled.append(prob)
    return metric(np.concatenate(truths), np.concatenate(pooled), labels=classes)
