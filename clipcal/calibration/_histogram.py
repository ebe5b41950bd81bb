"""Histogram binning."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcal._compat import Interval, StrOptions
from clipcal.calibration._confidence import SMOOTHING, TIE_DECIMALS, SmoothedCalibrator

__all__ = ["HistogramBinning", "HistogramMap"]

Floats = NDArray[np.float64]


class HistogramMap(NamedTuple):
    """A piecewise constant function on bins that are closed on the right.

    Parameters
    ----------
    edges : ndarray of shape (n_bins + 1,)
        Edges of the bins.
    values : ndarray of shape (n_bins,)
        Value in each bin.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import HistogramMap
    >>> HistogramMap(edges=np.array([0.0, 0.5, 1.0]), values=np.array([0.3, 0.8]))([0.5, 0.6]).tolist()
    [0.3, 0.8]
    """

    edges: Floats
    values: Floats

    def __call__(self, score: Floats) -> Floats:
        """Return the value of the bin of each score."""
        return self.values[np.searchsorted(self.edges[1:-1], score)]


class HistogramBinning(SmoothedCalibrator):
    """Replace a score by the frequency of correct predictions in its bin.

    The method is simple and hardly over-fits with few bins, but gives all rows of a bin the same score. With
    ``scope="top-label"``, predicted classes are unchanged if `keep_argmax` is true, the bins can be used for
    other classes, and about 20 rows per bin are needed. With ``scope="one-vs-rest"``, neither holds, and
    about 10 rows of each class per bin are needed.

    Parameters
    ----------
    n_bins : int, default=10
        Number of bins, at least 1. With ``strategy="quantile"``, few or tied scores give fewer bins.

    strategy : {"quantile", "uniform"}, default="quantile"
        Bins of equal weight, or of equal width. Edges of equal-weight bins lie half-way between neighboring
        scores and never separate equal scores. Empty bins map to their middle. Use "uniform" with
        ``scope="one-vs-rest"`` and more than about ten classes: most probabilities are then close to 0, and
        the last bin of equal weight would contain all large ones.

    scope : {"top-label", "one-vs-rest"}, default="top-label"
        With "top-label", the largest probability of each row is binned, and the other probabilities keep
        their proportions. With "one-vs-rest", each class has its own bins, and rows are normalized.

    keep_argmax : bool, default=True
        With ``scope="top-label"``, keep the predicted class, even if its calibrated confidence is lower.

    smoothing : float in [0, 1) or "auto", default="auto"
        Weight of the uniform distribution that is mixed in, so that bins with only correct or only wrong
        rows do not give 0 or 1. "auto" is ``1 / (n_samples + 2)``, where weights count as rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column.

    maps_ : list of HistogramMap or None
        ``edges`` of shape (n_bins + 1,) and ``values`` of shape (n_bins,) of the fitted function, or of the
        function of each class. None is the identity, for a class without rows.

    smoothing_ : float
        Weight of the uniform distribution.

    n_features_in_ : int
        Number of columns seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns seen during fit. Only defined if all are strings.

    References
    ----------
    .. [1] B. Zadrozny, C. Elkan. "Obtaining calibrated probability estimates from decision trees and naive
       Bayesian classifiers", ICML 2001.
    .. [2] C. Gupta, A. Ramdas. "Top-label calibration and multiclass-to-binary reductions", ICLR 2022.
       :arxiv:`2107.08353`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.calibration import HistogramBinning
    >>> prob = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    >>> calibrator = HistogramBinning(n_bins=2, smoothing=0).fit(np.log(prob), [0, 0, 1, 0])
    >>> calibrator.maps_[0].edges, calibrator.maps_[0].values
    (array([0.  , 0.75, 1.  ]), array([0.5, 1. ]))
    >>> calibrator.calibrate(np.log([[0.15, 0.85]]))
    array([[0., 1.]])
    """

    samples_needed = "about 200 in all; one-vs-rest: about 100 of each class"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_bins": [Interval(Integral, 1, None, closed="left")],
        "strategy": [StrOptions({"quantile", "uniform"})],
        "scope": [StrOptions({"top-label", "one-vs-rest"})],
        "keep_argmax": ["boolean"],
        "smoothing": SMOOTHING,
    }

    def __init__(
        self,
        n_bins: int = 10,
        *,
        strategy: Literal["quantile", "uniform"] = "quantile",
        scope: Literal["top-label", "one-vs-rest"] = "top-label",
        keep_argmax: bool = True,
        smoothing: float | Literal["auto"] = "auto",
    ) -> None:
        self.n_bins = n_bins
        self.strategy = strategy
        self.scope = scope
        self.keep_argmax = keep_argmax
        self.smoothing = smoothing

    def _fit_map(self, score: Floats, hit: Floats, weight: Floats) -> HistogramMap:
        if self.strategy == "quantile":
            edges = _equal_weight_edges(score, weight, self.n_bins)
        else:
            edges = np.linspace(0.0, 1.0, self.n_bins + 1)
        n_bins = len(edges) - 1
        index = np.searchsorted(edges[1:-1], score)
        total = np.bincount(index, weights=weight, minlength=n_bins)
        hits = np.bincount(index, weights=weight * hit, minlength=n_bins)
        values = (edges[:-1] + edges[1:]) / 2.0
        np.divide(hits, total, out=values, where=total > 0)
        return HistogramMap(edges, np.minimum(values, 1.0))


def _equal_weight_edges(score: Floats, weight: Floats, n_bins: int) -> Floats:
    """Return edges between distinct scores such that bins have about equal weight and none is empty."""
    values, position = np.unique(np.round(score, TIE_DECIMALS), return_inverse=True)
    passed = np.cumsum(np.bincount(position, weights=weight))
    # The tolerance covers rounding errors of the cumulative weights.
    targets = np.arange(1, n_bins) * (passed[-1] / n_bins) * (1.0 - 1e-12)
    ends = np.unique(np.searchsorted(passed, targets))
    below, above = values[ends[ends < len(values) - 1]], values[ends[ends < len(values) - 1] + 1]
    middle = (below + above) / 2.0
    return np.concatenate([[0.0], np.where(middle < above, middle, below), [1.0]])
