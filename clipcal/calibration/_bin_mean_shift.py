"""One calibrator for each range of proximity."""

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
    """Fit a calibrator of its own for each of several groups of equal size by proximity.

    Rows unlike any that a model knows call for another correction than familiar ones. The name is that of
    the published method, whose code does what is done here; nothing is shifted by a mean.

    Parameters
    ----------
    calibrator : Calibrator, default=None
        What is fitted in each group; it must not ask for side inputs. None is ``TemperatureScaling()``.

    n_groups : int, default=5
        Number of groups, at least 1. Fewer are made if rows are few or tied in proximity. Cuts lie half-way
        between neighbouring values.

    min_samples : float, default=20
        A group with fewer rows uses a calibrator that is fitted on all rows. Weights count as rows; those
        with a mean below 1 are scaled up to it.

    Attributes
    ----------
    group_edges_ : ndarray of shape (n_groups - 1,)
        The cuts between groups, ascending. A group holds its upper edge.

    calibrators_ : list of Calibrator
        The fitted calibrator of each group, in order of proximity.

    global_calibrator_ : Calibrator or None
        The one fitted on all rows, which small groups use; None if there is no small group.

    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    n_features_in_ : int
        Number of columns in ``fit``.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns in ``fit``. Only defined if they all are strings.

    See Also
    --------
    DensityRatioCalibration : Lets proximity act smoothly, and only on the first choice.
    clipcal.metrics.proximity : Computes the side input.

    Notes
    -----
    Whether it keeps the argmax and whether it transfers to other classes is decided by `calibrator`; both
    hold for temperature scaling. Rows of other classes often have a low proximity, and then all use the
    calibrator of the lowest group. It needs `n_groups` times as many rows as `calibrator` alone.

    References
    ----------
    .. [1] M. Xiong, A. Deng, P. W. Koh, J. Wu, S. Li, J. Xu, B. Hooi. "Proximity-informed calibration for
       deep neural networks", NeurIPS 2023. :arxiv:`2306.04590`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import BinMeanShift
    >>> logits = np.tile([[3.0, 0.0]], (80, 1))
    >>> y = np.repeat([0, 1, 0, 1], [24, 16, 36, 4])  # right: 60 % of the far rows, 90 % of the near ones
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
        """Whether predictions stay the same."""
        return self._template().preserves_argmax

    @property
    def class_agnostic(self) -> bool:
        """Whether what was fitted may be applied to other classes than those of ``fit``."""
        return self._template().class_agnostic

    def for_classes(self, classes: ArrayLike) -> Self:
        """Return this calibrator for other classes, or say why it cannot serve them.

        Parameters
        ----------
        classes : array-like of shape (n_classes,)
            The label of each column from now on.

        Returns
        -------
        other : object
            A fitted copy; this object stays as it is.

        Raises
        ------
        ValueError
            If what was fitted belongs to the classes of ``fit``.
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
                f"calibrator={type(template).__name__}() asks for {template.side_inputs[0]}, which "
                "BinMeanShift cannot give it. Take one without side inputs, such as TemperatureScaling()."
            )
        labels = self.classes_[rows.true_column]

        def fit_on(kept: NDArray[np.bool_] | slice) -> Calibrator:
            with without_advice():  # given already
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
    """Cut between distinct values so that the groups weigh about the same and none is empty."""
    values, place = np.unique(proximity, return_inverse=True)
    passed = np.cumsum(np.bincount(place, weights=weight))
    # The slack keeps a cut in place when rounding makes a cumulative weight miss its target.
    targets = np.arange(1, n_groups) * (passed[-1] / n_groups) * (1.0 - 1e-12)
    last = np.unique(np.searchsorted(passed, targets))
    last = last[last < len(values) - 1]
    below, above = values[last], values[last + 1]
    middle = below / 2 + above / 2
    # Between neighbouring floats there is no middle, and rounding may hit the upper one.
    return np.where((below <= middle) & (middle < above), middle, below)
