"""The negative log-likelihood of probabilities or logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._compat import validate_params
from clipcal._logit_input import advise_of_probabilities, two_columns
from clipcal.metrics._input import read_matrix, read_weight, row_slices
from clipcal.metrics._labels import find_columns, read_columns
from clipcal.metrics._top_label import ClassProbabilities, read_class_probabilities

__all__ = ["log_losses", "negative_log_likelihood", "negative_log_likelihood_from_logits"]

Floats = NDArray[np.float64]

# The smallest normal number; logarithms of subnormal numbers lose precision.
_SMALLEST_PROBABILITY = float(np.finfo(np.float64).tiny)


@validate_params({})
def negative_log_likelihood(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the negative log-likelihood (log loss, cross-entropy) of the true classes.

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
    loss : float
        In nats, from 0 to 708.4; lower is better.

    Raises
    ------
    ValueError
        If the input is empty, has NaN, infinite or out-of-range values, or inconsistent shapes or labels,
        if a true label has no column, or if the sum of a row differs from 1 by more than 0.01.

    See Also
    --------
    negative_log_likelihood_from_logits : The loss without clipping.
    brier_score : A bounded proper score.

    Notes
    -----
    Probabilities are clipped to at least 2.2e-308 in float64, so a true class of probability 0 costs
    708.4 nats. ``sklearn.metrics.log_loss`` clips at the resolution of the dtype of the input, so the same
    row costs 36.0 nats in float64 and 15.9 in float32. If probabilities are rounded to 0, use the logits.

    Examples
    --------
    >>> from clipcal.metrics import negative_log_likelihood
    >>> round(negative_log_likelihood(["cat", "dog"], [[0.9, 0.1], [0.4, 0.6]]), 4)
    0.3081
    """
    classes = read_class_probabilities(y_true, y_prob, labels=labels, sample_weight=sample_weight)
    return float(np.average(log_losses(classes), weights=classes.weight)) + 0.0


def log_losses(classes: ClassProbabilities) -> Floats:
    """Compute the loss of each row, in nats."""
    chosen = np.take_along_axis(classes.prob, classes.true_column[:, None], axis=1)[:, 0]
    return -np.log(np.clip(chosen.astype(np.float64), _SMALLEST_PROBABILITY, 1.0))


@validate_params({})
def negative_log_likelihood_from_logits(
    y_true: ArrayLike,
    logits: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the negative log-likelihood of the true classes from logits, without clipping.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels, all of them in `labels`.

    logits : array-like of shape (n_samples, n_classes) or (n_samples,)
        Logits, whose softmax gives the probabilities. Minus infinity means probability 0. A 1-D array
        holds the log-odds of the second of two classes, like a binary ``decision_function``.

    labels : array-like of shape (n_classes,), default=None
        The label of each column, usually ``estimator.classes_``. By default, the sorted unique values
        of `y_true`, which must match the number of columns.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights, finite and non-negative.

    Returns
    -------
    loss : float
        In nats, not negative; lower is better. Infinite if a true class has the logit minus infinity.

    Raises
    ------
    ValueError
        If the input is empty, has NaN or plus infinity, or inconsistent shapes or labels, if a true label
        has no column, or if a row has no finite logit.

    See Also
    --------
    negative_log_likelihood : The loss of probabilities.

    Examples
    --------
    >>> from clipcal.metrics import negative_log_likelihood_from_logits
    >>> logits = [[2.0, 0.0, -1.0], [0.0, 900.0, 0.0]]
    >>> round(negative_log_likelihood_from_logits(["cat", "owl"], logits, labels=["cat", "dog", "owl"]), 4)
    450.0849
    """
    all_labels, scores = read_matrix(y_true, logits, "logits")
    rows, weight = read_weight(sample_weight, len(all_labels))
    y = all_labels
    if rows is not None:
        y, scores = y[rows], scores[rows]
    columns = read_columns(y, all_labels, logits, scores.shape, labels, name="logits")
    log_odds, scores = scores.ndim == 1, two_columns(scores)
    advise_of_probabilities(
        scores,
        "logits",
        "negative_log_likelihood_from_logits",
        "Call negative_log_likelihood(y_true, p)",
        log_odds=log_odds,
    )
    true_column = find_columns(
        y,
        columns,
        "Their likelihood is undefined. Drop these rows, or add the missing columns and pass labels.",
    )
    return float(np.average(_losses(scores, true_column), weights=weight))


def _losses(logits: NDArray[np.floating], true_column: NDArray[np.intp]) -> Floats:
    losses = np.empty(len(logits))
    for rows in row_slices(*logits.shape):
        block = logits[rows].astype(np.float64)
        at, chosen = np.arange(len(block)), true_column[rows]
        first = block.argmax(axis=1)
        highest = block[at, first]
        if not np.isfinite(highest).all():
            raise ValueError(
                "logits contain NaN, plus infinity, or a row of minus infinity only. Find such rows with "
                "~np.isfinite(logits.max(axis=1)), and drop them or fix the step that produced them."
            )
        # Differences of very large numbers may overflow to minus infinity, which is the correct limit.
        with np.errstate(over="ignore", under="ignore"):
            block -= highest[:, None]
            behind = block[at, chosen]
            np.exp(block, out=block)
        # log1p without the largest term, which is 1, keeps the tiny losses of confident rows exact.
        block[at, first] = 0.0
        losses[rows] = np.log1p(block.sum(axis=1)) - behind
    return losses
