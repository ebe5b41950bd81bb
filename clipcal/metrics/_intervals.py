"""Confidence intervals of calibration errors."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from sklearn.utils import check_random_state

from clipcal._compat import StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, Strategy, bin_top_label
from clipcal.metrics._chance import LEVEL, RESAMPLES, STRATEGY, RandomState
from clipcal.metrics._null import bin_rows
from clipcal.metrics._resampling import absolute_sum, bin_residuals, error_bounds, resample_residuals
from clipcal.metrics._top_label import TopLabel, read_top_label

__all__ = ["CalibrationInterval", "calibration_interval"]


class CalibrationInterval(NamedTuple):
    """Result of :func:`calibration_interval`.

    Attributes
    ----------
    estimate : float
        Estimate of the error or gap.

    low : float
        Lower end of the interval for the true value.

    high : float
        Upper end of the interval.
    """

    estimate: float
    low: float
    high: float


@validate_params(
    {
        **BIN_COUNT,
        **STRATEGY,
        **RESAMPLES,
        **LEVEL,
        "metric": [StrOptions({"ece", "gap"})],
        "method": [StrOptions({"inversion", "basic"})],
    }
)
def calibration_interval(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    metric: Literal["ece", "gap"] = "ece",
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    confidence_level: float = 0.95,
    method: Literal["inversion", "basic"] = "inversion",
    n_resamples: int = 1000,
    random_state: RandomState = None,
) -> CalibrationInterval:
    """Compute a confidence interval for a calibration error or for the mean confidence gap.

    Percentile bootstrap intervals are not valid here: resampling adds the upward bias of binned errors a
    second time, so they almost never cover small true errors. The default method inverts bounds that hold
    for any distribution of the error over the bins.

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
        Weights, finite and non-negative. A row of weight 2 is one observation that counts twice, not two.

    metric : {"ece", "gap"}, default="ece"
        The expected calibration error, or :func:`mean_confidence_gap`. The gap has a normal interval, for
        which `n_bins`, `strategy`, `method`, `n_resamples` and `random_state` are ignored.

    n_bins : int, default=15
        Number of bins, at least 1. All resamples use the same edges.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal weight.

    confidence_level : float, default=0.95
        Nominal coverage of the true value, in (0, 1).

    method : {"inversion", "basic"}, default="inversion"
        How the interval of the binned error is computed; see Notes.

    n_resamples : int, default=1000
        Number of draws, at least 99.

    random_state : int, RandomState instance or None, default=None
        Random number generator or seed for the draws.

    Returns
    -------
    interval : CalibrationInterval
        A named tuple ``(estimate, low, high)``. The interval always includes the estimate. The true value
        usually lies in the lower part, since binned errors are biased upwards.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    calibration_test : Test whether the error is larger than that of a calibrated model.
    compare_calibration : An interval for the difference of two models.

    Notes
    -----
    The true value is the error of these bins for infinitely many rows.

    ``"inversion"``: the observed error exceeds the true one by at most the sum of the absolute noise of the
    bins (of the signed noise in bins more than 2.5 standard deviations from zero), which gives the lower
    end. Among all distributions of a true error over the bins, gaps proportional to the noise of each bin
    give the smallest observed error; the upper end is the largest true error for which an observed error as
    small as this one has the tail probability under that distribution. The variance of each bin is at least
    that with four more rows of its rarer outcome, correct or wrong: if an outcome is rare, its observed
    frequency is too uncertain.

    ``"basic"``: the basic (reflected) bootstrap interval, clipped at 0. It is narrower, and its coverage is
    too low if the true error is small. With more than 20,000 rows, the resampled bin sums are drawn from
    their normal limit.

    The table shows the fraction of 95 % intervals that cover the true value, for ten classes and
    confidences that are all too high by the true error. Each value comes from 200 replicates (100 with
    10,000 rows; 50 for ``"basic"``), with a standard error of about 0.02 (0.03 to 0.04).

    ===========  ======  =====  =====  =====  =====  =====
    method         rows   0.00   0.01   0.02   0.05   0.10
    ===========  ======  =====  =====  =====  =====  =====
    inversion       200   0.98   1.00   1.00   1.00   0.95
    inversion      1000   0.99   1.00   1.00   0.98   0.97
    inversion     10000   0.97   0.98   0.99   0.99   0.97
    basic           200   0.57   0.69   0.85   0.88   0.89
    basic          1000   0.52   0.86   0.94   0.89   0.93
    basic         10000   0.50   0.92   0.90   0.94   1.00
    gap             200   0.95   0.97   0.92   0.93   0.96
    gap            1000   0.96   0.94   0.95   0.94   0.96
    gap           10000   0.95   0.97   0.94   0.98   0.97
    ===========  ======  =====  =====  =====  =====  =====

    With true errors of alternating sign, or with all of the error in the last bin, the coverage of
    ``"inversion"`` was 0.95 to 1.00 in each setting. With all rows in one bin, a single confidence from 0.90
    to 0.99, and 2 to 10 per cent of the rows wrong, it was 0.94 to 1.00 with 50 to 1000 rows of equal or
    exponential weights (400 replicates).

    The interval of the gap is a normal interval after adding correct and wrong rows as in [2]_, so that it
    also holds with few rows and rare outcomes.

    References
    ----------
    .. [1] B. Efron, R. J. Tibshirani. "An introduction to the bootstrap", 1993.
       :doi:`10.1201/9780429246593`
    .. [2] A. Agresti, B. A. Coull. "Approximate is better than 'exact' for interval estimation of binomial
       proportions", The American Statistician 52, 1998. :doi:`10.1080/00031305.1998.10480550`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.metrics import calibration_interval
    >>> rng = np.random.default_rng(0)
    >>> y_prob = rng.uniform(0.5, 1, size=1000)
    >>> y_true = rng.uniform(size=1000) < y_prob - 0.1
    >>> estimate, low, high = calibration_interval(y_true, y_prob, random_state=0)
    >>> low < 0.1 < high
    True
    >>> estimate, low, high = calibration_interval(y_true, y_prob, metric="gap")
    >>> low < 0.1 < high
    True
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    if metric == "gap":
        return _gap_interval(top_label, confidence_level)
    rows = bin_rows(top_label, n_bins=n_bins, strategy=strategy)
    estimate = bin_top_label(top_label, n_bins=n_bins, strategy=strategy).error
    generator = check_random_state(random_state)
    if method == "inversion":
        bins = bin_residuals(rows, top_label.correct)
        noise = bins.deviation * generator.standard_normal((n_resamples, len(bins.deviation)))
        low, high = error_bounds(bins, noise, (1.0 - confidence_level) / 2.0)
    else:
        models = [(rows, top_label.correct)]
        drawn = np.concatenate([absolute_sum(d) for d in resample_residuals(models, n_resamples, generator)])
        tails = [(1.0 + confidence_level) / 2.0, (1.0 - confidence_level) / 2.0]
        low, high = np.clip(2.0 * estimate - np.quantile(drawn, tails), 0.0, 1.0)
    return CalibrationInterval(estimate, min(float(low), estimate), max(float(high), estimate))


def _gap_interval(top_label: TopLabel, level: float) -> CalibrationInterval:
    """Compute a normal interval after adding correct and wrong rows, as Agresti and Coull do."""
    confidence, correct, weight = top_label
    residual, whole = confidence - correct, float(weight.sum())
    z = float(ndtri((1.0 + level) / 2.0))
    mean_confidence = float(weight @ confidence) / whole
    added = np.array([mean_confidence, mean_confidence - 1.0])
    one = float(weight @ weight) / whole
    extra = one * z**2 / 2.0
    total = whole + 2.0 * extra
    center = (float(weight @ residual) + extra * float(added.sum())) / total
    variance = weight**2 @ (residual - center) ** 2 + extra * one * ((added - center) ** 2).sum()
    half = z * float(np.sqrt(variance)) / total
    # np.average, unlike weight @ residual / whole, stays within the range of the residuals.
    estimate = float(np.average(residual, weights=weight))
    low, high = min(center - half, estimate), max(center + half, estimate)
    return CalibrationInterval(estimate, max(low, -1.0), min(high, 1.0))
