"""The temperature that suits logits best: one convex problem in one number."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import softmax
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from .._compat import _check_sample_weight

__all__ = ["TemperatureSolution", "fit_temperature", "solve_temperature"]

# The search interval for ln(beta), after the logits have been brought to unit scale.
_LOG_BETA_BOUND = 16.0


class TemperatureSolution(NamedTuple):
    """An inverse temperature, and whether the data determine it."""

    inverse_temperature: float
    identified: bool


def fit_temperature(logits: ArrayLike, y_index: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Find the inverse temperature that makes the true classes most likely.

    The log loss of ``softmax(beta * logits)`` is convex in ``beta``, so its minimum is where the gradient
    changes sign. The sign change is bracketed and found in ``log(beta)``, in float64.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes)
        Logits. Minus infinity marks a class that the model excludes.

    y_index : array-like of shape (n_samples,), dtype int
        Column of the true class of each row.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

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
        score no higher than the average class.

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
    return solve_temperature(logits, y_index, sample_weight).inverse_temperature


def solve_temperature(
    logits: ArrayLike, y_index: ArrayLike, sample_weight: ArrayLike | None = None
) -> TemperatureSolution:
    """Do what :func:`fit_temperature` documents, and also tell whether an optimum exists."""
    z, true_column, weight = _check_logits(logits, y_index, sample_weight)
    z = z - z.max(axis=1, keepdims=True)
    allowed = np.isfinite(z)
    finite = np.where(allowed, z, 0.0)
    true_logit = z[np.arange(len(z)), true_column]

    # At unit scale one search interval serves raw cosines and logits in the hundreds alike.
    scale = float(weight @ -(finite.sum(axis=1) / allowed.sum(axis=1)))
    if scale > 0:

        def gradient(log_beta: float) -> float:
            prob = softmax(z * (np.exp(log_beta) / scale), axis=1)
            return float(weight @ ((prob * finite).sum(axis=1) - true_logit) / scale)

        if gradient(-_LOG_BETA_BOUND) < 0 < gradient(_LOG_BETA_BOUND):
            root = brentq(gradient, -_LOG_BETA_BOUND, _LOG_BETA_BOUND, xtol=1e-13, rtol=1e-14)
            return TemperatureSolution(float(np.exp(root) / scale), True)

    if (true_logit == 0).all():
        reason = "every row is classified correctly, so the lower the temperature, the smaller the loss"
    else:
        reason = "the true classes score no higher than the average class"
    warnings.warn(
        f"The data do not determine a temperature: {reason}. The temperature is set to 1, which leaves the "
        "probabilities as they are. Calibrate on more rows, none of which the model was trained on.",
        UserWarning,
        stacklevel=3,
    )
    return TemperatureSolution(1.0, False)


def _check_logits(
    logits: ArrayLike, y_index: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
    """Return float64 logits, true columns and weights that sum to 1, without rows of weight zero."""
    z = check_array(logits, dtype=np.float64, ensure_all_finite=False, input_name="logits")
    if np.isnan(z).any() or np.isposinf(z).any():
        raise ValueError("logits contains NaN or plus infinity. Only finite values and -inf are allowed.")
    columns = column_or_1d(y_index)
    check_consistent_length(z, columns)
    if columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() >= z.shape[1]:
        raise ValueError(
            f"y_index must hold integers from 0 to {z.shape[1] - 1}, the columns of the true classes; "
            f"got {np.unique(columns)[:5].tolist()!r}. Pass np.searchsorted(classes, y)."
        )
    weight = _check_sample_weight(sample_weight, z, dtype=np.float64, ensure_non_negative=True)
    kept = weight > 0
    if not kept.any():
        raise ValueError("All entries of sample_weight are zero; at least one row must count.")
    z, columns, weight = z[kept], columns[kept], weight[kept]
    excluded = np.flatnonzero(np.isneginf(z[np.arange(len(z)), columns]))
    if len(excluded):
        raise ValueError(
            f"The logit of the true class is -inf in {len(excluded)} rows, which no temperature can "
            "mend. Leave these rows out."
        )
    return z, columns.astype(np.intp), weight / weight.sum()
