"""Logits of any classifier, with columns in a given class order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcal._arrays import plain_labels
from clipcal._columns import in_class_order
from clipcal._logit_input import advise_of_probabilities, two_columns

__all__ = ["class_logits", "fill_zeros", "warn_of_probability_outputs", "zero_logit"]


def class_logits(estimator: Any, X: Any, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the logits of a fitted classifier for `classes`.

    Parameters
    ----------
    estimator : fitted classifier
        A classifier with ``decision_function``, which must return logits (for two classes, their
        difference). Without it, the logarithm of ``predict_proba`` is used.

    X : object
        Input of `estimator`.

    classes : ndarray of shape (n_classes,)
        Sorted labels, a superset of ``estimator.classes_``.

    Returns
    -------
    logits : ndarray of shape (n_samples, n_classes)
        Float64; minus infinity for classes unknown to `estimator`, and NaN for probabilities of 0, which
        :func:`fill_zeros` replaces.

    Raises
    ------
    ValueError
        If `estimator` does not return one column per class, or returns NaN.
    """
    known = np.asarray(plain_labels(estimator.classes_))
    method = "decision_function" if hasattr(estimator, "decision_function") else "predict_proba"
    source = f"{type(estimator).__name__}.{method}"
    if method == "decision_function":
        _refuse_pairs_of_classes(estimator)
    output = np.asarray(in_class_order(getattr(estimator, method)(X), known, source), dtype=np.float64)
    one_column = output.ndim == 1 and len(known) == 2
    if method == "predict_proba":
        if one_column:
            output = np.column_stack([1.0 - output, output])
        # Only 0 is replaced: clipping small values would change the predictions of confident models.
        possible = output >= np.finfo(np.float64).tiny
        values = np.log(output, where=possible, out=np.full(output.shape, np.nan))
    elif np.isnan(output).any():
        raise ValueError(f"{source} returned NaN.")
    else:
        values = two_columns(output) if one_column else output
    if values.ndim != 2 or values.shape[1] != len(known):
        raise ValueError(
            f"{source} returned an array of shape {values.shape} for "
            f"{len(known)} classes, but one column per class is needed. For a support vector classifier, set "
            "decision_function_shape='ovr'."
        )
    logits = np.full((len(values), len(classes)), -np.inf)
    logits[:, np.searchsorted(classes, known)] = values
    return logits


def warn_of_probability_outputs(estimator: Any, logits: NDArray[np.float64]) -> None:
    """Warn if ``decision_function`` seems to return probabilities.

    Pass all rows at once: a few logits, such as those of one fold, may look like probabilities by chance.

    Parameters
    ----------
    estimator : fitted classifier
        The classifier with these logits.

    logits : ndarray of shape (n_samples, n_classes)
        Result of :func:`class_logits`.
    """
    if hasattr(estimator, "decision_function"):
        advise_of_probabilities(
            np.where(np.isneginf(logits), 0.0, logits),
            f"the result of {type(estimator).__name__}.decision_function",
            "CalibratedCLIPClassifier",
            "Return their logarithms, or implement predict_proba only,",
            # Logits of two classes that come from log-odds have a first column of 0.
            log_odds=logits.shape[1] == 2 and not logits[:, 0].any(),
        )


def zero_logit(logits: NDArray[np.float64]) -> float:
    """Return a logit for probabilities of 0: the logarithm of half of the smallest positive probability.

    Forests and nearest neighbors predict 0 for classes that no tree or neighbor votes for. A single true
    class of probability 0 would dominate the log loss.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Logarithms of probabilities, NaN where they are 0.

    Returns
    -------
    log_of_zero : float
        At most the logarithm of ``0.5 / n_classes``.
    """
    positive = logits[np.isfinite(logits)]
    return float(min(positive.min(), -np.log(logits.shape[1])) - np.log(2.0))


def fill_zeros(logits: NDArray[np.float64], log_of_zero: float) -> NDArray[np.float64]:
    """Replace logits of probabilities of 0 by a value below all others of their row.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Logarithms of probabilities, NaN where they are 0.

    log_of_zero : float
        The logit. In rows with smaller positive probabilities, half of the smallest one is used.

    Returns
    -------
    filled : ndarray of shape (n_samples, n_classes)
        Without NaN.
    """
    zero = np.isnan(logits)
    if not zero.any():
        return logits
    smallest = np.where(np.isfinite(logits), logits, np.inf).min(axis=1, keepdims=True)
    return np.where(zero, np.minimum(log_of_zero, smallest - np.log(2.0)), logits)


def _refuse_pairs_of_classes(estimator: Any) -> None:
    # The shape is not sufficient: three classes have three pairs.
    parameters = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    pairs = any(
        name.rpartition("__")[2] == "decision_function_shape" and value == "ovo"
        for name, value in parameters.items()
    )
    if pairs and len(estimator.classes_) > 2:
        raise ValueError(
            f"{type(estimator).__name__}.decision_function returns one column per pair of classes, but one "
            "column per class is needed. Set decision_function_shape='ovr'."
        )
