"""Gaps between confidence and accuracy: the largest, the parts by sign, and the mean over all rows."""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from clipcal._compat import Interval, StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, Closed, bin_top_label
from clipcal.metrics._top_label import read_top_label

__all__ = ["OverUnderConfidence", "maximum_calibration_error", "mean_confidence_gap", "over_under_confidence"]


class OverUnderConfidence(NamedTuple):
    """The two parts of the expected calibration error, which is their sum.

    Result of :func:`over_under_confidence`.
    """

    over: float
    under: float


@validate_params(
    {
        **BIN_COUNT,
        "weighted": ["boolean"],
        "closed": [StrOptions({"right", "left"})],
        "min_count": [Interval(Integral, 1, None, closed="left")],
    }
)
def maximum_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    weighted: bool = False,
    closed: Closed = "right",
    min_count: int = 1,
) -> float:
    """Compute the largest gap between confidence and accuracy in any bin (MCE).

    Two definitions are in use. The default is the largest gap, as in [1]_. Several papers on CLIP report
    the largest *term of the expected calibration error*, where each gap is multiplied by the fraction of
    rows in its bin: use ``weighted=True, closed="left", n_bins=10``. This number never exceeds the expected
    calibration error of the same bins.

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
        Number of bins of equal width, at least 1.

    weighted : bool, default=False
        Whether to multiply each gap by the fraction of the total weight in its bin.

    closed : {"right", "left"}, default="right"
        The side on which a bin includes its edge.

    min_count : int, default=1
        Bins with fewer rows are ignored. A bin with a single row can have a gap of up to 1 by chance.

    Returns
    -------
    error : float
        A fraction in [0, 1].

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels,
        or if no bin has at least `min_count` rows.

    References
    ----------
    .. [1] M. P. Naeini, G. F. Cooper, M. Hauskrecht. "Obtaining well calibrated probabilities using
       Bayesian binning", AAAI 2015. :doi:`10.1609/aaai.v29i1.9602`

    Examples
    --------
    >>> from clipcal.metrics import maximum_calibration_error
    >>> y_true = [1, 0, 1, 1]
    >>> y_prob = [0.9, 0.3, 0.42, 0.8]
    >>> round(maximum_calibration_error(y_true, y_prob, n_bins=5), 4)
    0.58
    >>> round(maximum_calibration_error(y_true, y_prob, n_bins=5, weighted=True), 4)
    0.145
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    bins = bin_top_label(top_label, n_bins=n_bins, closed=closed)
    eligible = bins.count >= min_count
    if not eligible.any():
        raise ValueError(
            f"No bin has at least min_count={min_count} rows; the largest has {bins.count.max()}. "
            "Lower min_count or n_bins."
        )
    if weighted:
        return float(np.abs(bins.residual[eligible]).max() / bins.weight.sum())
    return float(np.abs(bins.gaps[eligible]).max())


@validate_params({**BIN_COUNT, "closed": [StrOptions({"right", "left"})]})
def over_under_confidence(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    closed: Closed = "right",
) -> OverUnderConfidence:
    """Split the expected calibration error into over- and under-confidence.

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
        Number of bins of equal width, at least 1.

    closed : {"right", "left"}, default="right"
        The side on which a bin includes its edge.

    Returns
    -------
    parts : OverUnderConfidence
        A named tuple ``(over, under)``. Their sum is :func:`expected_calibration_error`, their
        difference is :func:`mean_confidence_gap`.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    Examples
    --------
    >>> from clipcal.metrics import over_under_confidence
    >>> over, under = over_under_confidence([1, 0, 1, 1], [0.9, 0.7, 0.4, 0.8])
    >>> round(over, 4), round(under, 4)
    (0.325, 0.075)
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    bins = bin_top_label(top_label, n_bins=n_bins, closed=closed)
    return OverUnderConfidence(over=bins.over, under=bins.under)


def mean_confidence_gap(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the mean confidence minus the accuracy, which is positive for an over-confident model.

    Unlike binned errors, it is unbiased, so it can be averaged over folds and compared between test sets
    of different size. Gaps of opposite sign cancel: a value near 0 does not prove calibration.

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

    Returns
    -------
    gap : float
        A signed fraction in [-1, 1].

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    Examples
    --------
    >>> from clipcal.metrics import mean_confidence_gap
    >>> round(mean_confidence_gap([1, 0, 1, 1], [0.9, 0.7, 0.4, 0.8]), 4)
    0.25
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    return bin_top_label(top_label, n_bins=1).mean_gap
