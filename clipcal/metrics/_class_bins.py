"""The table of bins for one class: its column of probabilities against whether a row is of that class."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d

from .._compat import Interval, StrOptions, validate_params
from ._bins import CalibrationBins, Strategy, bin_top_label
from ._top_label import TopLabel, read_top_label

__all__ = ["class_calibration_bins"]


@validate_params(
    {
        "n_bins": [Interval(Integral, 1, None, closed="left")],
        "strategy": [StrOptions({"uniform", "quantile"})],
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
) -> CalibrationBins:
    """Sort the probabilities of one class into bins, and compare them with how often it is the true one.

    The table reads like that of :func:`calibration_bins`, with the class' probability as confidence and
    "the true label is this class" as correctness. Every row counts, whatever was predicted.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.

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

    Returns
    -------
    bins : CalibrationBins
        The table, empty bins included. Positive residuals mean that the class is forecast too often.

    Raises
    ------
    ValueError
        If `class_label` is no label, or the input is empty, holds NaN or infinity, is no probability, or
        does not fit together.

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
    # Reading the top label checks all there is to check.
    read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    y = column_or_1d(y_true)
    columns = np.unique(y) if labels is None else column_or_1d(labels)
    found = [position for position, label in enumerate(columns.tolist()) if label == class_label]
    if not found:
        raise ValueError(f"class_label={class_label!r} is none of the labels {columns.tolist()!r}.")
    prob = np.clip(np.asarray(y_prob, dtype=np.float64), 0.0, 1.0)
    if prob.ndim == 1:
        prob = np.column_stack([1.0 - prob, prob])
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    kept = weight > 0
    is_class = np.asarray(y == columns[found[0]], dtype=np.float64)
    rows = TopLabel(prob[kept, found[0]], is_class[kept], weight[kept])
    return bin_top_label(rows, n_bins=n_bins, strategy=strategy)
