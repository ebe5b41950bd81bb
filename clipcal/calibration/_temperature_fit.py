"""The temperature that suits logits best: one convex problem in one number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from clipcal._arrays import to_numpy
from clipcal._caller import warn_caller
from clipcal._columns import check_names
from clipcal._logit_input import advise_of_probabilities, holds_log_odds, two_columns
from clipcal._weights import check_weight

__all__ = ["TemperatureSolution", "fit_temperature", "solve_temperature"]

# The search interval for ln(beta), after the logits have been brought to unit scale; far beyond its ends
# float64 has no numbers.
_LOG_BETA_BOUND = 600.0
# Enough rows to come within a few per cent of the solution.
_PILOT_ROWS = 2048
_BLOCK_ENTRIES = 2**16

Floats = NDArray[np.float64]


class TemperatureSolution(NamedTuple):
    """An inverse temperature, and whether the data determine it."""

    inverse_temperature: float
    identified: bool


def fit_temperature(logits: ArrayLike, y_index: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Find the inverse temperature that makes the true classes most likely.

    The log loss of ``softmax(beta * logits)`` is convex in ``beta``, so its minimum is where the gradient
    changes sign. The sign change is bracketed and found in ``log(beta)`` by Newton steps, in float64.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes) or (n_samples,)
        Logits. Minus infinity marks a class that the model excludes. A 1-D array holds the log-odds of the
        second of two classes, as binary ``decision_function`` does.

    y_index : array-like of shape (n_samples,), dtype int
        Column of the true class of each row; for log-odds 0 or 1.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative. Rows of weight 0 are not looked at.

    Returns
    -------
    inverse_temperature : float
        ``beta = 1 / T``, to be multiplied with logits. It is 1 if no optimum exists.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN, or does not fit together, or if the logit of a true class is
        not finite.

    Warns
    -----
    UserWarning
        If no finite positive temperature is best: every row is classified correctly, or the true classes
        score no higher than the average class. Also if `logits` look like probabilities.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On calibration of modern neural networks",
       ICML 2017. :arxiv:`1706.04599`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import fit_temperature
    >>> logits = np.tile([[2.0, 0.0]], (4, 1))
    >>> beta = fit_temperature(logits, [0, 0, 0, 1])
    >>> round(float(1 / (1 + np.exp(-2 * beta))), 6)  # the accuracy
    0.75
    """
    return solve_temperature(*_check_logits(logits, y_index, sample_weight)).inverse_temperature


def solve_temperature(
    z: NDArray[np.floating], true_column: NDArray[np.intp], weight: Floats, *, shrinkage: float = 0.0
) -> TemperatureSolution:
    """Do what :func:`fit_temperature` documents on checked rows, and tell whether an optimum exists."""
    total_weight = weight.sum()
    problem = _TemperatureProblem(z, true_column, weight / total_weight)
    pull = 2.0 * shrinkage / total_weight
    if pull > 0 or problem.has_optimum():
        start = 0.0
        if len(z) > 4 * _PILOT_ROWS:
            # A few rows find the neighbourhood; all of them then need two or three steps.
            step = len(z) // _PILOT_ROWS
            pilot = _TemperatureProblem(z[::step], true_column[::step], weight[::step] / weight[::step].sum())
            if pilot.scale > 0 and pilot.has_optimum():
                start = pilot.solve(0.0, pull) + np.log(problem.scale / pilot.scale)
        log_beta = problem.solve(start, pull)
        if abs(log_beta) < _LOG_BETA_BOUND - 1e-6:
            return TemperatureSolution(float(np.exp(log_beta) / problem.scale), True)

    if (problem.true_logit == 0).all():
        reason = "every row is classified correctly, so the lower the temperature, the smaller the loss"
    else:
        reason = "the true classes score no higher than the average class"
    warn_caller(
        f"The data do not determine a temperature: {reason}. The temperature is set to 1, which leaves the "
        "probabilities as they are. Calibrate on more rows, none of which the model was trained on."
    )
    return TemperatureSolution(1.0, False)


class _TemperatureProblem:
    """The derivative of the log loss by the inverse temperature, and where it is zero.

    Logits are taken relative to the largest of their row, and in units of the mean distance that true
    classes fall short of it: raw cosines and logits in the hundreds then look alike, and so do excluded
    classes whose logits are minus a billion.
    """

    def __init__(self, logits: NDArray[np.floating], true_column: NDArray[np.intp], weight: Floats) -> None:
        self.logits = logits
        self.weight = weight
        self.largest = logits.max(axis=1, keepdims=True).astype(np.float64)
        self.true_logit = logits[np.arange(len(logits)), true_column] - self.largest[:, 0]
        self.bounded = bool(np.isfinite(logits.min()))
        self.mean_logit = np.empty(len(logits))
        for rows, block, allowed in self._blocks():
            self.mean_logit[rows] = (block / np.reshape(allowed, (-1, 1))).sum(axis=1)
        self.scale = float(weight @ -self.true_logit) or float(weight @ -self.mean_logit)

    def has_optimum(self) -> bool:
        """Tell whether the loss falls from infinite temperature on, and rises again later."""
        slope_at_zero = float(self.weight @ (self.mean_logit - self.true_logit))
        return slope_at_zero < 0 and bool((self.true_logit < 0).any())

    def solve(self, start: float, pull: float) -> float:
        """Return the logarithm of the best inverse temperature at unit scale, by safeguarded Newton steps.

        ``pull`` times the squared logarithm of the inverse temperature is half of what joins the loss.
        """
        if self.scale <= 0:  # logits that say nothing: only the pull is left
            self.scale = 1.0
            return 0.0
        low, high = -_LOG_BETA_BOUND, _LOG_BETA_BOUND
        position, origin = min(max(start, low), high), np.log(self.scale)
        step_before = high - low
        while high - low > 1e-12:
            beta = np.exp(position)
            slope, curvature = self._derivatives(beta)
            curvature *= beta
            if pull > 0:  # times beta, as the pull is flat in the logarithm
                slope, curvature = beta * slope, beta * (slope + curvature) + pull
                slope += pull * (position - origin)
            step = -slope / curvature if 0 < curvature < np.inf else np.inf
            if abs(step) < 1e-12:  # before rounding at the root throws it out of the bracket
                break
            low, high = (low, position) if slope > 0 else (position, high)
            # Steps that hardly shrink would crawl along a tail; halving the bracket leaves it.
            if not (low < position + step < high and abs(step) < 0.5 * step_before):
                step = (low + high) / 2.0 - position
            position, step_before = position + step, abs(step)
        return float(position)

    def _derivatives(self, beta: float) -> tuple[float, float]:
        """Return first and second derivative of the mean log loss by `beta`, at unit scale."""
        slope = curvature = 0.0
        for rows, block, _ in self._blocks(mask_with=-np.inf):
            block /= self.scale
            prob = np.exp(block * beta)
            if not self.bounded:
                np.copyto(block, 0.0, where=np.isneginf(block))
            total = prob.sum(axis=1)
            prob *= block
            mean = prob.sum(axis=1) / total
            spread = np.einsum("ij,ij->i", prob, block) / total - mean**2
            slope += float(self.weight[rows] @ (mean - self.true_logit[rows] / self.scale))
            curvature += float(self.weight[rows] @ np.maximum(spread, 0.0))
        return slope, curvature

    def _blocks(self, mask_with: float = 0.0) -> Iterator[tuple[slice, Floats, Any]]:
        """Walk the rows in blocks that stay in the cache; excluded classes hold `mask_with`."""
        step = max(1, _BLOCK_ENTRIES // self.logits.shape[1])
        for start in range(0, len(self.logits), step):
            rows = slice(start, start + step)
            block = np.subtract(self.logits[rows], self.largest[rows], dtype=np.float64)
            allowed: Any = block.shape[1]
            if not self.bounded:
                excluded = np.isneginf(block)
                allowed = (~excluded).sum(axis=1)
                block[excluded] = mask_with
            yield rows, block, allowed


def _check_logits(
    logits: ArrayLike, y_index: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[NDArray[np.floating], NDArray[np.intp], Floats]:
    """Return logits in their own precision, true columns and weights, without rows of weight zero."""
    log_odds = holds_log_odds(logits)
    z = check_array(
        two_columns(logits), dtype=[np.float64, np.float32], ensure_all_finite=False, input_name="logits"
    )
    columns = column_or_1d(to_numpy(y_index))
    check_consistent_length(z, columns)
    weight = check_weight(sample_weight, len(z))
    kept = weight > 0
    if not kept.all():
        z, columns, weight = z[kept], columns[kept], weight[kept]
    if not (z.max(axis=1) < np.inf).all():  # which NaN is not, either
        raise ValueError("logits contains NaN or plus infinity. Only finite values and -inf are allowed.")
    columns = _check_columns(columns, z.shape[1])
    check_names(logits, np.arange(z.shape[1]), "logits", "y_index counts them", option=None, partly=False)
    cure = "Pass scipy.special.logit(p)" if log_odds else "Pass np.log(p)"
    advise_of_probabilities(z, "logits", "fit_temperature", cure, log_odds=log_odds)
    excluded = np.flatnonzero(np.isneginf(z[np.arange(len(z)), columns]))
    if len(excluded):
        raise ValueError(
            f"The logit of the true class is -inf in {len(excluded)} rows, which no temperature can "
            "mend. Leave these rows out."
        )
    return z, columns, weight


def _check_columns(columns: NDArray[Any], n_columns: int) -> NDArray[np.intp]:
    if columns.dtype.kind == "f" and np.array_equal(columns, np.trunc(columns)):
        columns = columns.astype(np.intp)  # floats where rows without a class, of weight 0, held NaN
    if columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() >= n_columns:
        found = np.unique(columns)[:5].tolist()
        cure = "Pass np.searchsorted(classes, y)."
        if n_columns == 1 and found == [0, 1]:
            cure = "If logits holds the log-odds of the second of two classes, pass logits[:, 0]."
        raise ValueError(
            f"y_index must hold integers from 0 to {n_columns - 1}, the columns of the true classes; "
            f"got {found!r}. {cure}"
        )
    return columns.astype(np.intp)
