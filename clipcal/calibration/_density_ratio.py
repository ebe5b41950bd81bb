"""How likely a prediction is right, from how right and wrong ones spread over confidence and proximity."""

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

# Where both log densities are lower, their ratio tells of the tails of the kernel and not of the data.
_NO_SUPPORT = -50.0
# Pairs of a query and a fitted row that are looked at together; their distances fit into a CPU's cache.
_BLOCK_PAIRS = 2**17
# With a spread below this part of the largest value, densities would follow the rounding of logits.
_LEAST_SPREAD = 1e-9


class DensityRatioCalibration(ProximityCalibrator):
    """Replace the confidence by the share of right predictions among rows alike in confidence and proximity.

    Models are surer than they should be of rows unlike any that they know. This calibrator estimates one
    density of (confidence, proximity) over the rows predicted right and one over those predicted wrong,
    each with a product of Gaussian kernels, and gives the probability of being right by Bayes' rule.

    Parameters
    ----------
    keep_argmax : bool, default=True
        Keep the first choice first, even where the densities say that it is less likely than the second.

    smoothing : float in [0, 1) or "auto", default="auto"
        The part of the uniform distribution that is mixed into the new confidences, which keeps them away
        from 0 and 1. "auto" is ``1 / (n + 2)`` for `n` rows.

    Attributes
    ----------
    right_rows_ : ndarray of shape (n_right, 2)
        Confidence and proximity of the rows predicted right.

    right_weight_ : ndarray of shape (n_right,)
        How many rows each of them counts for.

    right_bandwidth_ : ndarray of shape (2,)
        Standard deviations of their kernel.

    wrong_rows_ : ndarray of shape (n_wrong, 2)
        Confidence and proximity of the rows predicted wrong.

    wrong_weight_ : ndarray of shape (n_wrong,)
        How many rows each of them counts for.

    wrong_bandwidth_ : ndarray of shape (2,)
        Standard deviations of their kernel.

    smoothing_ : float
        The part of the uniform distribution in the new confidences.

    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    n_features_in_ : int
        Number of columns in ``fit``.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns in ``fit``. Only defined if they all are strings.

    See Also
    --------
    BinMeanShift : Fits a calibrator of choice for each range of proximity.
    clipcal.metrics.proximity : Computes the side input.

    Notes
    -----
    It keeps the argmax unless `keep_argmax` is switched off; the other classes keep their proportions. It
    transfers to other classes as far as their rows lie where there were rows in ``fit``: a row far from
    all of these keeps its probabilities. It needs at least 50 rows predicted right and 50 predicted wrong.

    The bandwidth of each axis is ``1.06 * std * n ** (-1 / 6)`` of the respective rows, where weights count
    rows; weights with a mean below 1 are scaled up to it.

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
    >>> right = rng.uniform(size=400) < 2 * proximity - 0.4  # near rows are easier
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
        """Whether predictions stay the same."""
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
            f"A density cannot be estimated because {count} predicted {kind}; at least 2 are needed, and "
            "better 50. Calibrate on more rows, none of which the model was trained on, or use "
            "TemperatureScaling()."
        )
    total = weight.sum()
    # Values are brought to unit scale first, so that squares neither overflow nor vanish.
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
        far = 1e150  # whose square float64 can hold
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
