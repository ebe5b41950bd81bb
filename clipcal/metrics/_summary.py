"""The main metrics of one model as a flat record."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from clipcal._compat import Interval, validate_params
from clipcal.metrics._bins import BIN_COUNT, bin_top_label
from clipcal.metrics._brier import brier_score
from clipcal.metrics._chance import calibration_test
from clipcal.metrics._classwise import classwise_calibration_error
from clipcal.metrics._gaps import maximum_calibration_error
from clipcal.metrics._intervals import calibration_interval
from clipcal.metrics._log_loss import negative_log_likelihood
from clipcal.metrics._selective import area_under_risk_coverage
from clipcal.metrics._smooth import smooth_calibration_error
from clipcal.metrics._top_label import Reading, read_input

__all__ = ["summary"]


@validate_params(
    {
        **BIN_COUNT,
        "n_resamples": [Interval(Integral, 99, None, closed="left")],
        "random_state": ["random_state"],
        "name": [str, None],
    }
)
def summary(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    n_resamples: int = 1000,
    random_state: int | np.random.RandomState | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Compute the main metrics of the probabilities of one model, with confidence intervals.

    The record is flat, so a list of records makes a table: ``pandas.DataFrame(records)``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    n_bins : int, default=15
        Number of bins of equal width, at least 1.

    n_resamples : int, default=1000
        Number of draws for the interval and the test, at least 99.

    random_state : int, RandomState instance or None, default=None
        Random number generator or seed for the draws.

    name : str, default=None
        Name of the model; if given, it is the first entry of the record.

    Returns
    -------
    record : dict
        Values by name: ``n_samples``; for the predicted class, ``accuracy``, ``confidence`` (the mean),
        ``gap`` (confidence minus accuracy) with ``gap_low`` and ``gap_high``, ``ece`` with ``ece_low`` and
        ``ece_high`` (95 % intervals), ``ece_floor`` (mean of a calibrated model by chance), ``ece_pvalue``
        (small if the model is not calibrated), ``over`` and ``under`` (the two parts of ``ece``), ``mce``,
        ``ace``, ``smooth_ece`` and ``aurc``; for all classes, ``classwise_ece``, ``brier`` and ``nll``.
        The last three are None if a label in `y_true` has no column.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    calibration_interval : Confidence intervals of the error and the gap.
    compare_calibration : Comparison of two models.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from clipcal.metrics import summary
    >>> X, y = load_iris(return_X_y=True)
    >>> model = GaussianNB().fit(X[::2], y[::2])
    >>> record = summary(y[1::2], model.predict_proba(X[1::2]), random_state=0, name="Gaussian NB")
    >>> record["name"], record["n_samples"], round(record["accuracy"], 3), round(record["ece"], 3)
    ('Gaussian NB', 75, 0.96, 0.034)
    """
    generator = check_random_state(random_state)
    reading = read_input(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    reading.warn_of_row_sums()
    # Metrics accept a Reading in place of probabilities, so that input is validated only once.
    data: Any = (reading.y, reading)
    top_label = reading.top_label
    bins = bin_top_label(top_label, n_bins=n_bins)
    drawn = {"n_bins": n_bins, "n_resamples": n_resamples, "random_state": generator}
    gap = calibration_interval(*data, metric="gap")
    ece = calibration_interval(*data, **drawn)
    test = calibration_test(*data, **drawn)
    return {
        **({} if name is None else {"name": name}),
        "n_samples": bins.n_samples,
        # np.average stays within the range of its values despite rounding.
        "accuracy": float(np.average(top_label.correct, weights=top_label.weight)),
        "confidence": float(np.average(top_label.confidence, weights=top_label.weight)),
        "gap": gap.estimate,
        "gap_low": gap.low,
        "gap_high": gap.high,
        "ece": ece.estimate,
        "ece_low": ece.low,
        "ece_high": ece.high,
        "ece_floor": test.floor,
        "ece_pvalue": test.pvalue,
        "over": bins.over,
        "under": bins.under,
        "mce": maximum_calibration_error(*data, n_bins=n_bins),
        "ace": bin_top_label(top_label, n_bins=n_bins, strategy="quantile").error,
        "smooth_ece": smooth_calibration_error(*data),
        "aurc": area_under_risk_coverage(*data),
        **_about_all_classes(reading, n_bins),
    }


def _about_all_classes(reading: Reading, n_bins: int) -> dict[str, float | None]:
    if not np.isin(reading.y, reading.columns.labels).all():
        return dict.fromkeys(("classwise_ece", "brier", "nll"))
    data: Any = (reading.y, reading)
    return {
        "classwise_ece": float(classwise_calibration_error(*data, n_bins=n_bins)),
        "brier": brier_score(*data),
        "nll": negative_log_likelihood(*data),
    }
