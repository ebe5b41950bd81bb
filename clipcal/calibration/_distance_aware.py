"""Distance-aware calibration: a scale of logits for each class, from its text features."""

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
    """Lower the confidence in classes whose text features have moved away from the base classes.

    Prompt tuning makes models over-confident on unseen classes, the more so the further their text features
    move away from those of the classes used in tuning (the base classes). If the predicted class of a row
    is an unseen class, the logits of the row are multiplied by ``exp(before - after)``, where the two numbers
    are the mean distances of that class to its nearest base classes before and after tuning. The scales are
    not fitted. `calibrator` is applied afterwards.

    Parameters
    ----------
    calibrator : Calibrator, default=None
        Calibrator to apply to the scaled logits. It is fitted on base classes, whose logits are not scaled,
        and must not need side inputs. None means the softmax.

    n_neighbors : int, default=5
        Number of nearest base classes, at least 1. If there are fewer, all are used.

    seen_tolerance : float, default=0.05
        Classes within this distance of a base class after tuning count as base classes.

    template : str or sequence of str, default=None
        Template of the features before tuning, if :class:`~clipcal.calibration.CalibratedCLIPClassifier`
        computes them: a template with one ``{}``, the name of a known template, or a sequence of these (see
        :func:`clipcal.text.find_templates`). None means the default of ``zero_shot`` of the classifier. It
        has no effect on features that are passed to ``fit`` and ``for_classes``.

    Attributes
    ----------
    scales_ : ndarray of shape (n_classes,)
        Factor of the logits of rows that are predicted as this class; between ``exp(-2)`` and ``exp(2)``,
        and 1 for base classes.

    base_text_features_ : ndarray of shape (n_base_classes, n_features)
        Text features of the base classes after tuning, of unit length.

    base_zero_shot_features_ : ndarray of shape (n_base_classes, n_features)
        Text features of the base classes before tuning, of unit length.

    calibrator_ : Calibrator or None
        The fitted calibrator.

    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    n_features_in_ : int
        Number of columns in ``fit``.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns in ``fit``. Only defined if all are strings.

    See Also
    --------
    TemperatureScaling : Divide all logits by the same temperature.

    Notes
    -----
    Use ``for_classes`` with text features to get a copy for unseen classes. `calibrator` determines whether
    predicted classes are unchanged and whether other classes are supported; both hold with None and with
    temperature scaling. No rows are needed except those for `calibrator`.

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
    >>> before = np.array([[1.0, 0.0], [0.8, -0.6]])  # the second class moves away
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
        """Whether the predicted classes are unchanged."""
        return self.calibrator is None or self.calibrator.preserves_argmax

    @property
    def class_agnostic(self) -> bool:
        """Whether the fitted calibrator can be used for classes other than those of ``fit``."""
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
        """Fit on held-out rows of the base classes, which were not used to train the classifier.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits, or logarithms of probabilities. Minus infinity marks a class that is excluded. A 1-D
            array holds the log-odds of the second of two classes, like a binary ``decision_function``.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative. Rows of weight 0 are ignored.

        classes : array-like of shape (n_classes,), default=None
            The label of each column, usually ``estimator.classes_``. By default, the sorted unique
            values of `y`, which must match the number of columns.

        text_features : array-like of shape (n_classes, n_features)
            Text features of the base classes after tuning, one row for each column of `logits`. Rows are
            normalized. Required.

        zero_shot_features : array-like of shape (n_classes, n_features)
            Text features of the base classes before tuning. Required.

        Returns
        -------
        self : object
            The fitted calibrator.

        Raises
        ------
        ValueError
            If the input is empty, has NaN or plus infinity, or inconsistent shapes or labels, if features are
            missing or have a row of zeros, or if `template` is invalid.

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
        """Return a fitted copy of this calibrator for other classes.

        Parameters
        ----------
        classes : array-like of shape (n_classes,)
            The label of each column, which may include base classes.

        text_features : array-like of shape (n_classes, n_features)
            Text features of these classes after tuning, one row for each class. Required.

        zero_shot_features : array-like of shape (n_classes, n_features)
            Text features of these classes before tuning. Required.

        Returns
        -------
        other : object
            A fitted copy with the same base classes; this object is not modified.

        Raises
        ------
        ValueError
            If `calibrator` has parameters for each class, or if features are missing, have a row of zeros,
            or another number of columns than in ``fit``.
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
                    "Encode all classes with the same model."
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
                f"calibrator={type(self.calibrator).__name__}() needs {self.calibrator.side_inputs[0]}, "
                "which DistanceAwareCalibration does not pass. Use one without side inputs, such as "
                "TemperatureScaling()."
            )
        labels = self.classes_[rows.true_column]
        with without_advice():  # the caller has been warned already
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
                f"logits has {logits.shape[1]} columns but this {type(self).__name__} has "
                f"{len(self.scales_)} classes. For other classes, call for_classes(classes, "
                "text_features=..., zero_shot_features=...) first."
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
                f"{caller} needs text features after and before tuning. Pass text_features=... and "
                "zero_shot_features=..., or use the calibrator in CalibratedCLIPClassifier, which passes "
                "them."
            )
        tuned = _unit_rows(text_features, "text_features", len(classes), caller)
        return tuned, _unit_rows(zero_shot_features, "zero_shot_features", len(classes), caller)


def _unit_rows(features: ArrayLike, name: str, n_classes: int, caller: str) -> Floats:
    """Return features normalized to unit length, one row for each class."""
    values = check_array(to_numpy(features), dtype=np.float64, input_name=name)
    if len(values) != n_classes:
        raise ValueError(
            f"{caller} got {len(values)} rows of {name} for {n_classes} classes. Pass one row for each "
            "class, in the order of the columns of logits."
        )
    largest = np.abs(values).max(axis=1, keepdims=True)
    zero = np.flatnonzero(largest == 0)
    if len(zero):
        raise ValueError(f"Rows {zero[:5].tolist()} of {name} are all zeros and cannot be normalized.")
    # Scale first: squares of very large or small numbers overflow or underflow.
    values = values / largest
    return values / np.linalg.norm(values, axis=1, keepdims=True)
