"""Brier scores and their decompositions."""

from __future__ import annotations

from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import isotonic_regression

from clipcal._compat import StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, Strategy, bin_top_label, cut_index
from clipcal.metrics._top_label import (
    ClassProbabilities,
    TopLabel,
    read_class_probabilities,
    read_top_label,
    row_blocks,
)

__all__ = [
    "BinnedBrierDecomposition",
    "BrierDecomposition",
    "brier_decomposition",
    "brier_score",
    "top_label_brier_score",
]

Floats = NDArray[np.float64]


class BrierDecomposition(NamedTuple):
    """Three parts: the score is ``miscalibration - discrimination + uncertainty``.

    Result of :func:`brier_decomposition` without bins.
    """

    miscalibration: float
    discrimination: float
    uncertainty: float


class BinnedBrierDecomposition(NamedTuple):
    """Five parts of the score.

    The score is ``reliability - resolution + uncertainty + within_bin_variance - within_bin_covariance``.

    Result of :func:`brier_decomposition` with bins.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bin_variance: float
    within_bin_covariance: float


@validate_params({})
def brier_score(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the Brier score: the squared error of the probabilities, summed over classes.

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

    Returns
    -------
    score : float
        In [0, 2]; lower is better.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels,
        if a true label has no column, or if the sum of a row differs from 1 by more than 0.01.

    See Also
    --------
    top_label_brier_score : The score of the predicted class alone.
    negative_log_likelihood : Another proper score.

    Notes
    -----
    For two classes ``sklearn.metrics.brier_score_loss`` returns half of this number.

    References
    ----------
    .. [1] G. W. Brier. "Verification of forecasts expressed in terms of probability", Monthly Weather
       Review 78, 1950. :doi:`10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2`

    Examples
    --------
    >>> from clipcal.metrics import brier_score
    >>> round(brier_score(["cat", "dog"], [[0.9, 0.1], [0.4, 0.6]]), 4)
    0.17
    """
    classes = read_class_probabilities(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    return float(np.average(brier_losses(classes), weights=classes.weight))


def brier_losses(classes: ClassProbabilities) -> Floats:
    """Compute the squared error of each row, summed over classes."""
    distance = np.empty(len(classes.weight))
    for rows, block in row_blocks(classes.prob):
        block[np.arange(len(block)), classes.true_column[rows]] -= 1.0
        distance[rows] = np.einsum("ij,ij->i", block, block)
    return distance


@validate_params({})
def top_label_brier_score(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the mean squared difference between confidence and correctness of the predicted class.

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
        Weights, finite and non-negative.

    Returns
    -------
    score : float
        A fraction in [0, 1]; lower is better.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    brier_decomposition : The parts of the score.
    brier_score : The score over all classes.

    Notes
    -----
    The score ignores the probabilities of all classes but the predicted one.

    Examples
    --------
    >>> from clipcal.metrics import top_label_brier_score
    >>> round(top_label_brier_score(["cat", "dog"], [[0.9, 0.1], [0.4, 0.6]]), 4)
    0.085
    """
    return _score(read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight))


@overload
def brier_decomposition(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    method: Literal["corp"] = ...,
    n_bins: int = ...,
    strategy: Strategy = ...,
) -> BrierDecomposition: ...
@overload
def brier_decomposition(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    method: Literal["binned"],
    n_bins: int = ...,
    strategy: Strategy = ...,
) -> BinnedBrierDecomposition: ...
@validate_params(
    {
        **BIN_COUNT,
        "method": [StrOptions({"corp", "binned"})],
        "strategy": [StrOptions({"uniform", "quantile"})],
    }
)
def brier_decomposition(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    method: Literal["corp", "binned"] = "corp",
    n_bins: int = 15,
    strategy: Strategy = "uniform",
) -> BrierDecomposition | BinnedBrierDecomposition:
    """Split the top-label Brier score into miscalibration, discrimination and uncertainty.

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
        Weights, finite and non-negative.

    method : {"corp", "binned"}, default="corp"
        How the calibrated confidence is estimated: by isotonic regression, which needs no bins, or by
        the accuracy of each bin.

    n_bins : int, default=15
        Number of bins, at least 1. Only used if ``method="binned"``.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal weight. Only used if ``method="binned"``.

    Returns
    -------
    parts : BrierDecomposition or BinnedBrierDecomposition
        With ``method="corp"``, a named tuple ``(miscalibration, discrimination, uncertainty)`` of
        non-negative numbers. `miscalibration` is the improvement by recalibration, `uncertainty` the
        score of a constant confidence equal to the accuracy, and `discrimination` the improvement of the
        recalibrated confidence over that constant.

        With ``method="binned"``, a named tuple ``(reliability, resolution, uncertainty,
        within_bin_variance, within_bin_covariance)``. `reliability` is the square of the root mean
        square calibration error with the same bins.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    top_label_brier_score : The score itself.

    Notes
    -----
    The parts refer to the event "the prediction is correct" and add up to :func:`top_label_brier_score`,
    not to :func:`brier_score`. The two within-bin terms make the binned decomposition exact [2]_.

    References
    ----------
    .. [1] T. Dimitriadis, T. Gneiting, A. I. Jordan. "Stable reliability diagrams for probabilistic
       classifiers", PNAS 118, 2021. :doi:`10.1073/pnas.2016191118`
    .. [2] D. B. Stephenson, C. A. S. Coelho, I. T. Jolliffe. "Two extra components in the Brier score
       decomposition", Weather and Forecasting 23, 2008. :doi:`10.1175/2007WAF2006116.1`

    Examples
    --------
    >>> from clipcal.metrics import brier_decomposition, top_label_brier_score
    >>> y_true, y_prob = [1, 0, 1, 1, 0, 0], [0.9, 0.3, 0.6, 0.8, 0.6, 0.1]
    >>> parts = brier_decomposition(y_true, y_prob)
    >>> [round(part, 4) for part in parts]
    [0.0283, 0.0556, 0.1389]
    >>> round(parts.miscalibration - parts.discrimination + parts.uncertainty, 4)
    0.1117
    >>> round(top_label_brier_score(y_true, y_prob), 4)
    0.1117
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    return _corp(top_label) if method == "corp" else _binned(top_label, n_bins, strategy)


def _score(top_label: TopLabel) -> float:
    confidence, correct, weight = top_label
    return float(np.average((confidence - correct) ** 2, weights=weight))


def _corp(top_label: TopLabel) -> BrierDecomposition:
    confidence, correct, weight = top_label
    distinct, block = np.unique(confidence, return_inverse=True)
    weight_of = np.bincount(block, weights=weight, minlength=len(distinct))
    accuracy_of = np.bincount(block, weights=weight * correct, minlength=len(distinct)) / weight_of
    calibrated = isotonic_regression(accuracy_of, sample_weight=weight_of)[block]
    accuracy = float(np.average(correct, weights=weight))

    score = _score(top_label)
    best = _score(top_label._replace(confidence=calibrated))
    constant = _score(top_label._replace(confidence=np.full(len(weight), accuracy)))
    # Both differences are non-negative up to rounding errors.
    return BrierDecomposition(max(score - best, 0.0), max(constant - best, 0.0), constant)


def _binned(top_label: TopLabel, n_bins: int, strategy: Strategy) -> BinnedBrierDecomposition:
    confidence, correct, weight = top_label
    bins = bin_top_label(top_label, n_bins=n_bins, strategy=strategy)
    index = cut_index(confidence, bins.edges[1:-1])
    off_confidence = confidence - bins.confidence[index]
    off_accuracy = correct - bins.accuracy[index]
    accuracy = float(np.average(correct, weights=weight))
    filled = bins.weight > 0
    share = bins.weight[filled] / bins.weight.sum()
    return BinnedBrierDecomposition(
        reliability=float(share @ bins.gaps[filled] ** 2),
        resolution=float(share @ (bins.accuracy[filled] - accuracy) ** 2),
        uncertainty=accuracy * (1.0 - accuracy),
        within_bin_variance=float(np.average(off_confidence**2, weights=weight)),
        within_bin_covariance=2.0 * float(np.average(off_confidence * off_accuracy, weights=weight)),
    )
