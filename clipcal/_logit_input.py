"""Convert binary log-odds to logits, and warn if logits look like probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcal._arrays import to_numpy
from clipcal._caller import advise_caller

__all__ = ["advise_of_probabilities", "holds_log_odds", "two_columns"]

# The sums of the rows of a bfloat16 softmax deviate from 1 by up to 0.004.
_ROW_SUM_TOLERANCE = 1e-2


def two_columns(logits: Any) -> Any:
    """Convert binary log-odds, as returned by a binary ``decision_function``, to one column per class.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes) or (n_samples,)
        Logits. A 1-D array holds the log-odds of the second of two classes.

    Returns
    -------
    logits : array-like of shape (n_samples, n_classes)
        For log-odds, an array with a first column of zeros; for a tensor, an array; otherwise unchanged.
    """
    values = to_numpy(logits)
    if not holds_log_odds(values):
        return values
    log_odds = np.asarray(values)
    return np.column_stack([np.zeros_like(log_odds), log_odds])


def holds_log_odds(logits: Any) -> bool:
    """Whether the input is one-dimensional.

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
    # Objects with a shape are not converted, as that may be expensive.
    return len(np.asarray(logits).shape if shape is None else shape) == 1


def advise_of_probabilities(
    logits: NDArray[np.floating], what: str, receiver: str, advice: str, *, log_odds: bool = False
) -> None:
    """Warn if logits look like probabilities.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Logits, one column per class.

    what : str
        Name of the logits in the message, such as ``"logits"``.

    receiver : str
        Function or estimator that expects logits, such as ``"fit_temperature"``.

    advice : str
        What to do for probabilities ``p``, such as ``"Pass np.log(p)"``.

    log_odds : bool, default=False
        Whether the caller passed log-odds of the second class, which are the second column.
    """
    if len(logits) < 2:
        return  # a single row may look like probabilities by chance
    if log_odds:
        p = logits[:, 1]
        if p.min() >= 0 and p.max() <= 1:
            advise_caller(
                f"Every entry of {what} lies in [0, 1], as probabilities do, but {receiver} takes it for "
                f"log-odds of the second class. {advice} if these are probabilities."
            )
    elif logits.shape[1] > 1 and _sum_to_one(logits[:1]) and _sum_to_one(logits):
        advise_caller(
            f"Every row of {what} lies in [0, 1] and sums to 1, as probabilities do, but {receiver} takes it "
            f"for logits. {advice} if these are probabilities."
        )


def _sum_to_one(rows: NDArray[np.floating]) -> bool:
    sums = rows.sum(axis=1, dtype=np.float64)
    return bool(rows.min() >= 0 and (np.abs(sums - 1.0) <= _ROW_SUM_TOLERANCE).all())
