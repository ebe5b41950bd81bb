"""Calibration around a classifier, which its new classes inherit where that is possible."""

from __future__ import annotations

import copy
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
from clipcal.calibration._fit_input import FitInput, read_fit_input, share_out
from clipcal.calibration._held_out import (
    HeldOut,
    check_prefit,
    class_splitter,
    held_out_classes,
    held_out_rows,
    holds_out_classes,
    limit_folds,
)
from clipcal.calibration._logits import advise_of_answers, class_logits, fill_zeros, zero_logit
from clipcal.calibration._side_inputs import (
    check_side_inputs,
    encoded_once,
    image_features,
    side_inputs,
    text_side_inputs,
)
from clipcal.metrics import proximity

__all__ = ["CalibratedCLIPClassifier"]

Floats = NDArray[np.float64]


def _has_with_classes(self: CalibratedCLIPClassifier) -> bool:
    return hasattr(getattr(self, "estimator_", self.estimator), "with_classes")


class CalibratedCLIPClassifier(ScoredClassifier, MetaEstimatorMixin, NamedComponents):
    """Fit a calibrator on rows that the classifier was not trained on, and apply it to all predictions.

    It works around any classifier of scikit-learn. Around one that can be asked about other classes, such as
    :class:`~clipcal.classifiers.PromptTunedCLIPClassifier`, it carries over to these what can be.

    Parameters
    ----------
    estimator : classifier
        The classifier to calibrate. Its ``decision_function`` must return logits (of two classes: their
        difference); without that method the logarithm of ``predict_proba`` is used.

    method : str or Calibrator, default="temperature"
        What maps logits to probabilities: a calibrator of :mod:`clipcal.calibration`, or one of the names in
        ``clipcal.calibration.CALIBRATORS``, such as ``"temperature"``, ``"vector"`` or ``"isotonic"``.

    cv : int, cross-validation generator, iterable, "prefit" or "classes", default=5
        Where the held-out logits come from.

        - int: at most so many stratified folds, and no more than the smallest class has members. Clones
          of `estimator` are fitted on the training parts; then one is fitted on all rows.
        - generator or iterable of splits: the same with these splits. Rows whose class is missing from a
          training part do not take part in fitting the calibrator.
        - "prefit": `estimator` is already fitted and left as it is. All rows are used to fit the
          calibrator, so they must be none that `estimator` was fitted on. A
          :class:`~sklearn.frozen.FrozenEstimator` is always treated this way; it also survives searches.
        - "classes", or a :class:`~clipcal.model_selection.LeaveClassesOut`: whole classes are held out as
          well, and two calibrators are fitted, one on pictures of trained classes and one on classes that
          the models had not seen. Each prediction uses the one that its predicted class belongs to.
          "classes" stands for ``LeaveClassesOut(seen_size=0.2, random_state=0)``.

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
        The one for classes outside `seen_classes_`, where classes were held out.

    zero_logit_ : float
        What stands for the logarithm of a probability of exactly 0, where the classifier gives probabilities
        only: half of the smallest positive one among the held-out rows.

    reference_features_ : ndarray of shape (n_held_out, n_features) or None
        Features of the rows that the calibrator was fitted on, if it asks how near new rows are to them.

    n_features_in_ : int
        Number of features in ``fit``, if the wrapped classifier exposes it.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features in ``fit``, if the wrapped classifier exposes them.

    See Also
    --------
    TemperatureScaling : The default calibrator, for plain arrays of logits.
    sklearn.calibration.CalibratedClassifierCV : Fits similar maps, which do not carry over to new classes.

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

    def _named_component(self, parameter: str, name: str) -> Any:
        return named_calibrator(name)

    # The wrapped estimator checks its own parameters when it is fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, **fit_params: Any
    ) -> CalibratedCLIPClassifier:
        """Fit the classifier, unless it is fitted already, and the calibrator.

        Parameters
        ----------
        X : indexable of length n_samples
            Whatever `estimator` accepts: an array, a data frame, a list of images or of paths.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights. They enter the fit of the calibrator, and that of `estimator` if it accepts them. Rows
            of weight 0 are left out of everything, as if they had not been passed.

        **fit_params : dict
            Further arguments for ``estimator.fit``, but for `groups`, which a splitter in `cv` that uses
            groups is given. With metadata routing they go to whoever requested them.

        Returns
        -------
        self : CalibratedCLIPClassifier
            The fitted object.

        Raises
        ------
        ValueError
            If a class is too small to be split, `y` holds labels that a fitted estimator lacks, or `method`
            cannot do what `cv` asks for.

        NotFittedError
            If ``cv="prefit"`` and `estimator` is not fitted.

        TypeError
            If `method` is no calibrator, or needs features that `estimator` cannot give.
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

        advise_of_answers(fitted, seen.logits)
        reference, side = side_inputs(calibrator, fitted, X, seen.rows)
        log_of_zero = zero_logit(seen.logits)

        def fit_calibrator(held_out: HeldOut) -> Calibrator:
            rows = held_out.rows
            logits = fill_zeros(held_out.logits, log_of_zero)
            with without_advice():  # given above
                return clone(calibrator).fit(logits, labels[rows], weight[rows], classes=classes, **side)

        calibrators = fit_calibrator(seen), None if unseen is None else fit_calibrator(unseen)
        # Set together at the end, so that a failed fit changes nothing.
        self.calibrator_, self.unseen_calibrator_ = calibrators
        self.estimator_, self.classes_, self.seen_classes_ = fitted, classes, classes
        self.reference_features_, self.zero_logit_ = reference, log_of_zero
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)  # of an earlier fit
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
        """Return logits of held-out rows, and of held-out classes if `cv` asks for them."""
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
        """Return what goes to ``estimator.fit`` and what goes to ``splitter.split``."""
        if not _routing_enabled():
            return share_out(self.estimator, given)
        routed = process_routing(self, "fit", sample_weight=given.sample_weight, **given.params)
        return routed["estimator"]["fit"], routed["splitter"]["split"]

    def _logits(self, X: Any) -> Floats:
        return fill_zeros(class_logits(self.estimator_, X, self.classes_), self.zero_logit_)

    def _calibrated(self, X: Any, form: str) -> Floats:
        """Return what the calibrators' method `form` makes of the logits."""
        check_is_fitted(self)
        with without_advice():  # given in fit
            return self._apply(X, form)

    def _apply(self, X: Any, form: str) -> Floats:
        X = encoded_once(self.calibrator_, self.estimator_, X)
        logits = self._logits(X)
        if self.reference_features_ is not None:
            nearness = proximity(image_features(self.estimator_, X), self.reference_features_)
            return getattr(self.calibrator_, form)(logits, proximity=nearness)
        if self.unseen_calibrator_ is None:
            return getattr(self.calibrator_, form)(logits)
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
            Whatever the wrapped classifier accepts.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the difference between the second and the first.
        """
        logits = self._calibrated(X, "transform")
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> Floats:
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
        return self._calibrated(X, "calibrate")

    def predict_log_proba(self, X: Any) -> Floats:
        """Return the logarithm of calibrated probabilities.

        Parameters
        ----------
        X : indexable of length n_samples
            Whatever the wrapped classifier accepts.

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
            Whatever the wrapped classifier accepts.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels; of equally likely ones the first in `classes_`.
        """
        check_is_fitted(self)
        # Where the order of the classes is kept, rounding to equal probabilities must not change it.
        kept = self.calibrator_.preserves_argmax
        column = (self._logits(X) if kept else self._calibrated(X, "calibrate")).argmax(axis=1)
        return self.classes_[column]

    @available_if(_has_with_classes)
    def with_classes(self, labels: Any) -> CalibratedCLIPClassifier:
        """Return a fitted copy for other classes, with what the calibrator can carry over.

        Parameters
        ----------
        labels : array-like or mapping
            The new classes, as the wrapped classifier's ``with_classes`` takes them, if it has this method.

        Returns
        -------
        other : CalibratedCLIPClassifier
            A copy whose `estimator_`, `classes_` and calibrators are new. This object stays as it is.

        Raises
        ------
        ValueError
            If the calibrator has numbers of its own for each class.
        """
        check_is_fitted(self)
        other = copy.copy(self)
        other.estimator_ = self.estimator_.with_classes(plain_labels(labels))
        other.classes_ = np.unique(plain_labels(other.estimator_.classes_))
        about_texts = "text_features" in self.calibrator_.side_inputs
        side = text_side_inputs(self.calibrator_, other.estimator_) if about_texts else {}
        other.calibrator_ = self.calibrator_.for_classes(other.classes_, **side)
        if self.unseen_calibrator_ is not None:
            other.unseen_calibrator_ = self.unseen_calibrator_.for_classes(other.classes_)
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
        router.add(estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        splitter = None if isinstance(self.cv, str) else self.cv
        return router.add(splitter=splitter, method_mapping=MethodMapping().add(caller="fit", callee="split"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        wrapped = get_tags(self.estimator)
        tags.input_tags = wrapped.input_tags
        if wrapped.classifier_tags is not None:
            tags.classifier_tags = wrapped.classifier_tags
        # The checks ask for good accuracy on sets too small to be split and calibrated.
        tags.classifier_tags.poor_score = True
        return tags
