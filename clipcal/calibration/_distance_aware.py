"""A temperature for each class by how far tuning has moved its text from the classes tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.utils import check_array

from clipcal._arrays import to_numpy
from clipcal._caller import without_advice
from clipcal._compat import Interval, _fit_context
from clipcal._fitting import all_or_nothing
from clipcal.calibration._base import CalibrationRows, Calibrator, probabilities
from clipcal.text import find_templates

__all__ = ["DistanceAwareCalibration"]

Floats = NDArray[np.float64]


class DistanceAwareCalibration(Calibrator):
    """Lower confidences in classes whose text tuning has moved away from the classes it was tuned on.

    Prompt tuning makes a model too sure of classes that it was not tuned on, and the more so the farther
    their text features move away from those of the classes tuned on (the base classes). Logits of rows
    that are given to such a class are multiplied by ``exp(before - after)``, where the two numbers are the
    class's mean distance from its nearest base classes before and after tuning. Nothing is fitted here but
    `calibrator`, which takes over after that.

    Parameters
    ----------
    calibrator : Calibrator, default=None
        What is applied to the scaled logits. It is fitted on base classes, whose logits are not scaled. It
        must not ask for side inputs. None leaves the softmax alone.

    n_neighbors : int, default=5
        Number of nearest base classes, at least 1. All are taken if there are fewer.

    seen_tolerance : float, default=0.05
        A class this close to a base class after tuning counts as one of them, and its logits are not scaled.

    template : str or sequence of str, default=None
        Template of the features before tuning where
        :class:`~clipcal.calibration.CalibratedCLIPClassifier` gets them from a classifier: a template with
        one ``{}``, the name of a known one, or a sequence of these (see
        :func:`clipcal.text.find_templates`). None is the default of the classifier's ``zero_shot``. Features
        that are passed to ``fit`` and ``for_classes`` are taken as they are.

    Attributes
    ----------
    scales_ : ndarray of shape (n_classes,)
        What the logits of a row are multiplied by if its largest belongs to this class; between
        ``exp(-2)`` and ``exp(2)``, and 1 for base classes.

    base_text_features_ : ndarray of shape (n_base_classes, n_features)
        Features of the base classes as tuned, of unit length.

    base_zero_shot_features_ : ndarray of shape (n_base_classes, n_features)
        Features of the base classes before tuning, of unit length.

    calibrator_ : Calibrator or None
        The fitted calibrator.

    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    n_features_in_ : int
        Number of columns in ``fit``.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns in ``fit``. Only defined if they all are strings.

    See Also
    --------
    TemperatureScaling : Divides all logits by the same temperature.

    Notes
    -----
    Other classes are its purpose: ``for_classes`` takes their text features and returns a copy for them.
    Whether it keeps the argmax, and whether there can be other classes, is decided by `calibrator`; with
    None and with temperature scaling both hold. It needs no rows of its own, only those for `calibrator`.

    References
    ----------
    .. [1] S. Wang, J. Wang, G. Wang, B. Zhang, K. Zhou, H. Wei. "Open-vocabulary calibration for
       fine-tuned CLIP", ICML 2024. :arxiv:`2402.04655`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import DistanceAwareCalibration
    >>> base = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> aware = DistanceAwareCalibration(n_neighbors=1)
    >>> aware = aware.fit([[9.0, 0.0], [0.0, 9.0]], [0, 1], text_features=base, zero_shot_features=base)
    >>> before = np.array([[1.0, 0.0], [0.8, -0.6]])  # tuning moves the second class away
    >>> after = np.array([[1.0, 0.0], [0.6, -0.8]])
    >>> new = aware.for_classes(["old", "new"], text_features=after, zero_shot_features=before)
    >>> new.scales_.round(2)
    array([1.  , 0.77])
    """

    side_inputs: ClassVar[tuple[str, ...]] = ("text_features",)
    samples_needed: ClassVar[str] = "none, or as many as its calibrator needs"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "calibrator": [Calibrator, None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "seen_tolerance": [Interval(Real, 0, None, closed="left")],
        "template": [str, "array-like", None],
    }

    scales_: Floats
    base_text_features_: Floats
    base_zero_shot_features_: Floats
    calibrator_: Calibrator | None

    def __init__(
        self,
        calibrator: Calibrator | None = None,
        *,
        n_neighbors: int = 5,
        seen_tolerance: float = 0.05,
        template: str | Sequence[str] | None = None,
    ) -> None:
        self.calibrator = calibrator
        self.n_neighbors = n_neighbors
        self.seen_tolerance = seen_tolerance
        self.template = template

    @property
    def preserves_argmax(self) -> bool:
        """Whether predictions stay the same."""
        return self.calibrator is None or self.calibrator.preserves_argmax

    @property
    def class_agnostic(self) -> bool:
        """Whether what was fitted may be applied to other classes than those of ``fit``."""
        return self.calibrator is None or self.calibrator.class_agnostic

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(
        self,
        logits: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
        text_features: ArrayLike | None = None,
        zero_shot_features: ArrayLike | None = None,
    ) -> Self:
        """Fit on rows of the base classes that the classifier was not trained on.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits, or logarithms of probabilities. Minus infinity marks a class that is excluded. A 1-D
            array holds the log-odds of the second of two classes, as binary ``decision_function`` does.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative. Rows of weight 0 are not looked at.

        classes : array-like of shape (n_classes,), default=None
            The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
            of `y`, provided that there are as many as columns.

        text_features : array-like of shape (n_classes, n_features)
            Text features of the base classes as tuned, one row for each column of `logits`, of any length.
            They must be given.

        zero_shot_features : array-like of shape (n_classes, n_features)
            The same before tuning. They must be given.

        Returns
        -------
        self : object
            The fitted calibrator.

        Raises
        ------
        ValueError
            If the input is empty, holds NaN or plus infinity, or does not fit together, or if features are
            missing or of length zero, or if `template` is invalid.

        Warns
        -----
        UserWarning
            If `logits` look like probabilities.
        """
        if self.template is not None:
            find_templates(self.template)
        rows = self._read_rows(logits, y, sample_weight, classes)
        tuned, zero_shot = self._read_features(text_features, zero_shot_features, self.classes_, "fit")
        fitted = self._fit_calibrator(rows)
        self.base_text_features_, self.base_zero_shot_features_ = tuned, zero_shot
        self.scales_, self.calibrator_ = np.ones(len(tuned)), fitted
        return self

    def for_classes(
        self,
        classes: ArrayLike,
        *,
        text_features: ArrayLike | None = None,
        zero_shot_features: ArrayLike | None = None,
    ) -> Self:
        """Return this calibrator for other classes, or say why it cannot serve them.

        Parameters
        ----------
        classes : array-like of shape (n_classes,)
            The label of each column from now on. Base classes may be among them.

        text_features : array-like of shape (n_classes, n_features)
            Text features of these classes as tuned, one row for each, of any length. They must be given.

        zero_shot_features : array-like of shape (n_classes, n_features)
            The same before tuning. They must be given.

        Returns
        -------
        other : object
            A fitted copy, which still knows the base classes; this object stays as it is.

        Raises
        ------
        ValueError
            If what `calibrator` has fitted belongs to the classes of ``fit``, or if features are missing,
            of length zero, or do not fit to those in ``fit``.
        """
        other = super().for_classes(classes)
        tuned, zero_shot = self._read_features(
            text_features, zero_shot_features, other.classes_, "for_classes"
        )
        for name, current, base in (
            ("text_features", tuned, self.base_text_features_),
            ("zero_shot_features", zero_shot, self.base_zero_shot_features_),
        ):
            if current.shape[1] != base.shape[1]:
                raise ValueError(
                    f"{name} has {current.shape[1]} columns but had {base.shape[1]} in fit. "
                    "Encode all classes by the same model."
                )
        after = cdist(tuned, self.base_text_features_)
        before = cdist(zero_shot, self.base_zero_shot_features_)
        seen = after.min(axis=1) <= self.seen_tolerance
        farther = self._mean_nearest(after) - self._mean_nearest(before)
        other.scales_ = np.where(seen, 1.0, np.exp(-farther))
        if self.calibrator_ is not None:
            other.calibrator_ = self.calibrator_.for_classes(classes)
        return other

    def _mean_nearest(self, distance: Floats) -> Floats:
        k = min(self.n_neighbors, distance.shape[1])
        return np.partition(distance, k - 1, axis=1)[:, :k].mean(axis=1)

    def _fit_calibrator(self, rows: CalibrationRows) -> Calibrator | None:
        if self.calibrator is None:
            return None
        if self.calibrator.side_inputs:
            raise ValueError(
                f"calibrator={type(self.calibrator).__name__}() asks for {self.calibrator.side_inputs[0]}, "
                "which DistanceAwareCalibration cannot give it. Take one without side inputs, such as "
                "TemperatureScaling()."
            )
        labels = self.classes_[rows.true_column]
        with without_advice():  # given already
            return clone(self.calibrator).fit(rows.logits, labels, rows.weight, classes=self.classes_)

    def _probabilities(self, logits: Floats) -> Floats:
        scaled = self._scale(logits)
        if self.calibrator_ is None:
            return probabilities(scaled)
        with without_advice():
            return self.calibrator_.calibrate(scaled)

    def _calibrated_logits(self, logits: Floats) -> Floats:
        scaled = self._scale(logits)
        if self.calibrator_ is None:
            return scaled
        with without_advice():
            return self.calibrator_.transform(scaled)

    def _scale(self, logits: Floats) -> Floats:
        if logits.shape[1] != len(self.scales_):
            raise ValueError(
                f"logits has {logits.shape[1]} columns but this {type(self).__name__} serves "
                f"{len(self.scales_)} classes. For others call for_classes(classes, text_features=..., "
                "zero_shot_features=...) first."
            )
        return logits * self.scales_[logits.argmax(axis=1), None]

    def _read_features(
        self,
        text_features: ArrayLike | None,
        zero_shot_features: ArrayLike | None,
        classes: NDArray[Any],
        method: str,
    ) -> tuple[Floats, Floats]:
        caller = f"{type(self).__name__}.{method}"
        if text_features is None or zero_shot_features is None:
            raise ValueError(
                f"{caller} needs text features as tuned and before tuning. Pass text_features=... and "
                "zero_shot_features=..., or put the calibrator into CalibratedCLIPClassifier, which does so "
                "by itself."
            )
        tuned = _unit_rows(text_features, "text_features", len(classes), caller)
        return tuned, _unit_rows(zero_shot_features, "zero_shot_features", len(classes), caller)


def _unit_rows(features: ArrayLike, name: str, n_classes: int, caller: str) -> Floats:
    """Return features of length 1, one row for each class."""
    values = check_array(to_numpy(features), dtype=np.float64, input_name=name)
    if len(values) != n_classes:
        raise ValueError(
            f"{caller} got {len(values)} rows of {name} for {n_classes} classes. Pass one row for each, "
            "in the order of the columns of logits."
        )
    largest = np.abs(values).max(axis=1, keepdims=True)
    zero = np.flatnonzero(largest == 0)
    if len(zero):
        raise ValueError(f"Rows {zero[:5].tolist()} of {name} are zero throughout and have no direction.")
    # Squares of very large and very small numbers leave the range of float64.
    values = values / largest
    return values / np.linalg.norm(values, axis=1, keepdims=True)
