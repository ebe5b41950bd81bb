"""The calibration error less what chance alone adds to it."""

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
    """Compute the root mean square calibration error less what chance adds to it.

    Where a bin's accuracy is measured on few rows, it misses the confidence by chance even if the model
    is calibrated. The variance of the accuracy is estimated in each bin and subtracted from the squared
    gap. Bins with a single row have no such estimate and add nothing.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default the sorted distinct values
        of `y_true`, provided that there are as many as columns.

    sample_weight : None
        Refused: the correction counts rows. It is here so that a caller who passes weights is told.

    n_bins : int, default=15
        Number of bins, at least 1. With ``strategy="quantile"`` fewer are made if rows are few or tied.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal numbers of rows. The latter leave fewer rows without a
        correction.

    closed : {"right", "left"}, default="right"
        The side on which a bin of equal width includes its edge. Ignored with ``strategy="quantile"``.

    squared : bool, default=False
        Whether to return the squared error before it is cut off at 0. Chance moves it up as often as
        down, so it may be negative, and only it can be averaged over folds or data sets.

    Returns
    -------
    error : float
        A fraction in [0, 1]; with ``squared=True`` a number in [-1, 1].

    Raises
    ------
    ValueError
        If `sample_weight` is given, or if the input is empty, holds NaN or infinity, is no probability,
        or does not fit together.

    See Also
    --------
    root_mean_square_calibration_error : The same without the correction.

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
            "debiased_calibration_error takes no sample_weight: its correction counts rows. Leave the "
            "weights out, or use root_mean_square_calibration_error."
        )
    top_label = read_top_label(y_true, y_prob, labels=labels)
    bins = bin_top_label(top_label, n_bins=n_bins, strategy=strategy, closed=closed)
    enough = bins.count >= 2
    count, accuracy = bins.count[enough], bins.accuracy[enough]
    # Rounding may push the mean of ones past 1, and a variance below 0.
    variance = np.maximum(accuracy * (1.0 - accuracy), 0.0) / (count - 1)
    square = float((count * (bins.gaps[enough] ** 2 - variance)).sum() / bins.n_samples)
    return square if squared else float(np.sqrt(max(square, 0.0)))
