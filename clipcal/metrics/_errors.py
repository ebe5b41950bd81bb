"""Top-label calibration errors: fractions for which lower is better and 0 is perfect."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from clipcal._caller import advise_caller
from clipcal._compat import StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, Closed, Strategy, bin_top_label
from clipcal.metrics._top_label import read_top_label

__all__ = ["adaptive_calibration_error", "expected_calibration_error", "root_mean_square_calibration_error"]


@validate_params({**BIN_COUNT, "closed": [StrOptions({"right", "left"})]})
def expected_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    closed: Closed = "right",
) -> float:
    """Compute the expected calibration error (ECE) over bins of equal width.

    Rows are binned by the probability of their predicted class. The error is the mean over rows of the
    absolute difference between the mean confidence and the accuracy of their bin.

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
        Number of bins, at least 1.

    closed : {"right", "left"}, default="right"
        The side on which a bin includes its edge. The outermost bins always include 0 and 1. This only
        matters for confidences on an edge, such as rounded or saturated ones.

    Returns
    -------
    error : float
        A fraction in [0, 1]; multiply by 100 to compare with papers that report per cent.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    adaptive_calibration_error : The error over bins of equal weight.
    debiased_calibration_error : An estimate that is corrected for the bias with few rows.
    classwise_calibration_error : The error of the probabilities of all classes.
    over_under_confidence : The error split by the sign of the gap.
    mean_confidence_gap : A signed number without bins.

    Notes
    -----
    The estimate is biased upwards if there are few rows: it is about 0.03 for a perfectly calibrated model
    with 1000 test rows. It is not a proper score: a model that always predicts the class frequencies has an
    error of 0. Select models by log loss, and report this number.

    Published code differs in the number of bins and in the closed side. ``closed="right"`` is used by [1]_,
    scikit-learn and most papers on prompt tuning (with 15, 10 or 20 bins), ``closed="left"`` by netcal
    (10 bins) and several papers on CLIP (10 or 15).

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
    return bin_top_label(top_label, n_bins=n_bins, closed=closed).error


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

    Like :func:`expected_calibration_error`, but with edges such that each bin has about the same number of
    rows. Edges lie half-way between neighboring confidences and never separate equal confidences, so the
    value does not depend on the order of the rows.

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
        Weights, finite and non-negative. Integer weights count as repetitions of the row. Other weights
        are scaled to sum to the number of rows, so only their ratios matter. Edges are placed where the
        cumulative weight is within half a row of its target.

    n_bins : int, default=15
        Number of bins, at least 1. Few or tied rows give fewer bins.

    Returns
    -------
    error : float
        A fraction in [0, 1].

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    Warns
    -----
    UserWarning
        If there are fewer than five rows per bin. The value then mostly measures noise.

    Notes
    -----
    Two other errors have the same acronym: the *average* calibration error (the unweighted mean of the gaps
    of equal-width bins), and a version that also averages over all classes.

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
        cure = f"n_bins={n_rows // 5} or more rows" if n_rows >= 5 else "more rows"
        advise_caller(
            f"{n_rows} rows in {n_bins} bins are fewer than five per bin, so the adaptive calibration error "
            f"mostly measures noise. Pass {cure}."
        )
    return bin_top_label(top_label, n_bins=n_bins, strategy="quantile").error


@validate_params(
    {
        **BIN_COUNT,
        "strategy": [StrOptions({"uniform", "quantile"})],
        "closed": [StrOptions({"right", "left"})],
    }
)
def root_mean_square_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    closed: Closed = "right",
) -> float:
    """Compute the root mean square gap between confidence and accuracy (RMSCE, or the L2 error).

    Like :func:`expected_calibration_error`, but the mean over rows is that of squared gaps, so large gaps
    have more influence. With the same bins, it lies between the expected and the maximum error.

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
        Bins of equal width, or of equal weight.

    closed : {"right", "left"}, default="right"
        The side on which an equal-width bin includes its edge. Ignored with ``strategy="quantile"``.

    Returns
    -------
    error : float
        A fraction in [0, 1].

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    debiased_calibration_error : The error corrected for its upward bias.

    References
    ----------
    .. [1] A. Kumar, P. Liang, T. Ma. "Verified uncertainty calibration", NeurIPS 2019.
       :arxiv:`1909.10155`

    Examples
    --------
    >>> from clipcal.metrics import root_mean_square_calibration_error
    >>> y_true = ["cat", "dog", "cat", "dog"]
    >>> y_prob = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]
    >>> round(root_mean_square_calibration_error(y_true, y_prob, labels=["cat", "dog"]), 4)
    0.4183
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    bins = bin_top_label(top_label, n_bins=n_bins, strategy=strategy, closed=closed)
    filled = bins.count > 0
    squares = bins.residual[filled] ** 2 / bins.weight[filled]
    return float(np.sqrt(squares.sum() / bins.weight.sum()))
