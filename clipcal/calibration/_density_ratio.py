"""Calibration by densities of correct and wrong predictions over confidence and proximity."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from clipcal.calibration._base import CalibrationRows
from clipcal.calibration._confidence import SMOOTHING, redistribute, top_choice
from clipcal.calibration._proximity_calibrator import ProximityCalibrator

__all__ = ["DensityRatioCalibration"]

Floats = NDArray[np.float64]

# If both log densities are lower, their ratio depends on the tails of the kernel, not on the data.
_NO_SUPPORT = -50.0
# Number of pairs of a query and a fitted row at a time, such that distances fit into the processor cache.
_BLOCK_PAIRS = 2**17
# With a standard deviation below this fraction of the largest value, densities depend on rounding errors.
_LEAST_SPREAD = 1e-9


class DensityRatioCalibration(ProximityCalibrator):
    """Replace the confidence by the accuracy of rows with similar confidence and proximity.

    Models tend to be over-confident on rows that are far from their training data. This calibrator estimates
    the density of (confidence, proximity) over correctly and over wrongly predicted rows, each with a product
    of Gaussian kernels, and computes the probability of a correct prediction by Bayes' rule.

    Parameters
    ----------
    keep_argmax : bool, default=True
        Keep the predicted class, even if its calibrated confidence is lower than another probability.

    smoothing : float in [0, 1) or "auto", default="auto"
        Weight of the uniform distribution that is mixed into the calibrated confidences, which keeps them
        away from 0 and 1. "auto" is ``1 / (n + 2)`` for `n` rows.

    Attributes
    ----------
    right_rows_ : ndarray of shape (n_right, 2)
        Confidence and proximity of the correctly predicted rows.

    right_weight_ : ndarray of shape (n_right,)
        Weights of these rows.

    right_bandwidth_ : ndarray of shape (2,)
        Standard deviations of the kernel of these rows.

    wrong_rows_ : ndarray of shape (n_wrong, 2)
        Confidence and proximity of the wrongly predicted rows.

    wrong_weight_ : ndarray of shape (n_wrong,)
        Weights of these rows.

    wrong_bandwidth_ : ndarray of shape (2,)
        Standard deviations of the kernel of these rows.

    smoothing_ : float
        Weight of the uniform distribution.

    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    n_features_in_ : int
        Number of columns in ``fit``.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns in ``fit``. Only defined if all are strings.

    See Also
    --------
    BinMeanShift : Fit a given calibrator for each range of proximity.
    clipcal.metrics.proximity : Compute the proximity.

    Notes
    -----
    Predicted classes are unchanged if `keep_argmax` is true; the other classes keep their proportions. The
    calibrator can be used for other classes, but only affects rows near those of ``fit``: rows far from all
    of these keep their probabilities. It needs at least 50 correctly and 50 wrongly predicted rows.

    The bandwidth of each axis is ``1.06 * std * n ** (-1 / 6)`` of the respective rows, where weights count
    as rows; if their mean is below 1, they are scaled to a mean of 1.

    References
    ----------
    .. [1] M. Xiong, A. Deng, P. W. Koh, J. Wu, S. Li, J. Xu, B. Hooi. "Proximity-informed calibration for
       deep neural networks", NeurIPS 2023. :arxiv:`2306.04590`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import DensityRatioCalibration
    >>> rng = np.random.default_rng(0)
    >>> proximity = rng.uniform(0.3, 0.7, 400)
    >>> right = rng.uniform(size=400) < 2 * proximity - 0.4  # higher accuracy of near rows
    >>> logits = np.column_stack([rng.normal(3.0, 0.5, 400), np.zeros(400)])
    >>> ratio = DensityRatioCalibration().fit(logits, np.where(right, 0, 1), proximity=proximity)
    >>> ratio.calibrate([[3.0, 0.0], [3.0, 0.0]], proximity=[0.6, 0.5])[:, 0].round(1)
    array([0.8, 0.6])
    """

    class_agnostic: ClassVar[bool] = True
    samples_needed: ClassVar[str] = "about 50 predicted right and 50 predicted wrong"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "keep_argmax": ["boolean"],
        "smoothing": SMOOTHING,
    }

    right_rows_: Floats
    right_weight_: Floats
    right_bandwidth_: Floats
    wrong_rows_: Floats
    wrong_weight_: Floats
    wrong_bandwidth_: Floats

    smoothing_: float

    def __init__(self, *, keep_argmax: bool = True, smoothing: float | Literal["auto"] = "auto") -> None:
        self.keep_argmax = keep_argmax
        self.smoothing = smoothing

    @property
    def preserves_argmax(self) -> bool:
        """Whether the predicted classes are unchanged."""
        return self.keep_argmax

    def _fit_near(self, rows: CalibrationRows, proximity: Floats) -> None:
        top = top_choice(rows.logits)
        points = np.column_stack([top.confidence, proximity])
        weight = rows.weight
        right = top.column == rows.true_column
        right_bandwidth = _bandwidth(points[right], weight[right], "right")
        wrong_bandwidth = _bandwidth(points[~right], weight[~right], "wrong")
        self.right_rows_, self.right_weight_ = points[right], weight[right]
        self.wrong_rows_, self.wrong_weight_ = points[~right], weight[~right]
        self.right_bandwidth_, self.wrong_bandwidth_ = right_bandwidth, wrong_bandwidth
        self.smoothing_ = 1.0 / (weight.sum() + 2.0) if self.smoothing == "auto" else float(self.smoothing)

    def _near_probabilities(self, logits: Floats, proximity: Floats) -> Floats:
        top = top_choice(logits)
        query = np.column_stack([top.confidence, proximity])
        right = _log_density(query, self.right_rows_, self.right_weight_, self.right_bandwidth_)
        wrong = _log_density(query, self.wrong_rows_, self.wrong_weight_, self.wrong_bandwidth_)
        prior = math.log(self.right_weight_.sum()) - math.log(self.wrong_weight_.sum())
        known = np.maximum(right, wrong) >= _NO_SUPPORT
        estimate = (1.0 - self.smoothing_) * expit(right - wrong + prior) + self.smoothing_ / top.n_possible
        confidence = np.where(known, estimate, top.confidence)
        return redistribute(top, confidence, keep_argmax=self.keep_argmax)


def _bandwidth(points: Floats, weight: Floats, kind: str) -> Floats:
    """Return the normal reference bandwidth of each axis for a density in two dimensions."""
    if len(points) < 2:
        count = {0: "no row was", 1: "only one row was"}[len(points)]
        raise ValueError(
            f"A density cannot be estimated because {count} predicted {kind}; at least 2 rows are needed "
            "and 50 recommended. Calibrate on more held-out rows, or use TemperatureScaling()."
        )
    total = weight.sum()
    # Values are scaled to 1 first, so that squares neither overflow nor underflow.
    scale = np.abs(points).max(axis=0)
    scale[scale == 0] = 1.0
    unit = points / scale
    spread = np.sqrt(weight @ (unit - weight @ unit / total) ** 2 / total)
    bandwidth = 1.06 * total ** (-1 / 6) * spread * scale
    enough = (spread > _LEAST_SPREAD) & (bandwidth > np.finfo(np.float64).tiny)
    for axis in np.array(["confidence", "proximity"])[~enough]:
        raise ValueError(
            f"A density cannot be estimated because all {len(points)} rows predicted {kind} have the "
            f"same {axis}, up to rounding. Calibrate on more rows, or use TemperatureScaling()."
        )
    return bandwidth


def _log_density(query: Floats, points: Floats, weight: Floats, bandwidth: Floats) -> Floats:
    """Return the logarithm of a weighted density estimate with a product of Gaussian kernels."""
    constant = math.log(2 * math.pi) + np.log(bandwidth).sum() + math.log(weight.sum())
    with np.errstate(over="ignore"):
        far = 1e150  # its square does not overflow
        unit_query = np.clip(query / bandwidth, -far, far)
    unit_points = points / bandwidth
    density = np.empty(len(query))
    block = max(1, _BLOCK_PAIRS // len(points))
    for start in range(0, len(query), block):
        part = slice(start, start + block)
        squared = (unit_query[part, 0, None] - unit_points[:, 0]) ** 2
        squared += (unit_query[part, 1, None] - unit_points[:, 1]) ** 2
        nearest = squared.min(axis=1)
        squared -= nearest[:, None]
        squared *= -0.5
        kernel = np.exp(squared, out=squared)
        density[part] = np.log(kernel @ weight) - 0.5 * nearest
    return density - constant
