"""Base class of calibrators that use the proximity of each row."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import assert_all_finite, check_array, column_or_1d

from clipcal._arrays import to_numpy
from clipcal._compat import _fit_context
from clipcal._fitting import all_or_nothing
from clipcal.calibration._base import CalibrationRows, Calibrator, as_given

__all__ = ["ProximityCalibrator"]

Floats = NDArray[np.float64]


class ProximityCalibrator(Calibrator):
    """Base class of calibrators that use the proximity of each row to a reference set.

    Subclasses implement ``_fit_near`` and ``_near_probabilities``. They may override ``_near_logits``, which
    returns logarithms of the probabilities by default.
    """

    side_inputs: ClassVar[tuple[str, ...]] = ("proximity",)

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(
        self,
        logits: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
        proximity: ArrayLike | None = None,
    ) -> Self:
        """Fit on held-out rows, which were not used to train the classifier.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits, or logarithms of probabilities. Minus infinity marks a class that is excluded. A 1-D
            array holds the log-odds of the second of two classes, like a binary ``decision_function``.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative. A weight of 2 is equivalent to repeating the row. Rows of
            weight 0 are ignored.

        classes : array-like of shape (n_classes,), default=None
            The label of each column, usually ``estimator.classes_``. By default, the sorted unique
            values of `y`, which must match the number of columns.

        proximity : array-like of shape (n_samples,)
            Proximity of each row to a reference set, usually from :func:`clipcal.metrics.proximity`.
            Required.

        Returns
        -------
        self : object
            The fitted calibrator.

        Raises
        ------
        ValueError
            If the input is empty, has NaN or plus infinity, or inconsistent shapes or labels, or if
            `proximity` is missing.

        Warns
        -----
        UserWarning
            If `logits` look like probabilities.
        """
        rows = self._read_rows(logits, y, sample_weight, classes)
        self._fit_near(rows, self._read_proximity(proximity, len(rows.kept), "fit", rows.kept))
        return self

    def calibrate(self, logits: ArrayLike, *, proximity: ArrayLike | None = None) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits of the same kind as in ``fit``. A 1-D array holds the log-odds of two classes.

        proximity : array-like of shape (n_samples,)
            Proximity of each row to the reference set of ``fit``. Required.

        Returns
        -------
        y_prob : ndarray of shape (n_samples, n_classes)
            Rows sum to 1.
        """
        z = self._read_logits(logits)
        return self._near_probabilities(z, self._read_proximity(proximity, len(z), "calibrate"))

    def transform(self, logits: ArrayLike, *, proximity: ArrayLike | None = None) -> Floats:
        """Return calibrated logits, whose softmax is the calibrated probabilities.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits of the same kind as in ``fit``. A 1-D array holds the log-odds of two classes.

        proximity : array-like of shape (n_samples,)
            Proximity of each row to the reference set of ``fit``. Required.

        Returns
        -------
        calibrated : ndarray of shape (n_samples, n_classes) or (n_samples,)
            Minus infinity where the probability is 0. Log-odds if the input holds log-odds.
        """
        z = self._read_logits(logits)
        near = self._read_proximity(proximity, len(z), "transform")
        return as_given(self._near_logits(z, near), logits)

    def _fit_near(self, rows: CalibrationRows, proximity: Floats) -> None:
        raise NotImplementedError

    def _near_probabilities(self, logits: Floats, proximity: Floats) -> Floats:
        raise NotImplementedError

    def _near_logits(self, logits: Floats, proximity: Floats) -> Floats:
        return self._logarithms(self._near_probabilities(logits, proximity), logits)

    def _read_proximity(
        self,
        proximity: ArrayLike | None,
        n_samples: int,
        method: str,
        kept: NDArray[np.bool_] | slice = slice(None),
    ) -> Floats:
        caller = f"{type(self).__name__}.{method}"
        if proximity is None:
            raise ValueError(
                f"{caller} needs the proximity of each row. Pass proximity=clipcal.metrics.proximity("
                "features, reference), or use the calibrator in CalibratedCLIPClassifier, which computes it."
            )
        near = column_or_1d(
            check_array(to_numpy(proximity), dtype=np.float64, ensure_2d=False, ensure_all_finite=False)
        )
        if len(near) != n_samples:
            raise ValueError(
                f"{caller} got {n_samples} rows of logits but {len(near)} entries of proximity. "
                "Pass one number for each row."
            )
        assert_all_finite(near[kept], input_name="proximity")
        return near[kept]
