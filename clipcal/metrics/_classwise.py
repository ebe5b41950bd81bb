"""Calibration error over the probabilities of all classes."""

from __future__ import annotations

from numbers import Real
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._compat import Interval, StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, Closed, Strategy, bin_top_label, uniform_index
from clipcal.metrics._input import BLOCK_ENTRIES
from clipcal.metrics._top_label import ClassProbabilities, TopLabel, read_class_probabilities, row_blocks

__all__ = ["classwise_calibration_error"]

Floats = NDArray[np.float64]
Norm = Literal["l1", "l2"]

# Number of columns that are copied to contiguous memory at a time.
_COLUMNS_AT_A_TIME = 64


@overload
def classwise_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    n_bins: int = ...,
    strategy: Strategy = ...,
    closed: Closed = ...,
    norm: Norm = ...,
    threshold: float = ...,
    average: Literal["macro", "sum", "weighted"] = ...,
) -> float: ...


@overload
def classwise_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    n_bins: int = ...,
    strategy: Strategy = ...,
    closed: Closed = ...,
    norm: Norm = ...,
    threshold: float = ...,
    average: None,
) -> Floats: ...


@validate_params(
    {
        **BIN_COUNT,
        "strategy": [StrOptions({"uniform", "quantile"})],
        "closed": [StrOptions({"right", "left"})],
        "norm": [StrOptions({"l1", "l2"})],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "average": [StrOptions({"macro", "sum", "weighted"}), None],
    }
)
def classwise_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    closed: Closed = "right",
    norm: Norm = "l1",
    threshold: float = 0.0,
    average: Literal["macro", "sum", "weighted"] | None = "macro",
) -> float | Floats:
    """Compute the classwise calibration error (static calibration error, marginal calibration error).

    For each class, its column of probabilities is binned, and the mean probability of each bin is compared
    with the frequency of the class. Classes that do not occur in `y_true` are included: their frequency is
    0, so any probability counts as error.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels, all of them in `labels`.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    n_bins : int, default=15
        Number of bins of each class, at least 1. With ``strategy="quantile"``, few or tied rows give fewer
        bins.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal weight. Bins of equal weight are computed for each class and are
        slower.

    closed : {"right", "left"}, default="right"
        The side on which an equal-width bin includes its edge. Ignored with ``strategy="quantile"``.

    norm : {"l1", "l2"}, default="l1"
        Mean absolute or root mean square gap, within classes and over classes.

    threshold : float, default=0.0
        Probabilities below the threshold are dropped from the column of each class. With
        ``strategy="quantile"`` this gives the thresholded adaptive calibration error (TACE) of [1]_, which
        uses 0.01.

    average : {"macro", "sum", "weighted"} or None, default="macro"
        The mean over classes, the sum, the mean weighted by class frequency, or (None) one value for each
        class. With many classes most probabilities are tiny, and so is the mean: with 1000 classes, 0.0003
        is not a small error.

    Returns
    -------
    error : float or ndarray of shape (n_classes,)
        A fraction in [0, 1] (a sum can be up to 2 with ``threshold=0``). With ``average=None``, an array
        in the order of the columns of `y_prob`.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels,
        if a true label has no column, or if the sum of a row differs from 1 by more than 0.01.

    See Also
    --------
    expected_calibration_error : The error of the probability of the predicted class.

    References
    ----------
    .. [1] J. Nixon, M. W. Dusenberry, L. Zhang, G. Jerfel, D. Tran. "Measuring calibration in deep
       learning", CVPR Workshops 2019. :arxiv:`1904.01685`

    .. [2] A. Kumar, P. Liang, T. Ma. "Verified uncertainty calibration", NeurIPS 2019.
       :arxiv:`1909.10155`

    Examples
    --------
    >>> from clipcal.metrics import classwise_calibration_error
    >>> y_true = ["cat", "dog", "owl", "owl"]
    >>> y_prob = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.3, 0.1, 0.6], [0.1, 0.1, 0.8]]
    >>> round(classwise_calibration_error(y_true, y_prob, n_bins=5), 4)
    0.2
    >>> classwise_calibration_error(y_true, y_prob, n_bins=5, average=None).round(3)
    array([0.225, 0.175, 0.2  ])
    """
    classes = read_class_probabilities(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    if strategy == "quantile":
        errors = _equal_weight_errors(classes, n_bins, norm, threshold)
    else:
        errors = _equal_width_errors(classes, n_bins, closed, norm, threshold)
    if average is None:
        return errors
    powers = errors if norm == "l1" else errors**2
    if average == "sum":
        joined = powers.sum()
    else:
        share = (
            np.bincount(classes.true_column, classes.weight, len(errors)) if average == "weighted" else None
        )
        joined = np.average(powers, weights=share)
    return float(joined) if norm == "l1" else float(np.sqrt(joined))


def _error(residual: Floats, weight: Floats, total: Floats | float, norm: Norm) -> Floats:
    """Reduce bins (the first axis) to the error of each class; it is 0 for a class without rows."""
    if norm == "l1":
        parts = np.abs(residual)
    else:
        parts = np.divide(residual**2, weight, out=np.zeros_like(residual), where=residual != 0)
    total = np.broadcast_to(np.asarray(total), parts.shape[1:])
    error = np.divide(parts.sum(axis=0), total, out=np.zeros(parts.shape[1:]), where=total > 0)
    # Rounding may give more than 1: total and parts are summed in a different order.
    error = np.minimum(error, 1.0)
    return error if norm == "l1" else np.sqrt(error)


def _equal_width_errors(
    classes: ClassProbabilities, n_bins: int, closed: Closed, norm: Norm, threshold: float
) -> Floats:
    """Return the error of each class.

    With many classes, few probabilities exceed the first edge. Only these are binned individually; the
    remaining values of a column form its first bin and are summed by a matrix product.
    """
    _, prob, true_column, row_weight = classes
    n_classes = prob.shape[1]
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    residual, weight = np.zeros((2, n_bins * n_classes))
    weight_is_needed = norm == "l2" or threshold > 0

    def totals(values: Floats, column: NDArray[np.intp], amount: Floats) -> Floats:
        cell = uniform_index(values, edges, closed=closed) * n_classes + column
        return np.bincount(cell, amount, len(residual)).astype(np.float64)

    for rows, block in row_blocks(prob, max(BLOCK_ENTRIES, len(residual))):
        in_block = row_weight[rows]
        high = block > edges[1] if closed == "right" else block >= edges[1]
        low = ~high
        if threshold > 0:
            kept = block >= threshold
            high &= kept
            low &= kept
            block *= kept
        where = np.flatnonzero(high)
        row, column = np.divmod(where, n_classes)
        values = block.ravel()[where]
        residual += totals(values, column, in_block[row] * values)
        block.ravel()[where] = 0.0
        residual[:n_classes] += in_block @ block
        if weight_is_needed:
            weight += totals(values, column, in_block[row])
            np.copyto(block, low)
            weight[:n_classes] += in_block @ block
    true_prob = np.clip(prob[np.arange(len(prob)), true_column].astype(np.float64), 0.0, 1.0)
    kept = true_prob >= threshold
    residual -= totals(true_prob[kept], true_column[kept], row_weight[kept])
    weight = weight.reshape(n_bins, n_classes)
    total = weight.sum(axis=0) if weight_is_needed else row_weight.sum()
    return _error(residual.reshape(n_bins, n_classes), weight, total, norm)


def _equal_weight_errors(classes: ClassProbabilities, n_bins: int, norm: Norm, threshold: float) -> Floats:
    _, prob, true_column, row_weight = classes
    n_classes = prob.shape[1]
    errors = np.zeros(n_classes)
    for start in range(0, n_classes, _COLUMNS_AT_A_TIME):
        columns = prob[:, start : start + _COLUMNS_AT_A_TIME].T.astype(np.float64, order="C")
        for k, forecast in enumerate(np.clip(columns, 0.0, 1.0, out=columns), start):
            kept = forecast >= threshold
            if kept.any():
                event = np.asarray(true_column[kept] == k, dtype=np.float64)
                rows = TopLabel(forecast[kept], event, row_weight[kept])
                bins = bin_top_label(rows, n_bins=n_bins, strategy="quantile")
                errors[k] = _error(bins.residual, bins.weight, bins.weight.sum(), norm)
    return errors
