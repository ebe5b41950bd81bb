"""From any classifier to one matrix of logits whose columns follow a given class order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_logits"]


def class_logits(estimator: Any, X: Any, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the logits of a fitted classifier for `classes`.

    Parameters
    ----------
    estimator : fitted classifier
        With ``decision_function``, which is taken for logits (of two classes: for their difference), or
        else with ``predict_proba``, of which the logarithm is taken.

    X : object
        Whatever `estimator` predicts for.

    classes : ndarray of shape (n_classes,)
        Sorted labels, a superset of ``estimator.classes_``.

    Returns
    -------
    logits : ndarray of shape (n_samples, n_classes)
        Float64; minus infinity for classes that `estimator` does not know.

    Raises
    ------
    ValueError
        If `estimator` does not return one column per class.
    """
    known = np.asarray(estimator.classes_)
    if hasattr(estimator, "decision_function"):
        method = "decision_function"
        values = np.asarray(estimator.decision_function(X), dtype=np.float64)
        if values.ndim == 1 and len(known) == 2:
            values = np.column_stack([np.zeros_like(values), values])
    else:
        method = "predict_proba"
        prob = np.asarray(estimator.predict_proba(X), dtype=np.float64)
        # A floor as low as float64 allows: a higher one would change what a confident model said.
        values = np.log(np.maximum(prob, np.finfo(np.float64).tiny))
    if values.ndim != 2 or values.shape[1] != len(known):
        raise ValueError(
            f"{type(estimator).__name__}.{method} returned an array of shape {values.shape} for "
            f"{len(known)} classes; one column per class is needed. For a support vector classifier set "
            "decision_function_shape='ovr'."
        )
    logits = np.full((len(values), len(classes)), -np.inf)
    logits[:, np.searchsorted(classes, known)] = values
    return logits
