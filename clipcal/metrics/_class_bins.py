"""Bins of the predicted probability of one class."""

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
    """Bin the predicted probabilities of one class, and compare them with its frequency in each bin.

    The table is that of :func:`calibration_bins`, with the probability of the class as confidence and
    "the true label is this class" as correctness. All rows are used, whatever their predicted class.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. Labels that are not in `labels` count as other classes.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    class_label : label
        The class; one of `labels`.

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
    bins : CalibrationBins
        The table, including empty bins. Positive residuals mean that the probabilities are too high.

    Raises
    ------
    ValueError
        If `class_label` is not in `labels`, if the input is empty, has NaN, infinite or out-of-range values,
        or inconsistent shapes or labels, or if the sum of a row differs from 1 by more than 0.01.

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
        raise ValueError(f"class_label must be one of the labels {known.tolist()!r}; got {class_label!r}.")
    reading.check_row_sums()
    is_class = np.asarray(reading.y == known[found[0]], dtype=np.float64)
    rows = TopLabel(reading.column(found[0]), is_class, reading.weight)
    return bin_top_label(rows, n_bins=n_bins, strategy=strategy, closed=closed)
