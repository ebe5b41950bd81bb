"""A meta-estimator that calibrates a classifier, also for classes added later."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from clipcal._arrays import plain_labels
from clipcal._caller import without_advice
from clipcal._compat import HasMethods, StrOptions, _fit_context, _routing_enabled
from clipcal._components import NamedComponents
from clipcal._score import ScoredClassifier
from clipcal.calibration._base import Calibrator
from clipcal.calibration._calibrators import named_calibrator
from clipcal.calibration._fit_input import FitInput, distribute_params, read_fit_input
from clipcal.calibration._held_out import (
    HeldOut,
    check_prefit,
    class_splitter,
    held_out_classes,
    held_out_rows,
    holds_out_classes,
    limit_folds,
)
from clipcal.calibration._logits import class_logits, fill_zeros, warn_of_probability_outputs, zero_logit
from clipcal.calibration._side_inputs import (
    check_side_inputs,
    class_side_inputs,
    encoded_once,
    row_side_inputs,
    side_inputs,
    zero_shot_classifier,
)

__all__ = ["CalibratedCLIPClassifier"]

Floats = NDArray[np.float64]


def _has_with_classes(self: CalibratedCLIPClassifier) -> bool:
    return hasattr(getattr(self, "estimator_", self.estimator), "with_classes")


class CalibratedCLIPClassifier(ScoredClassifier, MetaEstimatorMixin, NamedComponents):
    """Fit a calibrator on held-out rows of a classifier, and apply it to all predictions.

    It supports all scikit-learn classifiers. If the classifier has ``with_classes``, like
    :class:`~clipcal.classifiers.PromptTunedCLIPClassifier`, class-agnostic calibrators are also used for
    other classes.

    Parameters
    ----------
    estimator : classifier
        The classifier to calibrate. Its ``decision_function`` must return logits (for two classes, their
        difference). Without ``decision_function``, the logarithm of ``predict_proba`` is used.

    method : str or Calibrator, default="temperature"
        The calibrator: an object of :mod:`clipcal.calibration`, or one of the names in
        ``clipcal.calibration.CALIBRATORS``, such as ``"temperature"``, ``"vector"`` or ``"isotonic"``.

    cv : int, cross-validation generator, iterable, "prefit" or "classes", default=5
        How held-out logits are obtained.

        - int: number of stratified folds, reduced to the size of the smallest class if that is smaller.
          Clones of `estimator` are fitted on the training parts, and a final one on all rows.
        - generator or iterable of splits: the same with these splits. Rows whose class is missing in the
          training part are not used to fit the calibrator.
        - "prefit": `estimator` is already fitted, and is not changed. All rows are used to fit the
          calibrator, so `estimator` must not have been fitted on them. This is always used for a
          :class:`~sklearn.frozen.FrozenEstimator`, which is also not reset by ``clone`` in searches.
        - "classes", or a :class:`~clipcal.model_selection.LeaveClassesOut`: whole classes are held out as
          well. One calibrator is fitted on held-out images of seen classes and one on unseen classes. Each
          prediction uses the calibrator for its predicted class. "classes" means
          ``LeaveClassesOut(seen_size=0.2, random_state=0)``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels; columns of probabilities follow this order.

    seen_classes_ : ndarray
        Sorted labels of the classes in ``fit``; ``with_classes`` does not change them.

    estimator_ : classifier
        The fitted classifier; with ``cv="prefit"``, `estimator` itself.

    calibrator_ : Calibrator
        The fitted calibrator.

    unseen_calibrator_ : Calibrator or None
        The calibrator for classes that are not in `seen_classes_`, if classes were held out.

    zero_logit_ : float
        Logit of probabilities of exactly 0, for classifiers without ``decision_function``: the logarithm of
        half of the smallest positive probability of the held-out rows.

    reference_features_ : ndarray of shape (n_held_out, n_features) or None
        Features of the rows on which the calibrator was fitted, if it needs the proximity to them.

    zero_shot_ : ZeroShotCLIPClassifier or None
        Zero-shot classifier for `classes_`, if the calibrator needs its logits.

    n_features_in_ : int
        Number of features in ``fit``, if the wrapped classifier exposes it.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features in ``fit``, if the wrapped classifier exposes them.

    See Also
    --------
    TemperatureScaling : The default calibrator, for arrays of logits.
    sklearn.calibration.CalibratedClassifierCV : Similar calibration, without support for new classes.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    >>> from clipcal.calibration import CalibratedCLIPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = CalibratedCLIPClassifier(LinearDiscriminantAnalysis(), method="temperature", cv=3).fit(X, y)
    >>> clf.calibrator_.temperature_ > 0
    True
    """

    _components: ClassVar[tuple[str, ...]] = ("method",)
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "decision_function"]), HasMethods(["fit", "predict_proba"])],
        "method": "no_validation",
        "cv": ["cv_object", StrOptions({"prefit", "classes"})],
    }

    def __init__(
        self, estimator: BaseEstimator, *, method: str | Calibrator = "temperature", cv: Any = 5
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.cv = cv

    def _named_component(self, parameter: str, name: str, params: Mapping[str, Any]) -> Any:
        return named_calibrator(name)

    # The wrapped estimator validates its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, **fit_params: Any
    ) -> CalibratedCLIPClassifier:
        """Fit the classifier, unless it is prefit, and the calibrator.

        Parameters
        ----------
        X : indexable of length n_samples
            Input of `estimator`: an array, a data frame, a list of images or of paths.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights. They are used to fit the calibrator, and `estimator` if it supports them. Rows of
            weight 0 are dropped first.

        **fit_params : dict
            Additional arguments of ``estimator.fit``. `groups` is passed to the splitter in `cv` if it uses
            groups. With metadata routing, arguments are passed to the objects that request them.

        Returns
        -------
        self : CalibratedCLIPClassifier
            The fitted object.

        Raises
        ------
        ValueError
            If a class is too small to be split, if `y` has labels that are unknown to a fitted estimator, or
            if `method` does not support `cv`.

        NotFittedError
            If ``cv="prefit"`` and `estimator` is not fitted.

        TypeError
            If `method` is not a calibrator, or needs features that `estimator` does not provide.
        """
        given = read_fit_input(X, y, sample_weight, self.cv, fit_params)
        X, labels, weight = given.X, given.labels, given.weight
        calibrator = named_calibrator(self.method)
        check_side_inputs(calibrator, self.estimator)

        if self._is_prefit():
            fitted = check_prefit(self.estimator, labels, self.cv, given.params)
            classes = np.unique(plain_labels(fitted.classes_))
            X = encoded_once(calibrator, fitted, X)
            seen, unseen = HeldOut(np.arange(len(labels)), class_logits(fitted, X, classes)), None
        else:
            classes = np.unique(labels)
            for_fit, for_split = self._route(given)
            seen, unseen = self._hold_out(given, calibrator, for_fit, for_split)
            fitted = clone(self.estimator).fit(X, labels, **for_fit)

        warn_of_probability_outputs(fitted, seen.logits)
        reference, side = side_inputs(calibrator, fitted, X, seen.rows)
        zero_shot = zero_shot_classifier(calibrator, fitted)
        log_of_zero = zero_logit(seen.logits)

        def fit_calibrator(held_out: HeldOut) -> Calibrator:
            rows = held_out.rows
            logits = fill_zeros(held_out.logits, log_of_zero)
            with without_advice():  # the caller has been warned above
                return clone(calibrator).fit(logits, labels[rows], weight[rows], classes=classes, **side)

        calibrators = fit_calibrator(seen), None if unseen is None else fit_calibrator(unseen)
        # Attributes are set at the end, so that a failed fit changes none of them.
        self.calibrator_, self.unseen_calibrator_ = calibrators
        self.estimator_, self.classes_, self.seen_classes_ = fitted, classes, classes
        self.reference_features_, self.zero_shot_, self.zero_logit_ = reference, zero_shot, log_of_zero
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)  # remove attributes of an earlier fit
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def _hold_out(
        self,
        given: FitInput,
        calibrator: Calibrator,
        fit_params: dict[str, Any],
        split_params: dict[str, Any],
    ) -> tuple[HeldOut, HeldOut | None]:
        """Return logits of held-out rows, and of held-out classes if `cv` holds out classes."""
        X, y = given.X, given.labels
        if holds_out_classes(self.cv):
            by_class = class_splitter(self.cv, self.estimator, calibrator).split(X, y)
            return held_out_classes(self.estimator, X, y, by_class, fit_params)
        splits = check_cv(limit_folds(given.cv, y), y, classifier=True).split(X, y, **split_params)
        return held_out_rows(self.estimator, X, y, splits, fit_params), None

    def _is_prefit(self) -> bool:
        by_name = isinstance(self.cv, str) and self.cv == "prefit"
        return by_name or isinstance(self.estimator, FrozenEstimator)

    def _route(self, given: FitInput) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments of ``estimator.fit`` and of ``splitter.split``."""
        if not _routing_enabled():
            return distribute_params(self.estimator, given)
        routed = process_routing(self, "fit", sample_weight=given.sample_weight, **given.params)
        return routed["estimator"]["fit"], routed["splitter"]["split"]

    def _logits(self, X: Any) -> Floats:
        return fill_zeros(class_logits(self.estimator_, X, self.classes_), self.zero_logit_)

    def _calibrated(self, X: Any, form: str) -> Floats:
        """Apply the method `form` of the calibrators to the logits."""
        check_is_fitted(self)
        with without_advice():  # the caller has been warned in fit
            return self._apply(X, form)

    def _apply(self, X: Any, form: str) -> Floats:
        X = encoded_once(self.calibrator_, self.estimator_, X)
        logits = self._logits(X)
        if self.unseen_calibrator_ is None:
            return getattr(self.calibrator_, form)(logits, **row_side_inputs(self, X))
        seen = np.isin(self.classes_, self.seen_classes_)[logits.argmax(axis=1)]
        out = np.empty_like(logits)
        for rows, calibrator in ((seen, self.calibrator_), (~seen, self.unseen_calibrator_)):
            if rows.any():
                out[rows] = getattr(calibrator, form)(logits[rows])
        return out

    def decision_function(self, X: Any) -> Floats:
        """Return calibrated logits, whose softmax is the probabilities.

        Parameters
        ----------
        X : indexable of length n_samples
            Input of the wrapped classifier.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes, the second logit minus the first.
        """
        logits = self._calibrated(X, "transform")
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : indexable of length n_samples
            Input of the wrapped classifier.

        Returns
        -------
        y_prob : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`.
        """
        return self._calibrated(X, "calibrate")

    def predict_log_proba(self, X: Any) -> Floats:
        """Return the logarithm of calibrated probabilities.

        Parameters
        ----------
        X : indexable of length n_samples
            Input of the wrapped classifier.

        Returns
        -------
        log_prob : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`.
        """
        return log_softmax(self._calibrated(X, "transform"), axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most likely label of each row.

        Parameters
        ----------
        X : indexable of length n_samples
            Input of the wrapped classifier.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Predicted labels. Ties are resolved in favor of the first label in `classes_`.
        """
        check_is_fitted(self)
        # If the calibrator preserves the argmax, use the logits: probabilities may be equal by rounding.
        kept = self.calibrator_.preserves_argmax
        column = (self._logits(X) if kept else self._calibrated(X, "calibrate")).argmax(axis=1)
        return self.classes_[column]

    @available_if(_has_with_classes)
    def with_classes(self, labels: Any) -> CalibratedCLIPClassifier:
        """Return a fitted copy for other classes, with the same calibrator.

        Only available if the wrapped classifier has ``with_classes``.

        Parameters
        ----------
        labels : array-like or mapping
            The new classes, as in ``with_classes`` of the wrapped classifier.

        Returns
        -------
        other : CalibratedCLIPClassifier
            A copy with new `estimator_`, `classes_` and calibrators. This object is not modified.

        Raises
        ------
        ValueError
            If the calibrator has parameters for each class.
        """
        check_is_fitted(self)
        other = copy.copy(self)
        other.estimator_ = self.estimator_.with_classes(plain_labels(labels))
        other.classes_ = np.unique(plain_labels(other.estimator_.classes_))
        side = class_side_inputs(self.calibrator_, other.estimator_)
        other.calibrator_ = self.calibrator_.for_classes(other.classes_, **side)
        other.zero_shot_ = zero_shot_classifier(self.calibrator_, other.estimator_)
        if self.unseen_calibrator_ is not None:
            other.unseen_calibrator_ = self.unseen_calibrator_.for_classes(other.classes_)
        return other

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the metadata routing of this object.

        Returns
        -------
        routing : MetadataRouter
            Requests of this object and, unless it is prefit, of its estimator and its splitter.
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        if self._is_prefit():
            return router
        router.add(estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        splitter = None if isinstance(self.cv, str) else self.cv
        return router.add(splitter=splitter, method_mapping=MethodMapping().add(caller="fit", callee="split"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        wrapped = get_tags(self.estimator)
        tags.input_tags = wrapped.input_tags
        if wrapped.classifier_tags is not None:
            tags.classifier_tags = wrapped.classifier_tags
        # scikit-learn's checks require a high accuracy on data sets that are too small for calibration.
        tags.classifier_tags.poor_score = True
        return tags
