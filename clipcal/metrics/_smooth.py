"""The smooth calibration error, which smooths residuals with a kernel instead of binning them."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct

from clipcal._compat import Interval, validate_params
from clipcal.metrics._top_label import TopLabel, read_top_label

__all__ = ["SmoothCalibrationCurve", "smooth_calibration_curve", "smooth_calibration_error"]

Floats = NDArray[np.float64]

_BANDWIDTH: dict[str, list[Any]] = {"bandwidth": [Interval(Real, 1e-4, None, closed="left"), None]}
# Lower limit of the automatic bandwidth.
_SMALLEST_CHOICE = 1e-3
# Bisection steps on (0.001, 1), which give the bandwidth to 1e-6.
_N_HALVINGS = 20
# Grid nodes per bandwidth. Splitting a row between its two neighboring nodes changes the error by less
# than 3e-5.
_NODES_PER_BANDWIDTH = 64
_FEWEST_CELLS = 512


class SmoothCalibrationCurve(NamedTuple):
    """Smoothed residuals and density of the rows, as functions of confidence.

    Result of :func:`smooth_calibration_curve`.
    """

    confidence: Floats
    residual: Floats
    density: Floats
    bandwidth: float


@overload
def smooth_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    bandwidth: float | None = ...,
    return_bandwidth: Literal[False] = ...,
) -> float: ...
@overload
def smooth_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    bandwidth: float | None = ...,
    return_bandwidth: Literal[True],
) -> tuple[float, float]: ...
@validate_params({**_BANDWIDTH, "return_bandwidth": ["boolean"]})
def smooth_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    bandwidth: float | None = None,
    return_bandwidth: bool = False,
) -> float | tuple[float, float]:
    """Compute the smooth calibration error (smECE) of the predicted class.

    The residuals (confidence minus correctness) are smoothed over [0, 1] by a Gaussian kernel that is
    reflected at both ends; the error is the mean absolute value of the result. There are no bins or
    edges. The default bandwidth is the one that equals its own error.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    bandwidth : float, default=None
        Standard deviation of the Gaussian, at least 0.0001. By default, it is determined from the data, and
        is at least 0.001.

    return_bandwidth : bool, default=False
        Whether to return the bandwidth as well.

    Returns
    -------
    error : float
        A fraction in [0, 1].

    bandwidth : float
        The bandwidth that was used. Only returned if `return_bandwidth` is true.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    smooth_calibration_curve : The function whose mean absolute value is the error.
    expected_calibration_error : The error with bins.

    Notes
    -----
    The error does not increase with the bandwidth, and is at least the absolute value of
    :func:`mean_confidence_gap`. It is computed on a grid by a cosine transform, within 0.0001 of the
    exact integral. Rows with confidence 0 or 1 have full weight, unlike in some other implementations.

    The error is biased upwards if there are few rows, but less than binned errors.

    References
    ----------
    .. [1] J. Blasiok, P. Nakkiran. "Smooth ECE: principled reliability diagrams via kernel smoothing",
       ICLR 2024. :arxiv:`2309.12236`

    Examples
    --------
    >>> from clipcal.metrics import smooth_calibration_error
    >>> y_true = ["cat", "dog", "cat", "dog"]
    >>> y_prob = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]
    >>> round(smooth_calibration_error(y_true, y_prob, labels=["cat", "dog"]), 3)
    0.096
    >>> round(smooth_calibration_error(y_true, y_prob, labels=["cat", "dog"], bandwidth=0.01), 3)
    0.35
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    error, used = smooth_top_label(top_label, bandwidth)
    return (error, used) if return_bandwidth else error


@validate_params(_BANDWIDTH)
def smooth_calibration_curve(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    bandwidth: float | None = None,
) -> SmoothCalibrationCurve:
    """Compute the residuals and the density of the rows as smooth functions of confidence.

    Where the density is not negligible, ``confidence - residual / density`` estimates the accuracy at that
    confidence.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    bandwidth : float, default=None
        Standard deviation of the Gaussian, at least 0.0001. By default, that of
        :func:`smooth_calibration_error`.

    Returns
    -------
    curve : SmoothCalibrationCurve
        A named tuple ``(confidence, residual, density, bandwidth)``. The first three are arrays of
        shape (n_points,): equally spaced confidences from 0 to 1, the smoothed residual (positive where the
        model is over-confident), and the smoothed density of the rows, which integrates to 1. The integral
        of the absolute residual is the smooth calibration error.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    smooth_calibration_error : The curve as one number.

    Examples
    --------
    >>> from clipcal.metrics import smooth_calibration_curve
    >>> y_true, y_prob = [1, 0, 1, 1, 0, 1], [0.9, 0.7, 0.4, 0.8, 0.3, 0.6]
    >>> curve = smooth_calibration_curve(y_true, y_prob, bandwidth=0.1)
    >>> accuracy = curve.confidence - curve.residual / curve.density.clip(1e-9)
    >>> print(accuracy[curve.confidence == 0.75].round(2))
    [0.69]
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    residual = _Smoother(top_label, bandwidth, top_label.confidence - top_label.correct)
    if bandwidth is None:
        bandwidth = residual.fixed_point()
    rows = _Smoother(top_label, bandwidth, np.ones(len(top_label.weight)))
    height = residual.at(bandwidth)
    # Rounding may give tiny negative values where there are no rows.
    density = np.maximum(rows.at(bandwidth), 0.0)
    return SmoothCalibrationCurve(np.linspace(0.0, 1.0, len(height)), height, density, float(bandwidth))


def smooth_top_label(top_label: TopLabel, bandwidth: float | None = None) -> tuple[float, float]:
    """Return the error and the bandwidth for validated rows."""
    smoother = _Smoother(top_label, bandwidth, top_label.confidence - top_label.correct)
    if bandwidth is None:
        bandwidth = smoother.fixed_point()
    return smoother.error(bandwidth), float(bandwidth)


class _Smoother:
    """Values of the rows, smoothed over [0, 1] by reflected Gaussian kernels of any bandwidth.

    A Gaussian reflected at 0 and 1 is the sum over k of ``cos(pi k t) cos(pi k c) exp(-(pi k s)^2 / 2)``,
    with a factor of 2 for k > 0. One cosine transform of the values is therefore used for all bandwidths s,
    and no mass is lost at the ends.
    """

    def __init__(self, top_label: TopLabel, bandwidth: float | None, values: Floats) -> None:
        # Bandwidths of at least _SMALLEST_CHOICE share one grid, so that passing the automatic bandwidth
        # explicitly gives the same error.
        n_cells = _cells(_SMALLEST_CHOICE if bandwidth is None else min(bandwidth, _SMALLEST_CHOICE))
        mass = _on_grid(top_label.confidence, top_label.weight * values, n_cells) / top_label.weight.sum()
        # The DCT of type 1 weights the two end nodes by one half.
        mass[[0, -1]] *= 2.0
        self._cosines = dct(mass, type=1) / 2.0
        self._mean = float(self._cosines[0])

    def at(self, bandwidth: float) -> Floats:
        """Return the smooth function on equally spaced points from 0 to 1."""
        n_cells = _cells(bandwidth)
        terms = np.zeros(n_cells + 1)
        kept = self._cosines[: n_cells + 1]
        with np.errstate(under="ignore"):
            decay = np.exp(-0.5 * (np.pi * bandwidth * np.arange(len(kept))) ** 2)
            terms[: len(kept)] = kept * decay
        terms[-1] *= 2.0
        return np.asarray(dct(terms, type=1))

    def error(self, bandwidth: float) -> float:
        """Return the mean absolute value of the function (trapezoidal rule)."""
        height = np.abs(self.at(bandwidth))
        mean = (height.sum() - (height[0] + height[-1]) / 2.0) / (len(height) - 1)
        # The mean absolute value is at least the absolute mean; enforce this against rounding errors.
        return float(min(max(mean, abs(self._mean)), 1.0))

    def fixed_point(self) -> float:
        """Return the bandwidth that equals its error, or the lower limit."""
        low, high = _SMALLEST_CHOICE, 1.0
        if self.error(low) <= low:
            return low
        for _ in range(_N_HALVINGS):
            middle = (low + high) / 2.0
            if self.error(middle) > middle:
                low = middle
            else:
                high = middle
        return high


def _cells(bandwidth: float) -> int:
    """Return the number of grid cells, a power of two, for a bandwidth."""
    wanted = max(_FEWEST_CELLS, int(np.ceil(_NODES_PER_BANDWIDTH / bandwidth)))
    return 1 << (wanted - 1).bit_length()


def _on_grid(position: Floats, mass: Floats, n_cells: int) -> Floats:
    """Split each mass between its two neighboring nodes, which preserves total and mean position."""
    scaled = position * n_cells
    left = np.minimum(scaled.astype(np.intp), n_cells - 1)
    share = scaled - left
    total = np.bincount(left, weights=mass * (1.0 - share), minlength=n_cells + 1).astype(np.float64)
    total[1:] += np.bincount(left, weights=mass * share, minlength=n_cells)
    return total
