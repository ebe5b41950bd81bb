"""The table of bins for one class: its column of probabilities against whether a row is of that class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from clipcal._compat import StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, CalibrationBins, Closed, Strategy, bin_top_label
from clipcal.metrics._labels import is_missing
from clipcal.metrics._top_label import TopLabel, read_input

__all__ = ["class_calibration_bins"]


@validate_params(
    {
        **BIN_COUNT,
        "strategy": [StrOptions({"uniform", "quantile"})],
        "closed": [StrOptions({"right", "left"})],
    }
)
def class_calibration_bins(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    class_label: Any,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    closed: Closed = "right",
) -> CalibrationBins:
    """Sort the probabilities of one class into bins, and compare them with how often it is the true one.

    The table reads like that of :func:`calibration_bins`, with the class' probability as confidence and
    "the true label is this class" as correctness. Every row counts, whatever was predicted.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. One that is not in `labels` is simply not of this class.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    class_label : label
        The class; one of `labels`.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    n_bins : int, default=15
        Number of bins, at least 1. With ``strategy="quantile"`` fewer are made if rows are few or tied.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal weight.

    closed : {"right", "left"}, default="right"
        The side on which a bin of equal width includes its edge. Ignored with ``strategy="quantile"``.

    Returns
    -------
    bins : CalibrationBins
        The table, empty bins included. Positive residuals mean that the class is forecast too often.

    Raises
    ------
    ValueError
        If `class_label` is no label, or the input is empty, holds NaN or infinity, is no probability, or
        does not fit together, or if a row's sum is further than 0.01 from 1.

    See Also
    --------
    calibration_bins : The table of top-label confidences.

    Examples
    --------
    >>> from clipcal.metrics import class_calibration_bins
    >>> y_true = ["cat", "dog", "cow", "cat"]
    >>> y_prob = [[0.7, 0.1, 0.2], [0.3, 0.1, 0.6], [0.2, 0.6, 0.2], [0.6, 0.3, 0.1]]
    >>> bins = class_calibration_bins(y_true, y_prob, "cat", labels=["cat", "cow", "dog"], n_bins=2)
    >>> bins.count, bins.accuracy
    (array([2, 2]), array([0., 1.]))
    """
    reading = read_input(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    known = reading.columns.labels
    if np.ndim(class_label) != 0:
        raise ValueError(
            f"class_label must be a single label, such as {known.tolist()[0]!r}; got {class_label!r}."
        )
    names = [] if is_missing(class_label) else known.tolist()
    found = [position for position, label in enumerate(names) if label == class_label]
    if not found:
        raise ValueError(f"class_label={class_label!r} is none of the labels {known.tolist()!r}.")
    reading.check_row_sums()
    is_class = np.asarray(reading.y == known[found[0]], dtype=np.float64)
    rows = TopLabel(reading.column(found[0]), is_class, reading.weight)
    return bin_top_label(rows, n_bins=n_bins, strategy=strategy, closed=closed)
