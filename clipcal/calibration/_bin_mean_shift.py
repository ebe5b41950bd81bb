"""Calibration with a separate calibrator for each range of proximity."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from clipcal._caller import without_advice
from clipcal._compat import Interval
from clipcal.calibration._base import CalibrationRows, Calibrator
from clipcal.calibration._proximity_calibrator import ProximityCalibrator
from clipcal.calibration._temperature_scaling import TemperatureScaling

__all__ = ["BinMeanShift"]

Floats = NDArray[np.float64]


class BinMeanShift(ProximityCalibrator):
    """Fit a separate calibrator in each of several groups of rows with similar proximity.

    Rows that are far from the reference set may need a different correction than rows near it. The name is
    that of the published method; its code fits calibrators as here and does not shift by a mean.

    Parameters
    ----------
    calibrator : Calibrator, default=None
        Calibrator to fit in each group. It must not need side inputs. None means ``TemperatureScaling()``.

    n_groups : int, default=5
        Number of groups of about equal weight, at least 1. Few or tied rows give fewer groups. Edges lie
        half-way between neighboring values.

    min_samples : float, default=20
        Groups with fewer rows use a calibrator that is fitted on all rows. Weights count as rows; if their
        mean is below 1, they are scaled to a mean of 1.

    Attributes
    ----------
    group_edges_ : ndarray of shape (n_groups - 1,)
        Edges between groups in ascending order. Groups include their upper edge.

    calibrators_ : list of Calibrator
        The fitted calibrator of each group, in order of proximity.

    global_calibrator_ : Calibrator or None
        The calibrator fitted on all rows, used by small groups. None if there is no small group.

    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    n_features_in_ : int
        Number of columns in ``fit``.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns in ``fit``. Only defined if all are strings.

    See Also
    --------
    DensityRatioCalibration : Smooth correction of the confidence by proximity.
    clipcal.metrics.proximity : Compute the proximity.

    Notes
    -----
    `calibrator` determines whether predicted classes are unchanged and whether the calibrator can be used
    for other classes; both hold for temperature scaling. Rows of other classes often have a low proximity
    and then all use the calibrator of the lowest group. It needs `n_groups` times as many rows as
    `calibrator` alone.

    References
    ----------
    .. [1] M. Xiong, A. Deng, P. W. Koh, J. Wu, S. Li, J. Xu, B. Hooi. "Proximity-informed calibration for
       deep neural networks", NeurIPS 2023. :arxiv:`2306.04590`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import BinMeanShift
    >>> logits = np.tile([[3.0, 0.0]], (80, 1))
    >>> y = np.repeat([0, 1, 0, 1], [24, 16, 36, 4])  # accuracy: 60 % of far rows, 90 % of near rows
    >>> proximity = np.linspace(0.3, 0.7, 80)
    >>> shift = BinMeanShift(n_groups=2).fit(logits, y, proximity=proximity)
    >>> shift.calibrate([[3.0, 0.0], [3.0, 0.0]], proximity=[0.4, 0.6]).round(2)
    array([[0.6, 0.4],
           [0.9, 0.1]])
    """

    samples_needed: ClassVar[str] = "for each group as many as its calibrator needs, such as 5 times 50"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "calibrator": [Calibrator, None],
        "n_groups": [Interval(Integral, 1, None, closed="left")],
        "min_samples": [Interval(Real, 0, None, closed="left")],
    }

    group_edges_: Floats
    calibrators_: list[Calibrator]
    global_calibrator_: Calibrator | None

    def __init__(
        self, calibrator: Calibrator | None = None, *, n_groups: int = 5, min_samples: float = 20
    ) -> None:
        self.calibrator = calibrator
        self.n_groups = n_groups
        self.min_samples = min_samples

    @property
    def preserves_argmax(self) -> bool:
        """Whether the predicted classes are unchanged."""
        return self._template().preserves_argmax

    @property
    def class_agnostic(self) -> bool:
        """Whether the fitted calibrator can be used for classes other than those of ``fit``."""
        return self._template().class_agnostic

    def for_classes(self, classes: ArrayLike) -> Self:
        """Return a fitted copy of this calibrator for other classes.

        Parameters
        ----------
        classes : array-like of shape (n_classes,)
            The label of each column.

        Returns
        -------
        other : object
            A fitted copy; this object is not modified.

        Raises
        ------
        ValueError
            If the calibrator has parameters for each class.
        """
        other = super().for_classes(classes)
        other.calibrators_ = [fitted.for_classes(classes) for fitted in self.calibrators_]
        if self.global_calibrator_ is not None:
            other.global_calibrator_ = self.global_calibrator_.for_classes(classes)
        return other

    def _template(self) -> Calibrator:
        return TemperatureScaling() if self.calibrator is None else self.calibrator

    def _fit_near(self, rows: CalibrationRows, proximity: Floats) -> None:
        template = self._template()
        if template.side_inputs:
            raise ValueError(
                f"calibrator={type(template).__name__}() needs {template.side_inputs[0]}, which "
                "BinMeanShift does not pass. Use one without side inputs, such as TemperatureScaling()."
            )
        labels = self.classes_[rows.true_column]

        def fit_on(kept: NDArray[np.bool_] | slice) -> Calibrator:
            with without_advice():  # the caller has been warned already
                return clone(template).fit(
                    rows.logits[kept], labels[kept], rows.weight[kept], classes=self.classes_
                )

        edges = _group_edges(proximity, rows.weight, self.n_groups)
        group = np.searchsorted(edges, proximity)
        small = np.bincount(group, weights=rows.weight) < self.min_samples
        shared = fit_on(slice(None)) if small.any() else None
        fitted = [fit_on(group == g) if shared is None or not small[g] else shared for g in range(len(small))]
        self.group_edges_, self.calibrators_, self.global_calibrator_ = edges, fitted, shared

    def _near_probabilities(self, logits: Floats, proximity: Floats) -> Floats:
        return self._by_group("calibrate", logits, proximity)

    def _near_logits(self, logits: Floats, proximity: Floats) -> Floats:
        return self._by_group("transform", logits, proximity)

    def _by_group(self, form: str, logits: Floats, proximity: Floats) -> Floats:
        group = np.searchsorted(self.group_edges_, proximity)
        out = np.empty_like(logits)
        for g in np.unique(group):
            kept = group == g
            with without_advice():
                out[kept] = getattr(self.calibrators_[g], form)(logits[kept])
        return out


def _group_edges(proximity: Floats, weight: Floats, n_groups: int) -> Floats:
    """Return edges between distinct values such that groups have about equal weight and none is empty."""
    values, place = np.unique(proximity, return_inverse=True)
    passed = np.cumsum(np.bincount(place, weights=weight))
    # The tolerance covers rounding errors of the cumulative weights.
    targets = np.arange(1, n_groups) * (passed[-1] / n_groups) * (1.0 - 1e-12)
    last = np.unique(np.searchsorted(passed, targets))
    last = last[last < len(values) - 1]
    below, above = values[last], values[last + 1]
    middle = below / 2 + above / 2
    # The middle of adjacent floats may be rounded to the upper one; the edge is then the lower one.
    return np.where((below <= middle) & (middle < above), middle, below)
