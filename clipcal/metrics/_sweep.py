"""The calibration error with the largest number of bins for which accuracy is monotone."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._compat import StrOptions, validate_params
from clipcal.metrics._top_label import read_top_label

__all__ = ["sweep_calibration_error"]

Ints = NDArray[np.int64]

# Several numbers of bins are tried at once, up to this number of cuts.
_CUTS_AT_A_TIME = 2**17


@validate_params({"sample_weight": [None, "array-like"], "norm": [StrOptions({"l1", "l2"})]})
def sweep_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    norm: Literal["l1", "l2"] = "l1",
) -> float:
    """Compute the calibration error with the largest number of bins for which accuracy is monotone.

    The number of bins is determined from the data. Bins have equal numbers of rows; 2, 3, ... bins are tried
    until the accuracy decreases from one bin to the next, and the last number before that is used. Equal
    confidences always share a bin, so the value does not depend on the order of the rows.

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
        Not supported, since bins have equal numbers of rows. Other values raise an error.

    norm : {"l1", "l2"}, default="l1"
        Mean absolute or root mean square gap. The code of [1]_ uses ``"l2"``.

    Returns
    -------
    error : float
        A fraction in [0, 1].

    Raises
    ------
    ValueError
        If `sample_weight` is given, or if the input is empty, has NaN, infinite or out-of-range values, or
        inconsistent shapes or labels.

    See Also
    --------
    adaptive_calibration_error : A fixed number of bins of equal weight.

    Notes
    -----
    The estimate is less biased than those with a fixed number of bins if accuracy increases with
    confidence. If it does not, the sweep stops at a few wide bins, in which gaps may cancel.

    References
    ----------
    .. [1] R. Roelofs, N. Cain, J. Shlens, M. C. Mozer. "Mitigating bias in calibration error
       estimation", AISTATS 2022. :arxiv:`2012.08668`

    Examples
    --------
    >>> from clipcal.metrics import sweep_calibration_error
    >>> y_true = [0, 1, 0, 1, 1, 1]
    >>> y_prob = [0.55, 0.6, 0.7, 0.8, 0.85, 0.9]
    >>> round(sweep_calibration_error(y_true, y_prob), 4)
    0.15
    """
    if sample_weight is not None:
        raise ValueError(
            "sweep_calibration_error does not support sample_weight: its bins have equal numbers of rows. "
            "Omit the weights, or use adaptive_calibration_error."
        )
    confidence, correct, _ = read_top_label(y_true, y_prob, labels=labels)
    order = np.argsort(confidence, kind="stable")
    block_end = _block_ends(confidence[order])
    hits = _running_total(correct[order]).astype(np.int64)
    claims = _running_total((confidence - correct)[order])
    n_rows, n_bins = len(order), _most_rising_bins(hits, block_end)
    cuts = _distinct(_cuts(np.arange(n_bins + 1), n_bins, block_end))
    residual, size = np.diff(claims[cuts]), np.diff(cuts)
    if norm == "l1":
        return float(np.abs(residual).sum() / n_rows)
    return float(np.sqrt((residual**2 / size).sum() / n_rows))


def _running_total(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(values)])


def _distinct(ordered: Ints) -> Ints:
    return ordered[np.append(True, np.diff(ordered) > 0)]


def _block_ends(ordered: NDArray[np.float64]) -> Ints:
    """Return, for each number of leading rows, that number extended to the end of the last tie."""
    last = np.append(np.flatnonzero(np.diff(ordered) > 0), len(ordered) - 1)
    ends = np.concatenate([[0], last + 1])
    return np.append(0, np.repeat(ends[1:], np.diff(ends)))


def _cuts(step: Ints, n_bins: Ints | int, block_end: Ints) -> Ints:
    """Return the number of rows in the first `step` of `n_bins` bins."""
    return block_end[-(-step * (len(block_end) - 1) // n_bins)]


def _most_rising_bins(hits: Ints, block_end: Ints) -> int:
    """Return the last number of bins before the accuracy decreases from one bin to the next."""
    n_rows = len(hits) - 1
    blocks = _distinct(block_end)
    if not _falls(hits, blocks).any():
        return max(1, n_rows - 1)
    # Accuracy cannot decrease below the first correct row or above the last wrong one. Restricting the
    # search to the rows between makes nearly perfect predictions, with their long sweeps, fast.
    block_hits, block_size = np.diff(hits[blocks]), np.diff(blocks)
    low = blocks[np.flatnonzero(block_hits > 0)[0]]
    high = blocks[np.flatnonzero(block_hits < block_size)[-1] + 1]
    first = 2
    while first < n_rows:
        n_cuts = (high - low) * first // n_rows + 3
        n_bins = np.arange(first, min(n_rows, first + max(1, min(first, _CUTS_AT_A_TIME // n_cuts))))
        start = low * n_bins // n_rows
        count = -(-high * n_bins // n_rows) - start + 1
        owner = np.repeat(n_bins, count)
        step = np.arange(len(owner)) + np.repeat(start - (np.cumsum(count) - count), count)
        cuts = _cuts(step, owner, block_end)
        new = np.append(True, (np.diff(cuts) != 0) | (np.diff(owner) != 0))
        cuts, owner = cuts[new], owner[new]
        fallen = _falls(hits, cuts) & (owner[2:] == owner[:-2])
        if fallen.any():
            return int(owner[fallen.argmax()]) - 1
        first = int(n_bins[-1]) + 1
    return max(1, n_rows - 1)


def _falls(hits: Ints, cuts: Ints) -> NDArray[np.bool_]:
    """Return whether the accuracy between consecutive cuts is lower than between the previous ones."""
    share, size = np.diff(hits[cuts]), np.diff(cuts)
    return share[:-1] * size[1:] > share[1:] * size[:-1]
