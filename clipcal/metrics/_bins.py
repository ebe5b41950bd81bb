"""Bins of confidence, as used by all metrics and plots."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._compat import Interval, StrOptions, validate_params
from clipcal.metrics._top_label import TopLabel, read_top_label

__all__ = [
    "CalibrationBins",
    "assign_bins",
    "bin_top_label",
    "calibration_bins",
    "cut_index",
    "equal_weight_edges",
    "uniform_index",
]

Floats = NDArray[np.float64]
Strategy = Literal["uniform", "quantile"]
Closed = Literal["right", "left"]

# Number of values that stay in the processor cache while they are compared with each cut in turn.
_VALUES_AT_A_TIME = 2**15
# Integers up to this one are exact in double precision.
_LARGEST_COUNT = 2**53
# Slightly more than one half, so that rounding errors do not move a cut.
_HALF_A_UNIT = 0.5 + 1e-9

BIN_COUNT: dict[str, list[Any]] = {"n_bins": [Interval(Integral, 1, None, closed="left")]}


@dataclass(frozen=True, eq=False)
class CalibrationBins:
    """A table with one row per bin of confidence, and the errors computed from it.

    Result of :func:`calibration_bins`.

    Attributes
    ----------
    edges : ndarray of shape (n_bins + 1,)
        Edges of the bins, from 0 to 1.

    count : ndarray of shape (n_bins,), dtype int
        Number of rows in each bin; rows of weight zero are ignored.

    effective_count : ndarray of shape (n_bins,)
        Kish's effective number of rows, ``sum(w)**2 / sum(w**2)``; equals `count` without weights.

    weight : ndarray of shape (n_bins,)
        Total weight in each bin; equals `count` without weights.

    confidence : ndarray of shape (n_bins,)
        Mean confidence in each bin, NaN where the bin is empty.

    accuracy : ndarray of shape (n_bins,)
        Fraction of correct rows in each bin, NaN where the bin is empty.

    residual : ndarray of shape (n_bins,)
        Weighted sum of confidence minus correctness in each bin: positive where the model is
        over-confident, zero where the bin is empty.
    """

    edges: Floats
    count: NDArray[np.int64]
    effective_count: Floats
    weight: Floats
    confidence: Floats
    accuracy: Floats
    residual: Floats

    def __len__(self) -> int:
        """Return the number of bins."""
        return len(self.weight)

    @property
    def n_samples(self) -> int:
        """Number of rows of positive weight."""
        return int(self.count.sum())

    @property
    def error(self) -> float:
        """Mean absolute gap between confidence and accuracy: the expected calibration error."""
        return float(np.abs(self.residual).sum() / self.weight.sum())

    @property
    def over(self) -> float:
        """The part of `error` that stems from over-confident bins."""
        return float(np.maximum(self.residual, 0.0).sum() / self.weight.sum())

    @property
    def under(self) -> float:
        """The part of `error` that stems from under-confident bins."""
        return float(np.maximum(-self.residual, 0.0).sum() / self.weight.sum())

    @property
    def mean_gap(self) -> float:
        """Mean confidence minus accuracy over all rows; independent of the bins."""
        return float(self.residual.sum() / self.weight.sum())

    @property
    def gaps(self) -> Floats:
        """Mean confidence minus accuracy of each bin, NaN where the bin is empty."""
        return _divide(self.residual, self.weight)


@validate_params(
    {
        **BIN_COUNT,
        "strategy": [StrOptions({"uniform", "quantile"})],
        "closed": [StrOptions({"right", "left"})],
    }
)
def calibration_bins(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    closed: Closed = "right",
) -> CalibrationBins:
    """Bin predictions by confidence, and compare confidence with accuracy in each bin.

    The confidence of a row is its largest probability. The row is correct if the label of that column is
    the true label. Ties are resolved in favor of the label that sorts first.

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

    n_bins : int, default=15
        Number of bins, at least 1. With ``strategy="quantile"``, few or tied rows give fewer bins.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal weight. Edges of equal-weight bins lie half-way between
        neighboring confidences and never separate equal confidences.

    closed : {"right", "left"}, default="right"
        The side on which an equal-width bin includes its edge. The outermost bins always include 0
        and 1. Ignored with ``strategy="quantile"``: equal-weight bins are closed on the right.

    Returns
    -------
    bins : CalibrationBins
        The table, including empty bins.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    expected_calibration_error : The mean gap over bins of equal width.
    adaptive_calibration_error : The mean gap over bins of equal weight.

    References
    ----------
    .. [1] M. P. Naeini, G. F. Cooper, M. Hauskrecht. "Obtaining well calibrated probabilities using
       Bayesian binning", AAAI 2015. :doi:`10.1609/aaai.v29i1.9602`

    Examples
    --------
    >>> from clipcal.metrics import calibration_bins
    >>> bins = calibration_bins([1, 0, 1, 1], [0.95, 0.7, 0.65, 0.9], n_bins=5)
    >>> bins.count
    array([0, 0, 0, 2, 2])
    >>> bins.accuracy.round(2)
    array([nan, nan, nan, 0.5, 1. ])
    >>> round(bins.error, 4)
    0.125
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    return bin_top_label(top_label, n_bins=n_bins, strategy=strategy, closed=closed)


def bin_top_label(
    top_label: TopLabel, *, n_bins: int, strategy: Strategy = "uniform", closed: Closed = "right"
) -> CalibrationBins:
    """Build the table from validated rows."""
    confidence, correct, weight = top_label
    edges, index = assign_bins(top_label, n_bins=n_bins, strategy=strategy, closed=closed)

    def total(values: Floats) -> Floats:
        return np.bincount(index, weights=values, minlength=len(edges) - 1).astype(np.float64)

    count = np.bincount(index, minlength=len(edges) - 1)
    residual = confidence - correct
    if (weight == 1.0).all():
        in_bin = effective_count = count.astype(np.float64)
    else:
        in_bin = total(weight)
        # The square of a tiny weight may underflow to 0; a bin with a row has at least one effective row.
        effective_count = np.maximum(_divide(in_bin**2, total(weight**2), empty=0.0), count > 0)
        confidence, correct, residual = weight * confidence, weight * correct, weight * residual
    return CalibrationBins(
        edges=edges,
        count=count,
        effective_count=effective_count,
        weight=in_bin,
        confidence=_divide(total(confidence), in_bin),
        accuracy=_divide(total(correct), in_bin),
        residual=total(residual),
    )


def assign_bins(
    top_label: TopLabel, *, n_bins: int, strategy: Strategy = "uniform", closed: Closed = "right"
) -> tuple[Floats, NDArray[np.intp]]:
    """Return the edges of the bins, and the bin of each row."""
    confidence, _, weight = top_label
    if strategy == "quantile":
        edges = equal_weight_edges(confidence, weight, n_bins)
        return edges, cut_index(confidence, edges[1:-1])
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    return edges, uniform_index(confidence, edges, closed=closed)


def uniform_index(forecast: Floats, edges: Floats, *, closed: Closed = "right") -> NDArray[np.intp]:
    """Return the equal-width bin of each value in [0, 1]; 0 and 1 fall into the outermost bins."""
    return cut_index(forecast, edges[1:-1], closed=closed)


def cut_index(values: Floats, cuts: Floats, *, closed: Closed = "right") -> NDArray[np.intp]:
    """Count the cuts below each value; a cut equal to the value counts if bins are closed on the left."""
    if len(cuts) > min(255, len(values)):
        return np.searchsorted(cuts, values, side="left" if closed == "right" else "right")
    # Vectorized comparisons make one pass per cut several times faster than a binary search.
    passes = np.greater if closed == "right" else np.greater_equal
    index = np.empty(len(values), dtype=np.intp)
    for start in range(0, len(values), _VALUES_AT_A_TIME):
        block = values[start : start + _VALUES_AT_A_TIME]
        passed = np.zeros(len(block), dtype=np.uint8)
        for cut in cuts:
            passed += passes(block, cut)
        index[start : start + len(block)] = passed
    return index


def equal_weight_edges(values: Floats, weight: Floats, n_bins: int) -> Floats:
    """Return edges half-way between sorted values such that bins have about equal weight and none is empty.

    Weights are counted in units. Integer weights are used as they are; other weights are scaled to sum to
    the number of rows. The units are split as in ``numpy.array_split``: the first bins get one more. A cut
    follows the first row at which the cumulative weight is less than half a unit short of its target, and
    all rows of the same value.

    The outermost edges are always 0 and 1.
    """
    n_rows = len(values)
    n_units, passed = n_rows, None
    if (weight == weight[0]).all() and not (1.0 < weight[0] == np.floor(weight[0])):
        ordered = np.sort(values)
    else:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        passed = np.cumsum(weight[order])
        # Larger integers are not exact in double precision.
        if passed[-1] < _LARGEST_COUNT and (weight == np.floor(weight)).all():
            n_units = int(passed[-1])
        else:
            passed *= n_rows / passed[-1]
    n_bins = min(n_bins, n_units)
    steps = np.arange(1, n_bins)
    size, extra = divmod(n_units, n_bins)
    ends: NDArray[np.intp] = steps * size + np.minimum(steps, extra)
    if passed is not None:
        # Half a unit of tolerance keeps the cuts in place if weights are nearly equal.
        ends = np.minimum(np.searchsorted(passed, ends - _HALF_A_UNIT) + 1, n_rows)
    ends = np.unique(np.searchsorted(ordered, ordered[ends - 1], side="right"))
    ends = ends[ends < n_rows]
    below, above = ordered[ends - 1], ordered[ends]
    middle = below / 2.0 + above / 2.0
    # No number lies between adjacent floating-point numbers; the cut is then the lower one.
    cuts = np.where((below < middle) & (middle < above), middle, below)
    return np.concatenate([[0.0], cuts, [1.0]])


def _divide(numerator: Floats, denominator: Floats, *, empty: float = np.nan) -> Floats:
    out = np.full(len(denominator), empty)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)
