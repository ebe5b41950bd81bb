"""What may stand for logits: log-odds of two classes, but hardly probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcal._arrays import to_numpy
from clipcal._caller import advise_caller

__all__ = ["advise_of_probabilities", "holds_log_odds", "two_columns"]

# The rows of a bfloat16 softmax miss a sum of 1 by 0.004.
_ROW_SUM_TOLERANCE = 1e-2


def two_columns(logits: Any) -> Any:
    """Return log-odds of two classes, as binary ``decision_function`` gives them, as one column a class.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes) or (n_samples,)
        A 1-D array holds log-odds of the second of two classes.

    Returns
    -------
    logits : array-like of shape (n_samples, n_classes)
        For log-odds an array with zeros in front of them; a tensor as an array; all else as it came.
    """
    values = to_numpy(logits)
    if not holds_log_odds(values):
        return values
    log_odds = np.asarray(values)
    return np.column_stack([np.zeros_like(log_odds), log_odds])


def holds_log_odds(logits: Any) -> bool:
    """Tell whether what a caller passed has one dimension.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes) or (n_samples,)
        Logits, or log-odds.

    Returns
    -------
    log_odds : bool
        True for an array of shape (n_samples,).
    """
    shape = getattr(logits, "shape", None)
    # What is no array need not let NumPy ask it for its dimensions.
    return len(np.asarray(logits).shape if shape is None else shape) == 1


def advise_of_probabilities(
    logits: NDArray[np.floating], what: str, taker: str, cure: str, *, log_odds: bool = False
) -> None:
    """Warn if what is taken for logits looks like probabilities.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        One column a class.

    what : str
        What the caller calls them: ``"logits"``.

    taker : str
        Who takes them for logits: ``"fit_temperature"``.

    cure : str
        What to do instead, for probabilities ``p``: ``"Pass np.log(p)"``.

    log_odds : bool, default=False
        Whether the caller passed log-odds of the second class, which are the second column.
    """
    if len(logits) < 2:
        return  # a single row may look so by chance
    if log_odds:
        p = logits[:, 1]
        if p.min() >= 0 and p.max() <= 1:
            advise_caller(
                f"Every entry of {what} lies in [0, 1], as probabilities do, but {taker} takes it for "
                f"log-odds of the second class. {cure} if these are probabilities."
            )
    elif logits.shape[1] > 1 and _sum_to_one(logits[:1]) and _sum_to_one(logits):
        advise_caller(
            f"Every row of {what} lies in [0, 1] and sums to 1, as probabilities do, but {taker} takes it "
            f"for logits. {cure} if these are probabilities."
        )


def _sum_to_one(rows: NDArray[np.floating]) -> bool:
    sums = rows.sum(axis=1, dtype=np.float64)
    return bool(rows.min() >= 0 and (np.abs(sums - 1.0) <= _ROW_SUM_TOLERANCE).all())
