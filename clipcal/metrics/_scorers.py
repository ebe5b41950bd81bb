"""Calibration errors as scikit-learn scorers: the negated error, so that greater is better."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import get_tags, indexable
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from clipcal._arrays import plain_labels, to_numpy
from clipcal._caller import without_advice
from clipcal._columns import class_probabilities, in_class_order
from clipcal._compat import (
    HasMethods,
    _BaseScorer,
    _check_method_params,
    _num_samples,
    _safe_indexing,
    validate_params,
)
from clipcal._weights import rows_that_count, splits_among, take_rows
from clipcal.metrics._brier import brier_score
from clipcal.metrics._classwise import classwise_calibration_error
from clipcal.metrics._errors import adaptive_calibration_error, expected_calibration_error
from clipcal.metrics._gaps import maximum_calibration_error
from clipcal.metrics._labels import check_labels, check_same_kind, read_labels
from clipcal.metrics._log_loss import negative_log_likelihood
from clipcal.metrics._smooth import smooth_calibration_error

__all__ = [
    "ace_scorer",
    "brier_scorer",
    "calibration_scorers",
    "classwise_ece_scorer",
    "cross_val_calibration_error",
    "ece_scorer",
    "make_calibration_scorer",
    "mce_scorer",
    "nll_scorer",
    "smooth_ece_scorer",
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
        rows = rows_that_count(kwargs.get("sample_weight"), _num_samples(y_true))
        y_true, answers = plain_labels(y_true), _InClassOrder(estimator)
        if rows is not None:
            # What others predict from all rows cannot be shared.
            kwargs = _check_method_params(X, kwargs, indices=rows)
            X, y_true = take_rows(rows, X, y_true)
            y_prob = answers.predict_proba(X)
        elif len(answers.classes_) > 1:
            y_prob = answers.shared_by(method_caller, X)
        else:
            # scikit-learn's helper refuses a classifier that saw one class; its error rate is still defined.
            y_prob = answers.predict_proba(X)
        with without_advice():
            value = self._score_func(y_true, y_prob, labels=answers.classes_, **{**self._kwargs, **kwargs})
        # Adding zero turns the negative zero of a perfect fold into an ordinary one.
        return self._sign * _as_number(value, self._score_func) + 0.0

    def __repr__(self) -> str:
        return f"make_calibration_scorer({_name(self._score_func)}{_options(self._kwargs)})"


class _InClassOrder:
    """A fitted classifier that answers with arrays whose columns follow its classes."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self.classes_ = np.asarray(plain_labels(estimator.classes_))

    def __sklearn_tags__(self) -> Any:
        return get_tags(self._estimator)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        return class_probabilities(self._estimator, X)[1]

    def shared_by(self, method_caller: Callable[..., Any], X: Any) -> NDArray[Any]:
        """Predict by way of scikit-learn's helper, which shares the answer among scorers."""
        prob = method_caller(self, "predict_proba", X, pos_label=None)
        # Another scorer may have asked the classifier itself. A data frame of two classes is then reduced
        # to a column, whichever that is.
        if isinstance(prob, np.ndarray):
            return prob
        if np.ndim(prob) == 1:
            return self.predict_proba(X)
        return in_class_order(prob, self.classes_, f"{type(self._estimator).__name__}.predict_proba")


def _as_number(value: Any, metric: Callable[..., Any]) -> float:
    try:
        if np.ndim(value) == 0:
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(
        f"{_name(metric)} must return one number to be a score; it returned {value!r}. "
        "Pass a function that picks one, or arguments with which the metric returns one."
    )


def _name(metric: Callable[..., Any]) -> str:
    """Write a metric as one would type it."""
    if isinstance(metric, functools.partial):
        given = "".join(f", {value!r}" for value in metric.args)
        return f"partial({_name(metric.func)}{given}{_options(metric.keywords)})"
    return getattr(metric, "__name__", None) or repr(metric)


def _options(given: dict[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in given.items())


@validate_params({"metric": [callable]})
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

    Raises
    ------
    TypeError
        If `metric` cannot be called, or does not take one of the further arguments. The scorer raises it
        if `metric` does not return one number.

    See Also
    --------
    calibration_scorers : Ready-made scorers by name.

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
    _check_arguments(metric, kwargs)
    return _CalibrationScorer(metric, -1, kwargs, "predict_proba")


def _check_arguments(metric: Callable[..., float], kwargs: dict[str, Any]) -> None:
    """Refuse now what would fail in every fold, where scikit-learn makes NaN of it."""
    for name, source in (("labels", "estimator.classes_"), ("sample_weight", "what it is called with")):
        if name in kwargs:
            raise TypeError(
                f"make_calibration_scorer takes no {name}: the scorer passes {source} to the metric, which "
                "differs from fold to fold. Leave it out."
            )
    try:
        signature = inspect.signature(metric)
    except (TypeError, ValueError):  # some compiled functions have none
        return
    try:
        signature.bind(None, None, labels=None, **kwargs)
    except TypeError as error:
        raise TypeError(
            f"{_name(metric)} cannot be called as metric(y_true, y_prob, labels=..."
            f"{''.join(f', {name}=...' for name in kwargs)}): {error}. "
            f"It takes {', '.join(signature.parameters)}."
        ) from error


ece_scorer = make_calibration_scorer(expected_calibration_error)
ace_scorer = make_calibration_scorer(adaptive_calibration_error)
mce_scorer = make_calibration_scorer(maximum_calibration_error)
classwise_ece_scorer = make_calibration_scorer(classwise_calibration_error)
smooth_ece_scorer = make_calibration_scorer(smooth_calibration_error)
brier_scorer = make_calibration_scorer(brier_score)
nll_scorer = make_calibration_scorer(negative_log_likelihood)


def calibration_scorers() -> dict[str, Callable[..., float]]:
    """Return the scorers of this module by name, to be passed as ``scoring``.

    Together they cost one call of ``predict_proba`` a fold.

    Returns
    -------
    scorers : dict of str to callable
        Under ``"ece"``, ``"ace"``, ``"mce"``, ``"classwise_ece"``, ``"smooth_ece"``, ``"brier"`` and
        ``"nll"``. All of them return negated values. Dictionary and scorers are new ones at each call, so
        they can be changed.

    See Also
    --------
    make_calibration_scorer : A scorer with other arguments, such as a number of bins.
    cross_val_calibration_error : One value from all folds, which is less biased than their mean.

    Notes
    -----
    ``"ace"`` shares out each test fold over 15 bins, and does not warn if that leaves few rows in each.

    Select models by ``"nll"`` or ``"brier"``, and report the others: a model that always answers with
    the class frequencies has no calibration error.

    ``"classwise_ece"``, ``"brier"`` and ``"nll"`` need the probability of each true class. They refuse
    a test fold with a class that was not trained on, which cross-validation turns into NaN and a
    warning; stratified folds avoid it. The others count such rows as wrong.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_validate
    >>> from clipcal.metrics import calibration_scorers
    >>> X, y = load_iris(return_X_y=True)
    >>> scoring = {"accuracy": "accuracy", **calibration_scorers()}
    >>> scores = cross_validate(LogisticRegression(max_iter=500), X, y, scoring=scoring)
    >>> sorted(name for name in scores if name.startswith("test"))
    ['test_accuracy', 'test_ace', 'test_brier', 'test_classwise_ece', 'test_ece', 'test_mce', 'test_nll',
     'test_smooth_ece']
    """
    scorers = {
        "ece": ece_scorer,
        "ace": ace_scorer,
        "mce": mce_scorer,
        "classwise_ece": classwise_ece_scorer,
        "smooth_ece": smooth_ece_scorer,
        "brier": brier_scorer,
        "nll": nll_scorer,
    }
    return copy.deepcopy(scorers)


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "cv": ["cv_object"],
        "metric": [callable],
        "params": [dict, None],
    }
)
def cross_val_calibration_error(
    estimator: BaseEstimator,
    X: Any,
    y: ArrayLike,
    *,
    cv: Any = 5,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    metric: Callable[..., float] = expected_calibration_error,
    params: dict[str, Any] | None = None,
    n_jobs: int | None = None,
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
        The splits. A class that an estimator does not know gets probability 0 in that fold; rows that
        are tested more than once count each time.

    groups : array-like of shape (n_samples,), default=None
        Group labels, for splitters that use them.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in `metric`. The fits do not see them: for that, pass them in `params` too. Rows
        of weight 0 are left out of everything, as if they had not been passed.

    metric : callable, default=expected_calibration_error
        A function ``metric(y_true, y_prob, *, labels, sample_weight=None)``. Bind further arguments with
        ``functools.partial(expected_calibration_error, n_bins=10)``. Its `labels` are all classes that
        are in `y` or known to an estimator.

    params : dict, default=None
        Further arguments of ``estimator.fit``. Those of length n_samples are split like `X`.

    n_jobs : int, default=None
        How many folds are fitted at a time; see scikit-learn's glossary.

    Returns
    -------
    error : float
        The value of `metric`.

    Raises
    ------
    ValueError
        If `y` has missing values, or an estimator's classes are of another kind than `y`.

    See Also
    --------
    calibration_scorers : Scores of each fold, for model selection.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from clipcal.metrics import cross_val_calibration_error
    >>> X, y = load_iris(return_X_y=True)
    >>> round(cross_val_calibration_error(GaussianNB(), X, y, cv=5), 3)
    0.039
    """
    X, y, groups, sample_weight = indexable(X, *map(plain_labels, (y, groups)), to_numpy(sample_weight))
    params = params or {}
    n_samples = _num_samples(X)
    rows = rows_that_count(sample_weight, n_samples)
    if rows is not None:
        cv, params = splits_among(cv, rows, n_samples), _check_method_params(X, params, indices=rows)
        X, y, groups, sample_weight = take_rows(rows, X, y, groups, sample_weight)
    labels = read_labels(y, "y")
    check_labels(labels, "y")
    splitter = check_cv(cv, labels, classifier=is_classifier(estimator))
    splits = list(splitter.split(X, labels, groups))
    folds = Parallel(n_jobs=n_jobs)(
        delayed(_out_of_fold)(clone(estimator), X, y, train, test, params) for train, test in splits
    )
    tested = np.concatenate([np.arange(len(labels))[test] for _, test in splits])
    # A metric that knows no weights can still be used without them.
    weight = {} if sample_weight is None else {"sample_weight": np.asarray(sample_weight)[tested]}
    classes, prob = _pool(labels, folds)
    return metric(labels[tested], prob, labels=classes, **weight)


def _out_of_fold(
    estimator: Any, X: Any, y: Any, train: Any, test: Any, params: dict[str, Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fit one fold, and return its classes and probabilities."""
    params = _check_method_params(X, params, indices=train)
    estimator.fit(_safe_indexing(X, train), _safe_indexing(y, train), **params)
    return class_probabilities(estimator, _safe_indexing(X, test))


def _pool(
    y: NDArray[Any], folds: list[tuple[NDArray[Any], NDArray[Any]]]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Give all folds a column for each class that any of them or `y` knows."""
    for known, _ in folds:
        check_same_kind(y, known, ("y", "estimator.classes_"))
    classes = np.unique(np.concatenate([y, *(known for known, _ in folds)]))
    prob = np.zeros((sum(len(found) for _, found in folds), len(classes)))
    start = 0
    for known, found in folds:
        prob[start : start + len(found), np.searchsorted(classes, known)] = found
        start += len(found)
    return classes, prob
