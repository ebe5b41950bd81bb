"""Venn-Abers calibration."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._compat import StrOptions
from clipcal.calibration._confidence import TIE_DECIMALS, ScoreCalibrator, class_probabilities, top_choice

__all__ = ["VennAbersCalibration", "VennAbersMap"]

Floats = NDArray[np.float64]


class VennAbersMap(NamedTuple):
    """Precomputed lower and upper isotonic values for any new score.

    Parameters
    ----------
    scores : ndarray of shape (n_scores,)
        Distinct scores of calibration rows, sorted.
    lower, upper : ndarray of shape (n_scores + 1,)
        Value between neighboring scores, with label 0 and with label 1.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import VennAbersMap
    >>> between = VennAbersMap(np.array([0.5]), lower=np.array([0.2, 0.6]), upper=np.array([0.4, 0.8]))
    >>> between.interval(np.array([0.3, 0.7]))
    (array([0.2, 0.6]), array([0.4, 0.8]))
    """

    scores: Floats  # distinct scores of calibration rows, sorted
    lower: Floats  # (n_scores + 1,): from the i-th score up to below the next, the value for label 0
    upper: Floats  # (n_scores + 1,): from above the i-th score up to the next, the value for label 1

    def interval(self, score: Floats) -> tuple[Floats, Floats]:
        """Return the value with label 0 and the value with label 1 at each score."""
        score = np.round(score, TIE_DECIMALS)
        lower = self.lower[np.searchsorted(self.scores, score, side="right")]
        return lower, self.upper[np.searchsorted(self.scores, score, side="left")]

    def __call__(self, score: Floats) -> Floats:
        """Return the probability that minimizes the maximum regret in log loss over the two values."""
        lower, upper = self.interval(score)
        return upper / (1.0 - lower + upper)


class VennAbersCalibration(ScoreCalibrator):
    """Calibrate by isotonic regressions to which each new row is added with label 0 and with label 1.

    One of the two resulting values is calibrated for any distribution, so their distance measures the
    uncertainty. :meth:`intervals` returns both, :meth:`calibrate` merges them. The merged value is never 0
    or 1. About 200 rows are needed. With ``scope="top-label"``, predicted classes are unchanged if
    `keep_argmax` is true, and the calibrator can be used for other classes. Neither holds with
    ``scope="one-vs-rest"``.

    Parameters
    ----------
    scope : {"top-label", "one-vs-rest"}, default="top-label"
        With "top-label", the largest probability of each row is calibrated, and the other probabilities keep
        their proportions. With "one-vs-rest", each class is calibrated separately, and rows are normalized.

    keep_argmax : bool, default=True
        With ``scope="top-label"``, keep the predicted class, even if its calibrated confidence is lower.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    maps_ : list of VennAbersMap or None
        The distinct ``scores`` of calibration rows, and the ``lower`` and ``upper`` values around them, of
        the fitted function, or of the function of each class. None is the identity, for a class without
        rows.

    n_features_in_ : int
        Number of columns seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns seen during fit. Only defined if all are strings.

    See Also
    --------
    IsotonicCalibration : A single isotonic regression, without intervals.

    Notes
    -----
    New rows have weight 1. If the mean of the calibration weights is below 1, they are scaled to a mean of 1.

    References
    ----------
    .. [1] V. Vovk, I. Petej, V. Fedorova. "Large-scale probabilistic predictors with and without guarantees
       of validity", NeurIPS 2015. :arxiv:`1511.00213`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import VennAbersCalibration
    >>> prob = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    >>> calibrator = VennAbersCalibration().fit(np.log(prob), [0, 0, 0, 1])
    >>> lower, upper = calibrator.intervals(np.log([[0.15, 0.85]]))
    >>> lower.round(3), upper.round(3)
    (array([0.5]), array([1.]))
    >>> calibrator.calibrate(np.log([[0.15, 0.85]])).round(3)
    array([[0.333, 0.667]])
    """

    samples_needed = "about 200 in all; one-vs-rest: about 50 of each class"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "scope": [StrOptions({"top-label", "one-vs-rest"})],
        "keep_argmax": ["boolean"],
    }

    def __init__(
        self, scope: Literal["top-label", "one-vs-rest"] = "top-label", *, keep_argmax: bool = True
    ) -> None:
        self.scope = scope
        self.keep_argmax = keep_argmax

    def intervals(self, logits: ArrayLike) -> tuple[Floats, Floats]:
        """Return the lower and upper probabilities.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits of the same kind as in ``fit``. A 1-D array holds the log-odds of two classes.

        Returns
        -------
        lower : ndarray of shape (n_samples,) or (n_samples, n_classes)
            The isotonic value of each row if it is added with label 0: for the predicted class with
            ``scope="top-label"``, and for each class with ``"one-vs-rest"``.

        upper : ndarray of shape (n_samples,) or (n_samples, n_classes)
            The isotonic value if it is added with label 1. Never less than `lower`.
        """
        z = self._read_logits(logits)
        if self.scope == "top-label":
            top = top_choice(z)
            lower, upper = self.maps_[0].interval(top.confidence)
            alone = top.n_possible == 1
            return np.where(alone, 1.0, lower), np.where(alone, 1.0, upper)
        prob, possible = class_probabilities(z)
        lower, upper = prob.copy(), prob.copy()
        for k, score_map in enumerate(self.maps_):
            if score_map is not None:
                lower[:, k], upper[:, k] = score_map.interval(prob[:, k])
        return lower * possible, upper * possible

    def _fit_map(self, score: Floats, hit: Floats, weight: Floats) -> VennAbersMap:
        scores, position = np.unique(np.round(score, TIE_DECIMALS), return_inverse=True)
        total = np.bincount(position, weights=weight).astype(np.float64)
        hits = np.bincount(position, weights=weight * hit).astype(np.float64)
        # By symmetry: exchange the labels and reverse the order.
        lower = 1.0 - _values_with_a_hit(total[::-1], (total - hits)[::-1])[::-1]
        upper = _values_with_a_hit(total, hits)
        return VennAbersMap(scores, np.append(0.0, lower), np.append(upper, 1.0))


def _values_with_a_hit(total: Floats, hits: Floats) -> Floats:
    """Return the isotonic value of each group of equal scores if a hit of weight 1 is added to it.

    Isotonic values are the slopes of the lower convex hull of cumulative hits over cumulative weight. A hit
    that is added to group i moves all points before it by (-1, -1); the value is the slope of the edge of the
    hull across the gap. From one group to the next, only one point changes sides, so a single stack of
    corners gives all values in linear time.
    """
    x = np.append(0.0, np.cumsum(total)).tolist()
    y = np.append(0.0, np.cumsum(hits)).tolist()
    corners: list[tuple[float, float]] = []
    for i in range(len(total), 0, -1):
        _push(corners, x[i], y[i])
    _push(corners, -1.0, -1.0)
    values = [_last_slope(corners)]
    for i in range(1, len(total)):
        moved_x, moved_y = x[i] - 1.0, y[i] - 1.0
        left_x, left_y = corners[-1]
        if moved_y < left_y + values[-1] * (moved_x - left_x):
            corners.pop()
            _push(corners, moved_x, moved_y)
        values.append(_last_slope(corners))
    return np.maximum.accumulate(np.clip(values, 0.0, 1.0))


def _last_slope(corners: list[tuple[float, float]]) -> float:
    (left_x, left_y), (right_x, right_y) = corners[-1], corners[-2]
    return (right_y - left_y) / (right_x - left_x)


def _push(corners: list[tuple[float, float]], x: float, y: float) -> None:
    """Add a point on the left, and remove corners that are then on or above the hull."""
    while len(corners) > 1:
        (near_x, near_y), (far_x, far_y) = corners[-1], corners[-2]
        if (near_y - y) * (far_x - near_x) < (far_y - near_y) * (near_x - x):
            break
        corners.pop()
    corners.append((x, y))
