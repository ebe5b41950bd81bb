"""What linear calibrators share: they begin with temperature scaling and leave it where rows say so."""

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

# Derivatives are those of a mean log loss; what is left at this size moves no probability noticeably.
_CONVERGED = 1e-5


class Start(NamedTuple):
    """What the linear map is applied to: tempered probabilities with a little of the uniform distribution."""

    temperature: float
    smoothing: float

    def log_probabilities(self, logits: Floats) -> Floats:
        """Return log-probabilities; minus infinity stays where it is."""
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
    """Base of calibrators that apply a linear map to log-probabilities.

    A subclass writes ``_penalty`` and sets ``_full``.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes,) or (n_classes, n_classes)
        Weights of the log-probabilities.

    intercept_ : ndarray of shape (n_classes,)
        What is added to them.

    temperature_ : float
        What logits are divided by beforehand.

    smoothing_ : float
        The part of the uniform distribution that is mixed in beforehand.
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
                f"{type(self).__name__} stopped before the smallest log loss was reached: the largest "
                f"derivative is {derivative:.1e}. Raise the penalties, or fit on more rows.",
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
    """Return the number that was chosen, or else the rate that fades as rows accumulate."""
    return rate if chosen == "auto" else float(chosen)


def _temperature(rows: CalibrationRows) -> float:
    with warnings.catch_warnings():
        # Unlike a temperature on its own, the map that follows is determined even if this is not.
        warnings.simplefilter("ignore", UserWarning)
        return 1.0 / solve_temperature(rows.logits, rows.true_column, rows.weight).inverse_temperature
