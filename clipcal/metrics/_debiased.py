"""The calibration error, corrected for its upward bias."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from clipcal._compat import StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, Closed, Strategy, bin_top_label
from clipcal.metrics._top_label import read_top_label

__all__ = ["debiased_calibration_error"]


@validate_params(
    {
        **BIN_COUNT,
        "sample_weight": [None, "array-like"],
        "strategy": [StrOptions({"uniform", "quantile"})],
        "closed": [StrOptions({"right", "left"})],
        "squared": ["boolean"],
    }
)
def debiased_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    closed: Closed = "right",
    squared: bool = False,
) -> float:
    """Compute the root mean square calibration error, corrected for its upward bias.

    The accuracy of a bin with few rows differs from its confidence by chance, even if the model is
    calibrated. The variance of the accuracy is estimated in each bin and subtracted from the squared
    gap. Bins with a single row have no variance estimate and are ignored.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : None
        Not supported, since the correction is based on the number of rows. Other values raise an error.

    n_bins : int, default=15
        Number of bins, at least 1. With ``strategy="quantile"``, few or tied rows give fewer bins.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal numbers of rows. With the latter, fewer rows are alone in a bin.

    closed : {"right", "left"}, default="right"
        The side on which an equal-width bin includes its edge. Ignored with ``strategy="quantile"``.

    squared : bool, default=False
        Whether to return the squared error before clipping at 0. It can be negative. Average this value
        over folds or data sets, since clipping and the square root introduce a bias.

    Returns
    -------
    error : float
        A fraction in [0, 1]; with ``squared=True``, a number in [-1, 1].

    Raises
    ------
    ValueError
        If `sample_weight` is given, or if the input is empty, has NaN, infinite or out-of-range values, or
        inconsistent shapes or labels.

    See Also
    --------
    root_mean_square_calibration_error : The error without the correction.

    References
    ----------
    .. [1] A. Kumar, P. Liang, T. Ma. "Verified uncertainty calibration", NeurIPS 2019.
       :arxiv:`1909.10155`

    Examples
    --------
    >>> from clipcal.metrics import debiased_calibration_error
    >>> y_true = [1, 1, 0, 1, 1, 1]
    >>> y_prob = [0.95, 0.9, 0.9, 0.65, 0.65, 0.6]
    >>> round(debiased_calibration_error(y_true, y_prob, n_bins=5), 4)
    0.1286
    >>> round(debiased_calibration_error(y_true, y_prob, n_bins=5, squared=True), 4)
    0.0165
    """
    if sample_weight is not None:
        raise ValueError(
            "debiased_calibration_error does not support sample_weight: its correction is based on the "
            "number of rows. Omit the weights, or use root_mean_square_calibration_error."
        )
    top_label = read_top_label(y_true, y_prob, labels=labels)
    bins = bin_top_label(top_label, n_bins=n_bins, strategy=strategy, closed=closed)
    enough = bins.count >= 2
    count, accuracy = bins.count[enough], bins.accuracy[enough]
    # The mean of ones may exceed 1 by rounding, which gives a negative variance.
    variance = np.maximum(accuracy * (1.0 - accuracy), 0.0) / (count - 1)
    square = float((count * (bins.gaps[enough] ** 2 - variance)).sum() / bins.n_samples)
    return square if squared else float(np.sqrt(max(square, 0.0)))
