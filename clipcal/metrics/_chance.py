"""The calibration error that a calibrated model shows by chance, and tests against it."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from clipcal._arrays import to_numpy
from clipcal._compat import Interval, StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, CalibrationBins, Closed, Strategy, bin_top_label, cut_index
from clipcal.metrics._null import BinnedRows, bin_rows, perfect_bins, perfect_residuals, placeholder_labels
from clipcal.metrics._resampling import absolute_sum
from clipcal.metrics._top_label import TopLabel, read_top_label

__all__ = [
    "CalibrationTest",
    "ConsistencyBand",
    "calibration_error_floor",
    "calibration_test",
    "consistency_band",
]

Floats = NDArray[np.float64]
RandomState = int | np.random.RandomState | None

STRATEGY: dict[str, list[Any]] = {"strategy": [StrOptions({"uniform", "quantile"})]}
RESAMPLES: dict[str, list[Any]] = {
    "n_resamples": [Interval(Integral, 99, None, closed="left")],
    "random_state": ["random_state"],
}
LEVEL: dict[str, list[Any]] = {"confidence_level": [Interval(Real, 0, 1, closed="neither")]}
# Gives the mean to about half a per cent.
_WEIGHTED_DRAWS = 2000


class CalibrationTest(NamedTuple):
    """Result of :func:`calibration_test`.

    Attributes
    ----------
    statistic : float
        The observed calibration error.

    pvalue : float
        Fraction of test sets, the observed one and those drawn from a calibrated model, whose error is at
        least as large.

    floor : float
        Mean error of a calibrated model.
    """

    statistic: float
    pvalue: float
    floor: float


class ConsistencyBand(NamedTuple):
    """Result of :func:`consistency_band`.

    Attributes
    ----------
    low : ndarray of shape (n_bins,)
        Lowest accuracy within the band, NaN where the bin is empty.

    high : ndarray of shape (n_bins,)
        Highest accuracy within the band, NaN where the bin is empty.
    """

    low: Floats
    high: Floats


@validate_params({**BIN_COUNT, **STRATEGY, "random_state": ["random_state"]})
def calibration_error_floor(
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    random_state: RandomState = None,
) -> float:
    """Compute the calibration error that a perfectly calibrated model would show on average.

    A binned error is never negative, so it is positive by chance even for a calibrated model. Report this
    number beside an expected calibration error: an error near the floor cannot be distinguished from that
    of a calibrated model.

    Parameters
    ----------
    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes. True
        labels are not needed, since the model is assumed to be calibrated.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative. A row of weight 2 is one observation that counts twice, not two.

    n_bins : int, default=15
        Number of bins, at least 1.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal weight.

    random_state : int, RandomState instance or None, default=None
        Random number generator or seed. Only used with unequal weights, where the value is a mean over
        2000 simulated test sets.

    Returns
    -------
    floor : float
        A fraction in [0, 1].

    Raises
    ------
    ValueError
        If the input is empty, or has NaN, infinite or out-of-range values.

    See Also
    --------
    calibration_test : Test whether an error exceeds the floor significantly.

    Notes
    -----
    With equal weights nothing is simulated. The number of correct rows in a bin has a Poisson-binomial
    distribution, which is computed exactly. If its variance exceeds 1000, the normal approximation is used,
    which changes the bin's part by less than 1 in 20,000. The normal approximation in every bin would be
    2.8 times too high for 200 rows of confidence 0.9999, and a fifth too low for a single row of 0.5.

    References
    ----------
    .. [1] J. Bröcker, L. A. Smith. "Increasing the reliability of reliability diagrams", Weather and
       Forecasting 22, 2007. :doi:`10.1175/WAF993.1`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.metrics import calibration_error_floor
    >>> y_prob = np.linspace(0.5, 1, 1000)
    >>> round(calibration_error_floor(y_prob), 3), round(calibration_error_floor(y_prob[::100]), 3)
    (0.028, 0.312)
    """
    y_prob = np.asarray(to_numpy(y_prob))  # names of columns do not matter here
    y, labels = placeholder_labels(y_prob)
    top_label = read_top_label(y, y_prob, labels=labels, sample_weight=sample_weight)
    return _floor(bin_rows(top_label, n_bins=n_bins, strategy=strategy), check_random_state(random_state))


@validate_params({**BIN_COUNT, **STRATEGY, **RESAMPLES})
def calibration_test(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    n_resamples: int = 1000,
    random_state: RandomState = None,
) -> CalibrationTest:
    """Test the null hypothesis that the model is calibrated, by its calibration error.

    Under the null hypothesis each row is correct with a probability equal to its confidence. Test sets
    are drawn under this hypothesis, with the given confidences and bins, and their errors are compared
    with the observed one. The test keeps its level for any number of rows.

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
        Weights, finite and non-negative. A row of weight 2 is one observation that counts twice, not two,
        so the p-value differs from that of repeated rows.

    n_bins : int, default=15
        Number of bins, at least 1.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal weight.

    n_resamples : int, default=1000
        Number of test sets drawn, at least 99. The p-value cannot fall below ``1 / (n_resamples + 1)``.

    random_state : int, RandomState instance or None, default=None
        Random number generator or seed for the draws.

    Returns
    -------
    result : CalibrationTest
        A named tuple ``(statistic, pvalue, floor)``: the error, the fraction of drawn errors that are at
        least as large, and :func:`calibration_error_floor`.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    Notes
    -----
    In simulations with ten classes, 15 bins and a level of 5 %, calibrated models are rejected in 5 % of
    cases with 200 and 1000 rows, and in 6 % with 10,000 rows (100 replicates). Models whose confidences are
    0.05 too high are rejected in 28 % of cases with 200 rows and 86 % with 1000; models whose confidences
    are 0.01 too high in 46 % with 10,000.

    The normal approximation is used in bins whose variance exceeds 1000. A large p-value does not prove
    calibration: errors within a bin cancel, and the power is low if there are few rows.

    References
    ----------
    .. [1] J. Vaicenavicius, D. Widmann, C. Andersson, F. Lindsten, J. Roll, T. B. Schön. "Evaluating
       model calibration in classification", AISTATS 2019. :arxiv:`1902.06977`

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.metrics import calibration_test
    >>> rng = np.random.default_rng(0)
    >>> y_prob = rng.uniform(size=500)
    >>> y_true = rng.uniform(size=500) < y_prob
    >>> calibration_test(y_true, y_prob, random_state=0).pvalue > 0.05
    True
    >>> overconfident = y_prob > 0.5
    >>> round(calibration_test(y_true, overconfident * 1.0, random_state=0).pvalue, 4)
    0.001
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    rows = bin_rows(top_label, n_bins=n_bins, strategy=strategy)
    statistic = bin_top_label(top_label, n_bins=n_bins, strategy=strategy).error
    generator = check_random_state(random_state)
    # The tolerance covers rounding: drawn sums add the same terms in a different order.
    reached = statistic - 1e-12
    n_above = sum(
        int((absolute_sum(d) >= reached).sum()) for d in perfect_residuals(rows, n_resamples, generator)
    )
    return CalibrationTest(statistic, (1 + n_above) / (n_resamples + 1), _floor(rows, generator))


@validate_params({"bins": [CalibrationBins], **LEVEL, "random_state": ["random_state"]})
def consistency_band(
    bins: CalibrationBins,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    confidence_level: float = 0.95,
    random_state: RandomState = None,
) -> ConsistencyBand:
    """Compute the range of the accuracy of each bin for a perfectly calibrated model.

    Bars outside the band in a reliability diagram are unlikely for a calibrated model. The level applies to
    each bin separately: about one in 20 bins of a calibrated model lies outside a 95 % band.

    Parameters
    ----------
    bins : CalibrationBins
        The table, from :func:`calibration_bins`.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        The probabilities from which the table was computed.

    sample_weight : array-like of shape (n_samples,), default=None
        The weights with which the table was computed.

    confidence_level : float, default=0.95
        Minimum probability that the accuracy of a bin lies within the band, in (0, 1).

    random_state : int, RandomState instance or None, default=None
        Random number generator or seed. Only used with unequal weights, where the band comes from 2000
        simulated test sets. With equal weights the band is exact.

    Returns
    -------
    band : ConsistencyBand
        A named tuple ``(low, high)`` of arrays of shape (n_bins,), NaN where the bin is empty.

    Raises
    ------
    ValueError
        If the rows are not those of the table: if the number, weight or mean confidence of the rows in any
        bin differs.

    References
    ----------
    .. [1] J. Bröcker, L. A. Smith. "Increasing the reliability of reliability diagrams", Weather and
       Forecasting 22, 2007. :doi:`10.1175/WAF993.1`

    Examples
    --------
    >>> from clipcal.metrics import calibration_bins, consistency_band
    >>> y_prob = [0.7] * 20
    >>> bins = calibration_bins([0] * 9 + [1] * 11, y_prob, n_bins=1)
    >>> low, high = consistency_band(bins, y_prob)
    >>> low, bins.accuracy, high
    (array([0.5]), array([0.55]), array([0.9]))
    """
    y_prob = np.asarray(to_numpy(y_prob))  # names of columns do not matter here
    y, labels = placeholder_labels(y_prob)
    rows = _rows_of(bins, read_top_label(y, y_prob, labels=labels, sample_weight=sample_weight))
    tails = [(1.0 - confidence_level) / 2.0, (1.0 + confidence_level) / 2.0]
    band = np.full((2, len(bins)), np.nan)
    if rows.equal_weights:
        for law in perfect_bins(rows):
            cumulative = np.cumsum(law.probability)
            # The tolerance keeps rounding from skipping a count whose cumulative probability equals the tail.
            place = np.searchsorted(cumulative, np.array(tails) * (1.0 - 1e-12))
            band[:, law.bin] = (law.first + np.minimum(place, len(cumulative) - 1)) / law.n_rows
    else:
        generator = check_random_state(random_state)
        drawn = np.concatenate(list(perfect_residuals(rows, _WEIGHTED_DRAWS, generator)))
        filled = bins.count > 0
        gap = drawn[:, filled] * rows.weight.sum() / bins.weight[filled]
        band[:, filled] = bins.confidence[filled] - np.quantile(gap, tails[::-1], axis=0)
    low, high = np.clip(band, 0.0, 1.0)
    return ConsistencyBand(low, high)


def _rows_of(bins: CalibrationBins, top_label: TopLabel) -> BinnedRows:
    confidence, _, weight = top_label
    n_bins, filled = len(bins), bins.count > 0
    fits = False
    for closed in get_args(Closed):
        index = cut_index(confidence, bins.edges[1:-1], closed=closed)
        if not np.array_equal(np.bincount(index, minlength=n_bins), bins.count):
            continue
        fits = True
        weights = np.bincount(index, weights=weight, minlength=n_bins)
        sums = np.bincount(index, weights=weight * confidence, minlength=n_bins)
        claimed = bins.weight[filled] * bins.confidence[filled]
        if np.allclose(weights, bins.weight) and np.allclose(sums[filled], claimed):
            return BinnedRows(confidence, weight, index, n_bins)
    if fits:
        raise ValueError(
            f"The {len(confidence)} rows of y_prob have the same counts per bin as the table, but other "
            "weights or confidences. Pass the y_prob and sample_weight from which the bins were computed."
        )
    raise ValueError(
        f"The counts per bin of the {len(confidence)} rows of y_prob differ from those of bins, which hold "
        f"{bins.n_samples} rows. Pass the y_prob and sample_weight from which the bins were computed."
    )


def _floor(rows: BinnedRows, generator: np.random.RandomState) -> float:
    if rows.equal_weights:
        shown = sum(float(law.probability @ np.abs(law.residuals)) for law in perfect_bins(rows))
        return shown / len(rows.weight)
    draws: Iterator[Floats] = perfect_residuals(rows, _WEIGHTED_DRAWS, generator)
    return float(np.concatenate([absolute_sum(drawn) for drawn in draws]).mean())
