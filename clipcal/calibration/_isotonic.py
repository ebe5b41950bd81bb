"""Calibration by isotonic regression."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from clipcal._compat import StrOptions
from clipcal.calibration._base import CalibrationRows, put_first
from clipcal.calibration._confidence import (
    SMOOTHING,
    TIE_DECIMALS,
    SmoothedCalibrator,
    class_probabilities,
    normalized,
)

__all__ = ["IsotonicCalibration", "IsotonicMap"]

Floats = NDArray[np.float64]

# Slope that is added to the pooled function, so that it does not give two classes of a row equal values.
_SLOPE = 1e-9
# Number of probabilities that are pooled at a time, which bounds the memory.
_BLOCK_ENTRIES = 2**20


class IsotonicMap(NamedTuple):
    """A non-decreasing function, linear between its thresholds and constant outside.

    Parameters
    ----------
    scores : ndarray of shape (n_thresholds,)
        Thresholds, increasing.
    values : ndarray of shape (n_thresholds,)
        Value at each threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import IsotonicMap
    >>> step = IsotonicMap(scores=np.array([0.2, 0.6]), values=np.array([0.1, 0.9]))
    >>> step([0.0, 0.4, 1.0]).round(6).tolist()
    [0.1, 0.5, 0.9]
    """

    scores: Floats
    values: Floats

    def __call__(self, score: Floats) -> Floats:
        """Return the value at each score."""
        return np.asarray(np.interp(score, self.scores, self.values))


class IsotonicCalibration(SmoothedCalibrator):
    """Map scores by the non-decreasing function that fits the labels best.

    The function is non-parametric: it can correct any monotone distortion, and needs more rows than a
    temperature. With ``scope="pooled"``, and with ``"top-label"`` if `keep_argmax` is true, predicted classes
    are unchanged. With both, the function can be used for other classes. Neither holds with
    ``"one-vs-rest"``.

    Parameters
    ----------
    scope : {"top-label", "pooled", "one-vs-rest"}, default="top-label"
        The scores on which the function is fitted.

        - "top-label": the largest probability of each row. The other probabilities keep their proportions.
          Needs about 200 rows.
        - "pooled": the probabilities of all classes, with a single function; rows are normalized. Needs
          about 500 rows.
        - "one-vs-rest": the probabilities of each class, with a function per class; rows are normalized.
          Needs about 1000 rows, and 50 of each class.

    keep_argmax : bool, default=True
        With ``scope="top-label"``, keep the predicted class, even if its calibrated confidence is lower.

    smoothing : float in [0, 1) or "auto", default="auto"
        Weight of the uniform distribution that is mixed in, since the function can be 0 and 1 at its ends.
        "auto" is ``1 / (n_samples + 2)``, where weights count as rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    maps_ : list of IsotonicMap or None
        Thresholds of the fitted function, or of the function of each class: ``scores`` and ``values`` of
        the same length. None is the identity, for a class without rows.

    smoothing_ : float
        Weight of the uniform distribution.

    n_features_in_ : int
        Number of columns seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns seen during fit. Only defined if all are strings.

    See Also
    --------
    VennAbersCalibration : Isotonic regression with intervals.

    References
    ----------
    .. [1] B. Zadrozny, C. Elkan. "Transforming classifier scores into accurate multiclass probability
       estimates", KDD 2002. :doi:`10.1145/775047.775151`
    .. [2] J. Zhang, B. Kailkhura, T. Y.-J. Han. "Mix-n-Match: ensemble and compositional methods for
       uncertainty calibration in deep learning", ICML 2020. :arxiv:`2003.07329`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import IsotonicCalibration
    >>> prob = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    >>> calibrator = IsotonicCalibration(smoothing=0).fit(np.log(prob), [0, 0, 0, 1])
    >>> calibrator.maps_[0].values
    array([0.5, 0.5, 1. , 1. ])
    >>> calibrator.calibrate(np.log([[0.25, 0.75]])).round(3)
    array([[0.25, 0.75]])
    """

    samples_needed = "about 200 in all; pooled: about 500; one-vs-rest: about 50 of each class"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "scope": [StrOptions({"top-label", "pooled", "one-vs-rest"})],
        "keep_argmax": ["boolean"],
        "smoothing": SMOOTHING,
    }

    def __init__(
        self,
        scope: Literal["top-label", "pooled", "one-vs-rest"] = "top-label",
        *,
        keep_argmax: bool = True,
        smoothing: float | Literal["auto"] = "auto",
    ) -> None:
        self.scope = scope
        self.keep_argmax = keep_argmax
        self.smoothing = smoothing

    def _fit_map(self, score: Floats, hit: Floats, weight: Floats) -> IsotonicMap:
        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(score, hit, sample_weight=weight)
        return IsotonicMap(np.asarray(model.X_thresholds_), np.asarray(model.y_thresholds_))

    def _fit_pooled(self, rows: CalibrationRows) -> IsotonicMap:
        return self._fit_map(*_pooled_points(rows))

    def _pooled(self, logits: Floats) -> Floats:
        prob, possible = class_probabilities(logits)
        pooled = normalized(self.maps_[0](prob) + _SLOPE * prob, possible)
        pooled = self._blend(pooled, possible.sum(axis=1)[:, None]) * possible
        put_first(pooled, logits.argmax(axis=1))
        return pooled


def _pooled_points(rows: CalibrationRows) -> tuple[Floats, Floats, Floats]:
    """Reduce all pairs of probability and label to a few points, with the same isotonic fit.

    Misses between two neighboring scores of hits always have the same fitted value. Each such group is
    therefore represented by its two end points.
    """
    prob, possible = class_probabilities(rows.logits)
    np.round(prob, TIE_DECIMALS, out=prob)
    index = np.arange(len(prob))
    hit_score = prob[index, rows.true_column]
    possible[index, rows.true_column] = False  # mask of the misses
    at, position = np.unique(hit_score, return_inverse=True)
    hits = np.bincount(position, weights=rows.weight)

    # Odd slots are the scores of hits, even slots the gaps between them.
    n_slots = 2 * len(at) + 1
    misses, low, high = np.zeros(n_slots), np.full(n_slots, np.inf), np.full(n_slots, -np.inf)
    step = max(1, _BLOCK_ENTRIES // prob.shape[1])
    for start in range(0, len(prob), step):
        block = slice(start, start + step)
        score = prob[block][possible[block]]
        weight = np.repeat(rows.weight[block], possible[block].sum(axis=1))
        place = np.searchsorted(at, score)
        slot = 2 * place + (at[np.minimum(place, len(at) - 1)] == score)
        misses += np.bincount(slot, weights=weight, minlength=n_slots)
        np.minimum.at(low, slot, score)
        np.maximum.at(high, slot, score)

    tied, gap = misses[1::2], misses[::2]
    filled = gap > 0
    score = np.concatenate([at, low[::2][filled], high[::2][filled]])
    frequency = np.concatenate([hits / (hits + tied), np.zeros(2 * filled.sum())])
    return score, frequency, np.concatenate([hits + tied, gap[filled] / 2, gap[filled] / 2])
