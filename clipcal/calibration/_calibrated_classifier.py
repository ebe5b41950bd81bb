"""Temperature scaling around a classifier: confidences change, predictions do not."""

from __future__ import annotations

import copy
import warnings
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import column_or_1d, get_tags, indexable
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._compat import (
    HasMethods,
    StrOptions,
    _check_method_params,
    _check_sample_weight,
    _fit_context,
    _num_samples,
    _routing_enabled,
    _safe_indexing,
)
from ._logits import class_logits
from ._temperature import solve_temperature

__all__ = ["TemperatureScaling"]


def _wrapped_has(attribute: str) -> Any:
    def check(self: TemperatureScaling) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), attribute)
        return True

    return check


class TemperatureScaling(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Divide the logits of a classifier by a temperature that is fitted on held-out rows.

    Predictions stay the same; only confidences change. With a single parameter it needs few rows, and it
    can be carried over to classes that were not there when it was fitted.

    Parameters
    ----------
    estimator : classifier
        The classifier to calibrate. Its ``decision_function`` must return logits (of two classes: their
        difference); without that method the logarithm of ``predict_proba`` is used.

    cv : int, cross-validation generator, iterable or "prefit", default=5
        Where the held-out logits come from.

        - int: at most so many stratified folds, and no more than the smallest class has members. Clones
          of `estimator` are fitted on the training parts; then one is fitted on all rows.
        - generator or iterable of splits: the same with these splits. Rows whose class is missing from a
          training part do not take part in fitting the temperature.
        - "prefit": `estimator` is already fitted and left as it is. All rows are used to fit the
          temperature, so they must be none that `estimator` was fitted on. A
          :class:`~sklearn.frozen.FrozenEstimator` is always treated this way.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels; columns of probabilities follow this order.

    estimator_ : classifier
        The fitted classifier; with ``cv="prefit"``, `estimator` itself.

    temperature_ : float
        The number that logits are divided by. Above 1 it lowers confidences.

    identified_ : bool
        Whether the data determine a temperature. If not, `temperature_` is 1 and a warning was given.

    n_features_in_ : int
        Number of features seen during fit. Only defined if the wrapped classifier exposes it.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen during fit. Only defined if the wrapped classifier exposes it.

    See Also
    --------
    fit_temperature : The same fit for plain arrays of logits.
    sklearn.calibration.CalibratedClassifierCV : Further methods, which do not carry over to new classes.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On calibration of modern neural networks",
       ICML 2017. :arxiv:`1706.04599`

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    >>> from clipcal.calibration import TemperatureScaling
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = TemperatureScaling(LinearDiscriminantAnalysis(), cv=3).fit(X, y)
    >>> clf.predict(X[:2])
    array([0, 0])
    >>> clf.identified_
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "decision_function"]), HasMethods(["fit", "predict_proba"])],
        "cv": ["cv_object", StrOptions({"prefit"})],
    }

    def __init__(self, estimator: BaseEstimator, *, cv: Any = 5) -> None:
        self.estimator = estimator
        self.cv = cv

    # The wrapped estimator checks its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, **fit_params: Any
    ) -> TemperatureScaling:
        """Fit the classifier, unless it is fitted already, and the temperature.

        Parameters
        ----------
        X : indexable of length n_samples
            Whatever `estimator` accepts: an array, a data frame, a list of images or of paths.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights. They enter the fit of the temperature, and that of `estimator` if it accepts them.

        **fit_params : dict
            Further arguments for ``estimator.fit``, or with metadata routing for whoever requested them.

        Returns
        -------
        self : TemperatureScaling
            The fitted object.

        Raises
        ------
        ValueError
            If a class is too small to be split, or `y` holds labels that a fitted estimator lacks.

        NotFittedError
            If ``cv="prefit"`` and `estimator` is not fitted.
        """
        if _num_samples(X) == 0:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required by fit.")
        X, y = indexable(X, y)
        check_classification_targets(y)
        labels = column_or_1d(y, warn=True)
        weight = _check_sample_weight(sample_weight, labels, dtype=np.float64, ensure_non_negative=True)

        if self._is_prefit():
            fitted = self._check_prefit(labels)
            classes = np.unique(fitted.classes_)
            logits = class_logits(fitted, X, classes)
        else:
            classes = np.unique(labels)
            estimator_params, split_params = self._route(sample_weight, fit_params)
            rows, logits = self._held_out_logits(X, labels, estimator_params, split_params)
            fitted = clone(self.estimator).fit(X, labels, **estimator_params)
            labels, weight = labels[rows], weight[rows]

        solution = solve_temperature(logits, np.searchsorted(classes, labels), weight)
        # Set together at the end, so that a failed fit changes nothing.
        self.estimator_, self.classes_ = fitted, classes
        self.temperature_ = 1.0 / solution.inverse_temperature
        self.identified_ = solution.identified
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def _is_prefit(self) -> bool:
        return isinstance(self.cv, str) or isinstance(self.estimator, FrozenEstimator)

    def _check_prefit(self, labels: NDArray[Any]) -> Any:
        name = type(self.estimator).__name__
        try:
            check_is_fitted(self.estimator)
        except NotFittedError as error:
            raise NotFittedError(
                f"cv='prefit' needs a fitted estimator, but this {name} is not fitted. "
                "Call its fit first, or pass cv=5."
            ) from error
        unknown = np.setdiff1d(labels, self.estimator.classes_)
        if len(unknown):
            raise ValueError(
                f"y contains labels that the fitted {name} does not know: {unknown[:5].tolist()!r}. "
                "Leave these rows out, or pass cv=5 to fit it again."
            )
        return self.estimator

    def _route(
        self, sample_weight: ArrayLike | None, fit_params: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what goes to ``estimator.fit`` and what goes to ``splitter.split``."""
        if _routing_enabled():
            routed = process_routing(self, "fit", sample_weight=sample_weight, **fit_params)
            return routed["estimator"]["fit"], routed["splitter"]["split"]
        if sample_weight is None:
            return fit_params, {}
        if has_fit_parameter(self.estimator, "sample_weight"):
            return {**fit_params, "sample_weight": sample_weight}, {}
        warnings.warn(
            f"{type(self.estimator).__name__}.fit does not accept sample_weight, so the weights are used "
            "for the temperature only.",
            UserWarning,
            stacklevel=4,
        )
        return fit_params, {}

    def _held_out_logits(
        self, X: Any, y: NDArray[Any], estimator_params: dict[str, Any], split_params: dict[str, Any]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows that a fold's model could score, and their logits."""
        classes = np.unique(y)
        splitter = check_cv(self._limit_folds(y), y, classifier=True)
        all_rows, all_logits = [], []
        for train, test in splitter.split(X, y, **split_params):
            params = _check_method_params(X, params=estimator_params, indices=train)
            fitted = clone(self.estimator).fit(_safe_indexing(X, train), y[train], **params)
            rows = np.arange(len(y))[test]
            rows = rows[np.isin(y[rows], fitted.classes_)]
            if len(rows):
                all_rows.append(rows)
                all_logits.append(class_logits(fitted, _safe_indexing(X, rows), classes))
        if not all_rows:
            raise ValueError(
                "No row has its class in the training part of its fold, so no temperature can be fitted. "
                "Use stratified splits, or fit the estimator on other rows and pass cv='prefit'."
            )
        return np.concatenate(all_rows), np.concatenate(all_logits)

    def _limit_folds(self, y: NDArray[Any]) -> Any:
        if self.cv is not None and not isinstance(self.cv, Integral):
            return self.cv
        classes, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            raise ValueError(
                f"The class {classes.tolist()[counts.argmin()]!r} has only one sample, which cannot be both "
                "fitted and held out. Add samples, or fit the estimator on other rows and pass cv='prefit'."
            )
        return min(5 if self.cv is None else int(self.cv), int(counts.min()))

    def _scaled_logits(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        return class_logits(self.estimator_, X, self.classes_) / self.temperature_

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the logits divided by the temperature.

        Parameters
        ----------
        X : indexable of length n_samples
            Whatever the wrapped classifier accepts.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the difference between the second and the first.
        """
        logits = self._scaled_logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : indexable of length n_samples
            Whatever the wrapped classifier accepts.

        Returns
        -------
        y_prob : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`.
        """
        return softmax(self._scaled_logits(X), axis=1)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithm of calibrated probabilities, exact where they are tiny.

        Parameters
        ----------
        X : indexable of length n_samples
            Whatever the wrapped classifier accepts.

        Returns
        -------
        log_prob : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`.
        """
        return log_softmax(self._scaled_logits(X), axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most likely label of each row.

        Parameters
        ----------
        X : indexable of length n_samples
            Whatever the wrapped classifier accepts.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels; of equally likely ones the first in `classes_`.
        """
        column = self._scaled_logits(X).argmax(axis=1)
        return self.classes_[column]

    @available_if(_wrapped_has("with_classes"))
    def with_classes(self, labels: Any) -> TemperatureScaling:
        """Return a fitted copy for other classes, at the same temperature.

        Only available if the wrapped classifier has this method.

        Parameters
        ----------
        labels : array-like or mapping
            The new classes, as the wrapped classifier's ``with_classes`` takes them.

        Returns
        -------
        other : TemperatureScaling
            A copy whose `estimator_` and `classes_` are new. This object stays as it is.
        """
        check_is_fitted(self)
        other = copy.copy(self)
        other.estimator_ = self.estimator_.with_classes(labels)
        other.classes_ = np.unique(other.estimator_.classes_)
        return other

    def get_metadata_routing(self) -> MetadataRouter:
        """Return what metadata this object uses itself and what it hands on.

        Returns
        -------
        routing : MetadataRouter
            Requests of this object and, unless it is prefit, of its estimator and its splitter.
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        if self._is_prefit():
            return router
        return router.add(
            estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit")
        ).add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        wrapped = get_tags(self.estimator)
        tags.input_tags = wrapped.input_tags
        if wrapped.classifier_tags is not None:
            tags.classifier_tags = wrapped.classifier_tags
        # The checks ask for good accuracy on sets too small to be split and calibrated.
        tags.classifier_tags.poor_score = True
        return tags
