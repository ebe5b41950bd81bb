"""The temperature that minimizes the log loss, a convex problem in one variable."""

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

# Search interval for ln(beta) of logits at unit scale; exp overflows at about 709.
_LOG_BETA_BOUND = 600.0
# Number of rows that give the solution to a few per cent.
_PILOT_ROWS = 2048
# Number of entries of a block of rows, such that blocks stay in the processor cache.
_BLOCK_ENTRIES = 2**16

Floats = NDArray[np.float64]


class TemperatureSolution(NamedTuple):
    """An inverse temperature, and whether it is determined by the data."""

    inverse_temperature: float
    identified: bool


def fit_temperature(logits: ArrayLike, y_index: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Compute the inverse temperature that minimizes the log loss.

    The log loss of ``softmax(beta * logits)`` is convex in ``beta``. The root of its derivative is found in
    ``log(beta)`` by Newton steps with a bracket, in float64.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes) or (n_samples,)
        Logits. Minus infinity marks a class that the model excludes. A 1-D array holds the log-odds of the
        second of two classes, like a binary ``decision_function``.

    y_index : array-like of shape (n_samples,), dtype int
        Column of the true class of each row; 0 or 1 for log-odds.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative. Rows of weight 0 are ignored.

    Returns
    -------
    inverse_temperature : float
        ``beta = 1 / T``, the factor of the logits. It is 1 if no optimum exists.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, or inconsistent shapes, or if the logit of a true class is not
        finite.

    Warns
    -----
    UserWarning
        If no finite positive temperature is optimal: if all rows are classified correctly, or if the logits
        of the true classes are on average no higher than those of all classes. Also if `logits` look like
        probabilities.

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
    """Solve the problem of :func:`fit_temperature` for validated rows.

    `shrinkage` times the squared logarithm of the temperature is added to the sum of the log loss.
    """
    total_weight = weight.sum()
    problem = _TemperatureProblem(z, true_column, weight / total_weight)
    pull = 2.0 * shrinkage / total_weight
    if pull > 0 or problem.has_optimum():
        start = 0.0
        if len(z) > 4 * _PILOT_ROWS:
            # Start from the solution for some of the rows; then few steps are needed with all rows.
            step = len(z) // _PILOT_ROWS
            pilot = _TemperatureProblem(z[::step], true_column[::step], weight[::step] / weight[::step].sum())
            if pilot.scale > 0 and pilot.has_optimum():
                start = pilot.solve(0.0, pull) + np.log(problem.scale / pilot.scale)
        log_beta = problem.solve(start, pull)
        if abs(log_beta) < _LOG_BETA_BOUND - 1e-6:
            return TemperatureSolution(float(np.exp(log_beta) / problem.scale), True)

    if (problem.true_logit == 0).all():
        reason = "all rows are classified correctly, so the loss decreases with the temperature down to 0"
    else:
        reason = "the true classes score no higher than the average class"
    warn_caller(
        f"The data do not determine a temperature: {reason}. The temperature is set to 1, which does not "
        "change the probabilities. Calibrate on more held-out rows."
    )
    return TemperatureSolution(1.0, False)


class _TemperatureProblem:
    """The derivative of the log loss with respect to the inverse temperature, and its root.

    Logits are taken relative to the largest of their row, in units of the mean distance of the true class
    from it. This unit scale is independent of the scale of the logits (cosines, or numbers in the hundreds)
    and of excluded classes with large negative logits.
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
        """Return whether the loss decreases at beta = 0 and increases for large beta."""
        slope_at_zero = float(self.weight @ (self.mean_logit - self.true_logit))
        return slope_at_zero < 0 and bool((self.true_logit < 0).any())

    def solve(self, start: float, pull: float) -> float:
        """Return the logarithm of the optimal inverse temperature at unit scale, by safeguarded Newton steps.

        ``pull / 2`` times the squared logarithm of the inverse temperature is added to the mean loss.
        """
        if self.scale <= 0:  # all logits of each row are equal, so only the penalty counts
            self.scale = 1.0
            return 0.0
        low, high = -_LOG_BETA_BOUND, _LOG_BETA_BOUND
        position, origin = min(max(start, low), high), np.log(self.scale)
        step_before = high - low
        while high - low > 1e-12:
            beta = np.exp(position)
            slope, curvature = self._derivatives(beta)
            curvature *= beta
            if pull > 0:  # derivatives by log(beta), in which the penalty is quadratic
                slope, curvature = beta * slope, beta * (slope + curvature) + pull
                slope += pull * (position - origin)
            step = -slope / curvature if 0 < curvature < np.inf else np.inf
            if abs(step) < 1e-12:  # stop before rounding errors at the root move the step out of the bracket
                break
            low, high = (low, position) if slope > 0 else (position, high)
            # Bisect if steps hardly shrink, as in the flat tails of the loss.
            if not (low < position + step < high and abs(step) < 0.5 * step_before):
                step = (low + high) / 2.0 - position
            position, step_before = position + step, abs(step)
        return float(position)

    def _derivatives(self, beta: float) -> tuple[float, float]:
        """Return the first and second derivative of the mean log loss by `beta`, at unit scale."""
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
        """Iterate over blocks of rows that stay in the cache; excluded classes are set to `mask_with`."""
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
    """Validate logits, true columns and weights, and drop rows of weight zero; logits keep their dtype."""
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
    if not (z.max(axis=1) < np.inf).all():  # also true for NaN
        raise ValueError("logits contains NaN or plus infinity. Only finite values and -inf are allowed.")
    columns = _check_columns(columns, z.shape[1])
    told = "y_index refers to their positions"
    check_names(logits, np.arange(z.shape[1]), "logits", told, option=None, partly=False)
    cure = "Pass scipy.special.logit(p)" if log_odds else "Pass np.log(p)"
    advise_of_probabilities(z, "logits", "fit_temperature", cure, log_odds=log_odds)
    excluded = np.flatnonzero(np.isneginf(z[np.arange(len(z)), columns]))
    if len(excluded):
        raise ValueError(
            f"The logit of the true class is -inf in {len(excluded)} rows, which no temperature can "
            "correct. Drop these rows."
        )
    return z, columns, weight


def _check_columns(columns: NDArray[Any], n_columns: int) -> NDArray[np.intp]:
    if columns.dtype.kind == "f" and np.array_equal(columns, np.trunc(columns)):
        columns = columns.astype(np.intp)  # y_index is float if rows of weight 0 have NaN
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
