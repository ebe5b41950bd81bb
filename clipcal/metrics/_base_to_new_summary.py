"""Summaries of a metric over base classes (seen in tuning) and new classes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._compat import StrOptions, validate_params

__all__ = ["BaseToNewSummary", "base_to_new_summary", "harmonic_mean"]

Floats = NDArray[np.float64]


class BaseToNewSummary(NamedTuple):
    """Mean over data sets for base classes, the same for new classes, and the mean of these two.

    Result of :func:`base_to_new_summary`.
    """

    base: float
    new: float
    mean: float


def harmonic_mean(base: ArrayLike, new: ArrayLike) -> Any:
    """Compute the element-wise harmonic mean of two numbers.

    The harmonic mean is high only if both numbers are high. Papers on base and new classes therefore use
    it for *accuracies* [1]_ [2]_. Do not use it for errors, such as the expected calibration error: it is
    low if either error is low. Use the arithmetic mean for errors.

    Parameters
    ----------
    base : array-like
        Non-negative numbers, such as accuracies on base classes.

    new : array-like
        Non-negative numbers of a shape that broadcasts against `base`.

    Returns
    -------
    mean : float or ndarray of the broadcast shape
        ``2 * base * new / (base + new)``; 0 where either number is 0.

    Raises
    ------
    ValueError
        If a number is negative, NaN or infinite, or if the shapes cannot be broadcast.

    See Also
    --------
    base_to_new_summary : The mean over several data sets.

    References
    ----------
    .. [1] Y. Xian, B. Schiele, Z. Akata. "Zero-shot learning: the good, the bad and the ugly",
       CVPR 2017. :arxiv:`1703.04394`
    .. [2] K. Zhou, J. Yang, C. C. Loy, Z. Liu. "Conditional prompt learning for vision-language
       models", CVPR 2022. :arxiv:`2203.05557`

    Examples
    --------
    >>> from clipcal.metrics import harmonic_mean
    >>> round(harmonic_mean(0.8047, 0.7169), 4)
    0.7583
    >>> harmonic_mean([0.8, 0.9], [0.8, 0.0])
    array([0.8, 0. ])
    """
    base, new = _read(base, new)
    # Dividing by the larger number first keeps very small and very large products in range.
    low, high = np.minimum(base, new), np.maximum(base, new)
    ratio = np.divide(low, high, out=np.zeros_like(low), where=high > 0)
    mean = low * (2.0 / (1.0 + ratio))
    return float(mean) if mean.ndim == 0 else mean


@validate_params({"average": [StrOptions({"harmonic", "arithmetic"})]})
def base_to_new_summary(
    base: ArrayLike, new: ArrayLike, *, average: Literal["harmonic", "arithmetic"] = "harmonic"
) -> BaseToNewSummary:
    """Average a metric over data sets for base and for new classes, then average the two.

    Parameters
    ----------
    base : array-like
        Non-negative numbers on base classes, one for each data set or run. A scalar is accepted.

    new : array-like
        The same for new classes, of the same shape as `base`.

    average : {"harmonic", "arithmetic"}, default="harmonic"
        How the base and new means are combined. Use ``"harmonic"`` for accuracies; it is high only if
        both are high. Use ``"arithmetic"`` for errors; the harmonic mean is low if either error is low.

    Returns
    -------
    summary : BaseToNewSummary
        A named tuple ``(base, new, mean)`` in the units of the input.

    Raises
    ------
    ValueError
        If a number is negative, NaN or infinite, or if the shapes differ or are empty.

    See Also
    --------
    harmonic_mean : The element-wise harmonic mean.

    Notes
    -----
    Data sets are averaged before base and new are combined, as in the "average" row of published tables.
    The mean of the harmonic means of the data sets is a different number, and never higher.

    References
    ----------
    .. [1] K. Zhou, J. Yang, C. C. Loy, Z. Liu. "Conditional prompt learning for vision-language
       models", CVPR 2022. :arxiv:`2203.05557`

    Examples
    --------
    >>> from clipcal.metrics import base_to_new_summary
    >>> summary = base_to_new_summary([0.9, 0.8], [0.7, 0.6])
    >>> [round(number, 4) for number in summary]
    [0.85, 0.65, 0.7367]
    >>> ece = base_to_new_summary([0.03, 0.05], [0.10, 0.14], average="arithmetic")
    >>> round(ece.mean, 4)
    0.08
    """
    if np.shape(base) != np.shape(new) or not np.size(base):
        raise ValueError(
            "base and new must each hold one number per data set and have the same shape; got the shapes "
            f"{np.shape(base)} and {np.shape(new)}."
        )
    mean_base, mean_new = (float(values.mean()) for values in _read(base, new))
    joined = harmonic_mean(mean_base, mean_new) if average == "harmonic" else (mean_base + mean_new) / 2
    return BaseToNewSummary(mean_base, mean_new, joined)


def _read(base: ArrayLike, new: ArrayLike) -> tuple[Floats, Floats]:
    numbers = np.asarray(base, dtype=np.float64), np.asarray(new, dtype=np.float64)
    for name, values in zip(("base", "new"), numbers, strict=True):
        if not (np.isfinite(values) & (values >= 0)).all():
            bad = values[~(np.isfinite(values) & (values >= 0))].ravel()[0]
            raise ValueError(f"{name} must hold finite, non-negative numbers; got {bad:.4g}.")
    try:
        first, second = np.broadcast_arrays(*numbers)
    except ValueError as error:
        raise ValueError(
            f"base and new have shapes that cannot be broadcast: {numbers[0].shape} and {numbers[1].shape}."
        ) from error
    return first, second
