"""Base class of calibrators that apply a linear map to tempered log-probabilities."""

from __future__ import annotations

import warnings
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning

from clipcal._caller import warn_caller
from clipcal._compat import Interval, StrOptions
from clipcal.calibration._base import CalibrationRows, Calibrator
from clipcal.calibration._linear_fit import LinearMap, Penalty, fit_linear_map, row_blocks
from clipcal.calibration._temperature_fit import solve_temperature

__all__ = ["PENALTY", "LinearCalibrator", "Start", "penalty_or"]

Floats = NDArray[np.float64]

PENALTY: list[Any] = [StrOptions({"auto"}), Interval(Real, 0.0, None, closed="left")]

# Tolerance for the derivatives of the mean log loss; smaller ones have no visible effect on probabilities.
_CONVERGED = 1e-5


class Start(NamedTuple):
    """The input of the linear map: tempered probabilities, mixed with the uniform distribution."""

    temperature: float
    smoothing: float

    def log_probabilities(self, logits: Floats) -> Floats:
        """Return log-probabilities; minus infinity is unchanged."""
        result = np.empty(logits.shape)
        for rows in row_blocks(logits.shape):
            block = logits[rows]
            possible = np.isfinite(block)
            uniform = np.log(self.smoothing / possible.sum(axis=1, keepdims=True))
            tempered = log_softmax(block / self.temperature, axis=1)
            mixed = np.logaddexp(tempered + np.log1p(-self.smoothing), uniform)
            result[rows] = np.where(possible, mixed, -np.inf)
        return result


class LinearCalibrator(Calibrator):
    """Base class of calibrators that apply a linear map to log-probabilities.

    Penalties draw the map towards the identity, which is temperature scaling. Subclasses implement
    ``_penalty`` and set ``_full``.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes,) or (n_classes, n_classes)
        Weights of the log-probabilities.

    intercept_ : ndarray of shape (n_classes,)
        Intercepts.

    temperature_ : float
        Temperature by which logits are divided first.

    smoothing_ : float
        Weight of the uniform distribution that is mixed in first.
    """

    preserves_argmax = False
    class_agnostic = False
    _full: bool

    def _penalty(self, n_classes: int, n_rows: float) -> Penalty:
        raise NotImplementedError

    def _fit_rows(self, rows: CalibrationRows) -> None:
        n_rows = float(rows.weight.sum())
        penalty = self._penalty(rows.logits.shape[1], n_rows)
        start = Start(_temperature(rows), 1.0 / (n_rows + 1.0))
        log_prob = start.log_probabilities(rows.logits)
        fitted, derivative = fit_linear_map(log_prob, rows.true_column, rows.weight, penalty, full=self._full)
        if derivative > _CONVERGED:
            warn_caller(
                f"{type(self).__name__} did not converge: the largest derivative of the log loss is "
                f"{derivative:.1e}. Increase the penalties, or fit on more rows.",
                ConvergenceWarning,
            )
        self.temperature_, self.smoothing_ = start
        self.coef_, self.intercept_ = fitted

    def _probabilities(self, logits: Floats) -> Floats:
        return np.asarray(softmax(self._calibrated_logits(logits), axis=1))

    def _calibrated_logits(self, logits: Floats) -> Floats:
        log_prob = Start(self.temperature_, self.smoothing_).log_probabilities(logits)
        return LinearMap(self.coef_, self.intercept_)(log_prob)


def penalty_or(chosen: float | Literal["auto"], rate: float) -> float:
    """Return `chosen` if it is a number, and `rate`, which decreases with the number of rows, otherwise."""
    return rate if chosen == "auto" else float(chosen)


def _temperature(rows: CalibrationRows) -> float:
    with warnings.catch_warnings():
        # The penalized linear map is well-defined even if the temperature is not.
        warnings.simplefilter("ignore", UserWarning)
        return 1.0 / solve_temperature(rows.logits, rows.true_column, rows.weight).inverse_temperature
