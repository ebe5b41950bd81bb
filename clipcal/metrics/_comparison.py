"""Comparison of two models on the same rows, by calibration error or by a proper loss."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit
from sklearn.utils import check_random_state

from clipcal._compat import StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, Strategy
from clipcal.metrics._brier import brier_losses
from clipcal.metrics._chance import LEVEL, RESAMPLES, STRATEGY, RandomState
from clipcal.metrics._log_loss import log_losses
from clipcal.metrics._null import BinnedRows, bin_rows
from clipcal.metrics._resampling import (
    BinnedResiduals,
    bin_residuals,
    error_bounds,
    most_excess_over,
    pair_noise,
)
from clipcal.metrics._top_label import read_class_probabilities, read_top_label

__all__ = ["CalibrationComparison", "compare_calibration"]

Floats = NDArray[np.float64]


class CalibrationComparison(NamedTuple):
    """Result of :func:`compare_calibration`.

    Attributes
    ----------
    difference : float
        Value of model A minus that of model B: negative if A is better.

    low : float
        Lower end of the interval for the true difference.

    high : float
        Upper end of the interval.

    pvalue : float
        Two-sided p-value of the hypothesis of no difference.

    value_a : float
        Value of model A.

    value_b : float
        Value of model B.
    """

    difference: float
    low: float
    high: float
    pvalue: float
    value_a: float
    value_b: float


@validate_params(
    {
        **BIN_COUNT,
        **STRATEGY,
        **RESAMPLES,
        **LEVEL,
        "metric": [StrOptions({"ece", "brier", "nll"})],
    }
)
def compare_calibration(
    y_true: ArrayLike,
    y_prob_a: ArrayLike,
    y_prob_b: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    metric: Literal["ece", "brier", "nll"] = "ece",
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    random_state: RandomState = None,
) -> CalibrationComparison:
    """Compare two models on the same rows by calibration error or by a proper loss.

    Prefer a proper loss to choose between models: its mean is unbiased, and differences become significant
    with far fewer rows. A difference of binned errors includes a difference of biases, since the sharper of
    two calibrated models has a smaller error by chance; the interval allows for this.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. With ``metric="ece"``, a label that is not in `labels` counts as a wrong prediction;
        with the other metrics it raises an error.

    y_prob_a : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities of model A, in [0, 1]. A 1-D array holds those of the second of two classes.

    y_prob_b : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities of model B for the same rows and classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative. A row of weight 2 is one observation that counts twice, not two.

    metric : {"ece", "brier", "nll"}, default="ece"
        The expected calibration error, the Brier score summed over classes (from 0 to 2, also for two
        classes), or the log loss in nats, with probabilities clipped to at least 2.2e-308 as in
        :func:`negative_log_likelihood`.

    n_bins : int, default=15
        Number of bins, at least 1. Only used with ``metric="ece"``.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal weight, found separately for each model. Only used with
        ``metric="ece"``.

    confidence_level : float, default=0.95
        Nominal coverage of the true difference, in (0, 1).

    n_resamples : int, default=1000
        Number of draws of the noise, at least 99. Only used with ``metric="ece"``, whose p-value cannot fall
        below ``2 / (n_resamples + 1)``.

    random_state : int, RandomState instance or None, default=None
        Random number generator or seed for the draws. Only used with ``metric="ece"``.

    Returns
    -------
    comparison : CalibrationComparison
        A named tuple ``(difference, low, high, pvalue, value_a, value_b)``. The difference is A minus B, so
        it is negative if A is better.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels,
        or if fewer than two rows have positive weight.

    See Also
    --------
    calibration_interval : An interval for one model.

    Notes
    -----
    Losses have a paired t interval, which assumes that the mean loss is nearly normal. A single row whose
    true class has probability 0 costs 708 nats and dominates both the difference and the interval.

    The interval of the binned error is the intersection of three intervals. Each allows for the unknown sign
    of the true gap of a bin. The noise of all bins of both models is drawn jointly from a normal
    distribution, with variances as in :func:`calibration_interval` and with the covariance of the models.

    - The larger error may be too high by the absolute noise of the bins whose sign is not significant. The
      smaller error may be too low by the noise of each bin in the direction of its true sign; the less
      favorable sign is used where it is not significant.
    - The bounds of one model from :func:`calibration_interval` are compared with the opposite bounds of the
      other model.
    - Two errors differ by at most the sum of the absolute differences of the bins, for which an upper bound
      is computed in the same way. Models with identical predictions therefore have the interval [0, 0],
      although each error is uncertain, and models with nearly identical predictions have a short interval.

    The p-value is the smallest at which one of the first two intervals excludes 0.

    Results of simulations with ten classes, 15 bins and 95 % intervals of the binned error: the coverage,
    and the fraction of p-values of at most 0.05, with 200, 1000 and 10,000 rows (200, 200 and 50
    replicates).

    ============================  =========  =========  =========
    true errors                   200        1000       10,000
    ============================  =========  =========  =========
    both calibrated               1.00 0.00  1.00 0.00  1.00 0.00
    both calibrated, one sharper  1.00 0.00  1.00 0.00  1.00 0.00
    both off by .05 everywhere    1.00 0.00  1.00 0.00  1.00 0.00
    both .05, one all in one bin  1.00 0.00  1.00 0.00  1.00 0.00
    .05 and calibrated            1.00 0.00  0.95 0.00  0.98 1.00
    .10 and .05                   1.00 0.00  0.99 0.08  0.94 1.00
    ============================  =========  =========  =========

    Models with errors of opposite sign are the hardest case: their true errors are equal, but noise moves
    the observed errors in opposite directions. The table shows the fraction of p-values of at most 0.05 if
    one model is over-confident by 0.02 (or 0.04) and the other under-confident by the same amount on the
    same rows (400 replicates; in the last row, clipping at 1 gives a true difference of -0.0014, which all
    intervals covered):

    =============  ==================  ==========================
    accuracy       rows                fraction
    =============  ==================  ==========================
    .70, one bin   100, 300, 1000      0.003, 0.000, 0.018
    .97, one bin   30, 100, 300, 1000  0.000, 0.000, 0.040, 0.055
    .55 to .95     100, 300, 1000      0.000, 0.000, 0.000
    the same, .04  300                 0.000
    Beta(30, 1)    100, 300            0.000, 0.000
    =============  ==================  ==========================

    The interval is wide and the test has low power, since both allow for the bias of both errors. With 1000
    rows, the Brier score distinguished the last two pairs of the upper table in 98 % of cases, the binned
    error in 0 and 8 %. The coverage of the Brier score was 0.92 to 0.99 in all of these settings.

    References
    ----------
    .. [1] A. Agresti, B. A. Coull. "Approximate is better than 'exact' for interval estimation of binomial
       proportions", The American Statistician 52, 1998. :doi:`10.1080/00031305.1998.10480550`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.metrics import compare_calibration
    >>> rng = np.random.default_rng(0)
    >>> y_prob = rng.uniform(size=2000)
    >>> y_true = rng.uniform(size=2000) < y_prob
    >>> found = compare_calibration(y_true, y_prob, y_prob > 0.5, random_state=0)
    >>> found.difference < 0, found.high < 0, found.pvalue < 0.05
    (True, True, True)
    >>> compare_calibration(y_true, y_prob, y_prob > 0.5, metric="brier").high < 0
    True
    """
    options: dict[str, Any] = {"labels": labels, "sample_weight": sample_weight}
    if metric != "ece":
        losses = brier_losses if metric == "brier" else log_losses
        loss_a = losses(read_class_probabilities(y_true, y_prob_a, **options))
        classes = read_class_probabilities(y_true, y_prob_b, **options)
        _check_rows(classes.weight)
        return _compare_means(loss_a, losses(classes), classes.weight, confidence_level)
    top_a = read_top_label(y_true, y_prob_a, **options)
    top_b = read_top_label(y_true, y_prob_b, **options)
    _check_rows(top_a.weight)
    rows = [bin_rows(top_label, n_bins=n_bins, strategy=strategy) for top_label in (top_a, top_b)]
    n_bins = max(r.n_bins for r in rows)
    models = [(r._replace(n_bins=n_bins), top.correct) for r, top in zip(rows, (top_a, top_b), strict=True)]
    generator = check_random_state(random_state)
    # Noise is drawn in a fixed order of the models, so that exchanging them only changes the signs.
    if _residuals(*models[0]) >= _residuals(*models[1]):
        return _compare_errors(models, confidence_level, n_resamples, generator)
    difference, low, high, pvalue, value_b, value_a = _compare_errors(
        models[::-1], confidence_level, n_resamples, generator
    )
    return CalibrationComparison(-difference, -high, -low, pvalue, value_a, value_b)


def _residuals(rows: BinnedRows, correct: Floats) -> list[float]:
    return [float(r) for r in bin_residuals(rows, correct).residual]


def _compare_errors(
    models: list[tuple[BinnedRows, Floats]], level: float, n_resamples: int, generator: np.random.RandomState
) -> CalibrationComparison:
    tail = (1.0 - level) / 2.0
    bins, noise = pair_noise(models, n_resamples, generator)
    shown = [min(1.0, float(np.abs(b.residual).sum())) for b in bins[:2]]
    difference = shown[0] - shown[1]
    # Drawn amounts by which noise and bias may have raised, or lowered, the observed difference.
    lifted, lowered = (most_excess_over(bins[i], noise[i], bins[j], noise[j]) for i, j in ((0, 1), (1, 0)))
    within = [error_bounds(b, drawn, tail) for b, drawn in zip(bins, noise, strict=True)]
    low = max(difference - float(np.quantile(lifted, 1.0 - tail)), within[0][0] - within[1][1], -within[2][1])
    high = min(
        difference + float(np.quantile(lowered, 1.0 - tail)), within[0][1] - within[1][0], within[2][1]
    )
    n_beyond = min(int((lifted >= difference - 1e-12).sum()), int((lowered >= -difference - 1e-12).sum()))
    step = 1.0 / (n_resamples + 1)
    pvalue = min(1.0, 2.0 * step * (1 + n_beyond), 2.0 * _tail_apart(bins, noise, step))
    low, high = max(min(low, difference), -1.0), min(max(high, difference), 1.0)
    return CalibrationComparison(difference, low, high, pvalue, *shown)


def _tail_apart(bins: list[BinnedResiduals], noise: list[Floats], step: float) -> float:
    """Find the smallest tail, in multiples of `step`, at which the intervals of the two errors are disjoint.

    Bisection: the intervals shrink as the tail grows.
    """

    def apart(tail: float) -> bool:
        (low_a, high_a), (low_b, high_b) = (error_bounds(bins[i], noise[i], tail) for i in (0, 1))
        return low_a > high_b or low_b > high_a

    below, above = 0, int(0.5 / step)
    if not apart(above * step):
        return 0.5
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if apart(middle * step) else (middle, above)
    return above * step


def _compare_means(loss_a: Floats, loss_b: Floats, weight: Floats, level: float) -> CalibrationComparison:
    """Compute the paired t interval, with Kish's effective sample size."""
    share = weight / weight.sum()
    value_a, value_b = (float(np.average(loss, weights=weight)) for loss in (loss_a, loss_b))
    gaps = loss_a - loss_b
    difference = float(np.average(gaps, weights=weight))
    n_effective = 1.0 / float(share @ share)
    deviation = float(np.sqrt(share**2 @ (gaps - difference) ** 2 * n_effective / (n_effective - 1.0)))
    half = float(stdtrit(n_effective - 1.0, (1.0 + level) / 2.0)) * deviation
    if deviation > 0:
        pvalue = 2.0 * float(stdtr(n_effective - 1.0, -abs(difference) / deviation))
    else:
        pvalue = float(difference == 0.0)
    return CalibrationComparison(difference, difference - half, difference + half, pvalue, value_a, value_b)


def _check_rows(weight: Floats) -> None:
    share = weight / weight.sum()
    if share @ share > 1.0 - 1e-9:
        raise ValueError(
            f"A comparison needs at least 2 rows of positive weight; got {len(weight)}, one of which has all "
            "the weight, so the variance cannot be estimated. Pass more rows."
        )
