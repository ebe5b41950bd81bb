"""Top-label calibration errors. All of them are fractions, lower is better, and 0 is perfect."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._compat import Interval, StrOptions, validate_params
from ._bins import BIN_COUNT, Closed, bin_top_label
from ._top_label import read_top_label

__all__ = [
    "OverUnderConfidence",
    "adaptive_calibration_error",
    "expected_calibration_error",
    "maximum_calibration_error",
    "mean_confidence_gap",
    "over_under_confidence",
]


class OverUnderConfidence(NamedTuple):
    """The two parts of the expected calibration error; their sum is the error itself."""

    over: float
    under: float


@validate_params(BIN_COUNT)
def expected_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
) -> float:
    """Compute the expected calibration error (ECE) over bins of equal width.

    Rows are sorted into bins by the probability of their predicted class. The error is the mean over
    rows of the absolute difference between a bin's mean confidence and its accuracy. Bins are closed on
    the right, and the first also holds 0.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    n_bins : int, default=15
        Number of bins, at least 1.

    Returns
    -------
    error : float
        A fraction in [0, 1]; multiply by 100 to compare with papers that print per cent.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together.

    See Also
    --------
    adaptive_calibration_error : The same over bins of equal weight.
    over_under_confidence : The error split by the sign of the gap.
    mean_confidence_gap : A signed number that needs no bins.

    Notes
    -----
    The estimate is biased upwards when rows are few: a perfectly calibrated model with 1000 test rows
    shows about 0.03. It is not a proper score either, since a model that always answers with the class
    frequencies scores 0. Select models by log loss, and report this number.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On calibration of modern neural networks",
       ICML 2017. :arxiv:`1706.04599`

    Examples
    --------
    >>> from clipcal.metrics import expected_calibration_error
    >>> y_true = ["cat", "dog", "cat", "dog"]
    >>> y_prob = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]
    >>> round(expected_calibration_error(y_true, y_prob, labels=["cat", "dog"]), 4)
    0.35
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    return bin_top_label(top_label, n_bins=n_bins).error


@validate_params(BIN_COUNT)
def adaptive_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
) -> float:
    """Compute the calibration error over bins of equal weight (ACE, also called ECE-EM).

    Like :func:`expected_calibration_error`, but the edges follow the data: each bin holds about the
    same number of rows. Cuts lie half-way between neighbouring confidences and never separate equal
    ones, so the value does not depend on the order of the rows.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative. Cuts are made where the cumulative weight passes equal shares.

    n_bins : int, default=15
        Number of bins, at least 1. Fewer are made if rows are few or tied.

    Returns
    -------
    error : float
        A fraction in [0, 1].

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together.

    Warns
    -----
    UserWarning
        If there are fewer than five rows per bin, where the value mostly measures noise.

    Notes
    -----
    Two other quantities carry the same initials: the *average* calibration error (the unweighted mean
    of the gaps of equal-width bins), and a version that also averages over all classes.

    References
    ----------
    .. [1] J. Nixon, M. W. Dusenberry, L. Zhang, G. Jerfel, D. Tran. "Measuring calibration in deep
       learning", CVPR Workshops 2019. :arxiv:`1904.01685`

    Examples
    --------
    >>> from clipcal.metrics import adaptive_calibration_error
    >>> y_true = [1, 0, 1, 1, 0, 1, 1, 1, 0, 1]
    >>> y_prob = [0.9, 0.2, 0.6, 0.8, 0.4, 0.7, 0.95, 0.85, 0.55, 0.75]
    >>> round(adaptive_calibration_error(y_true, y_prob, n_bins=2), 4)
    0.15
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    n_rows = len(top_label.weight)
    if n_rows < 5 * n_bins:
        warnings.warn(
            f"{n_rows} rows for {n_bins} bins leave fewer than five in each, so the adaptive calibration "
            f"error mostly measures noise. Pass n_bins={max(1, n_rows // 5)} or more rows.",
            UserWarning,
            stacklevel=3,
        )
    return bin_top_label(top_label, n_bins=n_bins, strategy="quantile").error


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

    Two different numbers go by this name. By default it is the largest gap itself, as defined in [1]_.
    Several papers on CLIP print the largest *share of the expected calibration error*, where each gap is
    multiplied by the fraction of rows in its bin: ``weighted=True, closed="left", n_bins=10`` gives
    their number. It never exceeds the expected calibration error of the same bins.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    n_bins : int, default=15
        Number of bins of equal width, at least 1.

    weighted : bool, default=False
        Whether to multiply each gap by its bin's share of the weight.

    closed : {"right", "left"}, default="right"
        The side on which a bin includes its edge.

    min_count : int, default=1
        Bins with fewer rows are skipped; a bin with a single row has a gap of up to 1 by chance.

    Returns
    -------
    error : float
        A fraction in [0, 1].

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together, or if
        no bin holds `min_count` rows.

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
            f"No bin holds min_count={min_count} rows; the fullest has {bins.count.max()}. "
            "Lower min_count or n_bins."
        )
    if weighted:
        return float(np.abs(bins.residual[eligible]).max() / bins.weight.sum())
    return float(np.abs(bins.gaps[eligible]).max())


@validate_params(BIN_COUNT)
def over_under_confidence(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
) -> OverUnderConfidence:
    """Split the expected calibration error into over- and under-confidence.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    n_bins : int, default=15
        Number of bins of equal width, at least 1.

    Returns
    -------
    parts : OverUnderConfidence
        A named tuple ``(over, under)``. Their sum is :func:`expected_calibration_error`, their
        difference is :func:`mean_confidence_gap`.

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together.

    Examples
    --------
    >>> from clipcal.metrics import over_under_confidence
    >>> over, under = over_under_confidence([1, 0, 1, 1], [0.9, 0.7, 0.4, 0.8])
    >>> round(over, 4), round(under, 4)
    (0.325, 0.075)
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    bins = bin_top_label(top_label, n_bins=n_bins)
    return OverUnderConfidence(over=bins.over, under=bins.under)


def mean_confidence_gap(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute mean confidence minus accuracy: positive for an over-confident model.

    Unlike the binned errors it is unbiased, so it can be averaged over folds and compared between test
    sets of different size. Gaps of opposite sign cancel: a value near 0 does not prove calibration.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    gap : float
        A signed fraction in [-1, 1].

    Raises
    ------
    ValueError
        If the input is empty, holds NaN or infinity, is no probability, or does not fit together.

    Examples
    --------
    >>> from clipcal.metrics import mean_confidence_gap
    >>> round(mean_confidence_gap([1, 0, 1, 1], [0.9, 0.7, 0.4, 0.8]), 4)
    0.25
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    return bin_top_label(top_label, n_bins=1).mean_gap
