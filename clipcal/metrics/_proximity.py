"""Proximity of inputs to a reference set, and calibration errors within bins of proximity."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d

from clipcal._arrays import to_numpy
from clipcal._compat import Interval, StrOptions, validate_params
from clipcal.metrics._bins import BIN_COUNT, Closed, cut_index, equal_weight_edges, uniform_index
from clipcal.metrics._input import read_weight
from clipcal.metrics._top_label import TopLabel, read_top_label

__all__ = ["ProximityBias", "proximity", "proximity_bias", "proximity_informed_calibration_error"]

Floats = NDArray[np.float64]

# Number of similarities, or of features of neighbors, that are held in memory at a time.
_BLOCK_ENTRIES = 2**22
# Sums of squares of numbers in this range neither overflow nor underflow in single precision.
_SAFE_RANGE = (1e-15, 1e15)

_PROXIMITY_BINS = {
    **BIN_COUNT,
    "n_proximity_bins": [Interval(Integral, 1, None, closed="left")],
    "closed": [StrOptions({"right", "left"})],
}


class ProximityBias(NamedTuple):
    """Result of :func:`proximity_bias`: the error, and its baseline for shuffled proximities."""

    error: float
    baseline: float
    excess: float
    pvalue: float


@validate_params({"n_neighbors": [Interval(Integral, 1, None, closed="left")], "exclude_self": ["boolean"]})
def proximity(
    features: ArrayLike, reference: ArrayLike, *, n_neighbors: int = 5, exclude_self: bool = False
) -> Floats:
    """Compute the proximity of each row to its nearest neighbors in a reference set.

    The proximity of a row is ``exp(-d)``, where ``d`` is the mean Euclidean distance to its nearest rows
    of the reference, after normalization to unit length. It is close to 1 in dense regions, and smaller
    for unusual rows.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the inputs, such as image embeddings.

    reference : array-like of shape (n_reference, n_features)
        Features of the reference set, such as validation images of the classes on which the model was
        tuned.

    n_neighbors : int, default=5
        Number of neighbors, at least 1. If the reference has fewer rows, all are used.

    exclude_self : bool, default=False
        Whether to exclude each row from its own neighbors. This requires that `reference` has the same
        rows in the same order as `features`.

    Returns
    -------
    proximity : ndarray of shape (n_samples,)
        Between ``exp(-2)`` and 1.

    Raises
    ------
    ValueError
        If features contain NaN, infinity or a row of zeros, if shapes differ, or if there is no neighbor.

    References
    ----------
    .. [1] M. Xiong, A. Deng, P. W. Koh, J. Wu, S. Li, J. Xu, B. Hooi. "Proximity-informed calibration for
       deep neural networks", NeurIPS 2023. :arxiv:`2306.04590`

    Examples
    --------
    >>> from clipcal.metrics import proximity
    >>> proximity([[1, 0], [0, 1]], [[2, 0], [3, 0], [0, -1]], n_neighbors=2).round(4)
    array([1.    , 0.2431])
    """
    rows = unit_rows(features, "features")
    others = unit_rows(reference, "reference")
    if rows.shape[1] != others.shape[1]:
        raise ValueError(
            f"features have {rows.shape[1]} columns but reference has {others.shape[1]}. "
            "Pass embeddings of the same model."
        )
    if exclude_self and len(rows) != len(others):
        raise ValueError(
            f"exclude_self=True needs the same rows twice, but features have {len(rows)} and reference has "
            f"{len(others)}. Omit it if reference is a different set."
        )
    n_neighbors = min(n_neighbors, len(others) - exclude_self)
    if n_neighbors == 0:
        raise ValueError("A single row has no other neighbor. Pass more rows, or a different reference.")
    squared = nearest_squared_distances(rows, others, n_neighbors, exclude_self=exclude_self)
    return np.exp(-np.concatenate([np.sqrt(block).mean(axis=1) for block in squared]))


def nearest_squared_distances(
    rows: NDArray[np.floating], others: NDArray[np.floating], n_neighbors: int, *, exclude_self: bool
) -> Iterator[Floats]:
    """Yield blocks of squared distances from rows of unit length to their nearest neighbors.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        Rows of length 1.

    others : ndarray of shape (n_reference, n_features)
        The reference set; rows of length 1.

    n_neighbors : int
        Number of neighbors, at least 1 and at most the number available.

    exclude_self : bool
        Whether `others` are the same rows, each to be excluded from its own neighbors.

    Yields
    ------
    squared : ndarray of shape (n_rows, n_neighbors)
        In no particular order within a row.
    """
    step = max(1, _BLOCK_ENTRIES // max(len(others), n_neighbors * rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        likeness = block @ others.T
        if exclude_self:
            own = np.arange(len(block))
            likeness[own, start + own] = -np.inf
        nearest = np.argpartition(likeness, len(others) - n_neighbors, axis=1)[:, -n_neighbors:]
        # Distances are computed from differences: 2 - 2 * likeness is inexact if they are small.
        apart = others[nearest] - block[:, None].astype(np.float64)
        yield np.einsum("ijk,ijk->ij", apart, apart)


@validate_params(_PROXIMITY_BINS)
def proximity_informed_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    proximity: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    n_proximity_bins: int = 10,
    closed: Closed = "right",
) -> float:
    """Compute the calibration error over bins of confidence within bins of proximity (PIECE).

    A model can be over-confident on unusual inputs and under-confident on usual inputs of the same
    confidence. The two cancel in :func:`expected_calibration_error`. Here rows are first split into bins of
    proximity of equal weight, and the expected calibration errors of these bins are averaged. The result
    is never below the expected calibration error with the same bins.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    proximity : array-like of shape (n_samples,)
        How usual each row is, such as :func:`proximity` returns it. Only the order of its values counts.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    n_bins : int, default=15
        Number of bins of confidence, of equal width, at least 1.

    n_proximity_bins : int, default=10
        Number of bins of proximity, of equal weight, at least 1. Few or tied rows give fewer bins.

    closed : {"right", "left"}, default="right"
        The side on which a bin of confidence includes its edge.

    Returns
    -------
    error : float
        A fraction in [0, 1].

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    See Also
    --------
    proximity_bias : The error relative to its value for shuffled proximities.

    Notes
    -----
    The many cells make the error large by chance: with 1000 rows, random proximities give nearly the same
    value as real ones. Report :func:`proximity_bias` beside it.

    References
    ----------
    .. [1] M. Xiong, A. Deng, P. W. Koh, J. Wu, S. Li, J. Xu, B. Hooi. "Proximity-informed calibration for
       deep neural networks", NeurIPS 2023. :arxiv:`2306.04590`

    Examples
    --------
    >>> from clipcal.metrics import (
    ...     expected_calibration_error, proximity_informed_calibration_error
    ... )
    >>> y_true, y_prob = [1, 1, 0, 0], [0.75, 0.75, 0.75, 0.75]
    >>> expected_calibration_error(y_true, y_prob)
    0.25
    >>> proximity_informed_calibration_error(
    ...     y_true, y_prob, proximity=[0.9, 0.8, 0.4, 0.3], n_proximity_bins=2
    ... )
    0.5
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    closeness = _read_proximity(proximity, y_true, sample_weight)
    cells = _sort_into_cells(top_label, closeness, n_bins, n_proximity_bins, closed)
    return cells.error(cells.group)


@validate_params(
    {
        **_PROXIMITY_BINS,
        "n_permutations": [Interval(Integral, 99, None, closed="left")],
        "random_state": ["random_state"],
    }
)
def proximity_bias(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    proximity: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_bins: int = 15,
    n_proximity_bins: int = 10,
    closed: Closed = "right",
    n_permutations: int = 100,
    random_state: int | np.random.RandomState | None = None,
) -> ProximityBias:
    """Compare the proximity-informed calibration error with its value for shuffled proximities.

    The mean error over random assignments of rows to the bins of proximity is the baseline, which depends
    on the numbers of cells and rows only. The excess over the baseline is due to proximity.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels. A label that is not in `labels` counts as a wrong prediction.

    y_prob : array-like of shape (n_samples, n_classes) or (n_samples,)
        Predicted probabilities in [0, 1]. A 1-D array holds those of the second of two classes.

    proximity : array-like of shape (n_samples,)
        How usual each row is, such as :func:`proximity` returns it. Only the order of its values counts.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative. They are not shuffled.

    n_bins : int, default=15
        Number of bins of confidence, of equal width, at least 1.

    n_proximity_bins : int, default=10
        Number of bins of proximity, of equal weight, at least 1. Few or tied rows give fewer bins.

    closed : {"right", "left"}, default="right"
        The side on which a bin of confidence includes its edge.

    n_permutations : int, default=100
        Number of permutations, at least 99. The p-value cannot fall below ``1 / (n_permutations + 1)``.

    random_state : int, RandomState or None, default=None
        Random number generator or seed for the permutations.

    Returns
    -------
    bias : ProximityBias
        A named tuple ``(error, baseline, excess, pvalue)``: the proximity-informed calibration error,
        its mean over permutations, the difference, and the fraction of permutations, including the
        identity, whose error is at least as large.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.metrics import proximity_bias
    >>> y_true = np.repeat([1, 0], 50)
    >>> bias = proximity_bias(
    ...     y_true, np.full(100, 0.75), proximity=np.linspace(1, 0, 100), n_proximity_bins=2, random_state=0
    ... )
    >>> bias.error, round(bias.pvalue, 2)
    (0.5, 0.01)
    """
    top_label = read_top_label(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    closeness = _read_proximity(proximity, y_true, sample_weight)
    cells = _sort_into_cells(top_label, closeness, n_bins, n_proximity_bins, closed)
    random = check_random_state(random_state)
    error = cells.error(cells.group)
    shuffled = np.array([cells.error(random.permutation(cells.group)) for _ in range(n_permutations)])
    # The tolerance covers rounding: cells are summed in a different order.
    reached = int(np.count_nonzero(shuffled >= error - 1e-12))
    baseline = float(shuffled.mean())
    return ProximityBias(error, baseline, error - baseline, (1 + reached) / (1 + n_permutations))


class _Cells(NamedTuple):
    """Rows with their bins of confidence and of proximity."""

    residual: Floats  # multiplied by the weight
    confidence_bin: NDArray[np.intp]
    group: NDArray[np.intp]
    total_weight: float

    def error(self, group: NDArray[np.intp]) -> float:
        """Compute the error for the given bin of proximity of each row."""
        cell = group * (self.confidence_bin.max() + 1) + self.confidence_bin
        # Rounding may give more than 1.
        return min(1.0, float(np.abs(np.bincount(cell, weights=self.residual)).sum() / self.total_weight))


def _read_proximity(proximity: ArrayLike, y_true: ArrayLike, sample_weight: ArrayLike | None) -> Floats:
    """Validate proximities, and drop those of rows of weight zero."""
    closeness = column_or_1d(to_numpy(proximity), dtype=np.float64, input_name="proximity")
    check_consistent_length(column_or_1d(to_numpy(y_true)), closeness)
    kept, _ = read_weight(sample_weight, len(closeness))
    if kept is not None:
        closeness = closeness[kept]
    if not np.isfinite(closeness).all():
        raise ValueError("proximity contains NaN or infinity. Drop these rows, or fix the features.")
    return closeness


def _sort_into_cells(
    top_label: TopLabel, closeness: Floats, n_bins: int, n_proximity_bins: int, closed: Closed
) -> _Cells:
    confidence, correct, weight = top_label
    edges = equal_weight_edges(closeness, weight, n_proximity_bins)
    return _Cells(
        residual=weight * (confidence - correct),
        confidence_bin=uniform_index(confidence, np.linspace(0.0, 1.0, n_bins + 1), closed=closed),
        group=cut_index(closeness, edges[1:-1]),
        total_weight=float(weight.sum()),
    )


def unit_rows(features: ArrayLike, name: str) -> NDArray[np.floating]:
    """Validate features, and normalize their rows to unit length.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features.

    name : str
        Name of the features in error messages.

    Returns
    -------
    rows : ndarray of shape (n_samples, n_features)
        In float32 if `features` are float32, and in float64 otherwise.

    Raises
    ------
    ValueError
        If features contain NaN, infinity or a row of zeros.
    """
    rows = check_array(to_numpy(features), dtype=[np.float64, np.float32], input_name=name)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if not largest.all():
        raise ValueError(
            f"Row {int(np.argmin(largest))} of {name} is all zeros, so it cannot be normalized. Drop it."
        )
    if largest.min() < _SAFE_RANGE[0] or largest.max() > _SAFE_RANGE[1]:
        # Scaling by a power of two avoids overflow and underflow of squares, and is exact.
        with np.errstate(under="ignore"):
            rows = np.ldexp(rows, -np.frexp(largest)[1])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
