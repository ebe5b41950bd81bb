"""Sample weights from the parameter ``class_weight``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from clipcal._weights import check_weight

__all__ = ["weigh_classes"]


def weigh_classes(
    class_weight: Mapping[Any, float] | str | None,
    classes: NDArray[Any],
    targets: NDArray[np.intp],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return sample weights multiplied by the weights of the classes.

    Parameters
    ----------
    class_weight : mapping of label to float, "balanced" or None
        Weights of the classes, as in scikit-learn. Classes that a mapping does not contain have weight 1.
    classes : ndarray of shape (n_classes,)
        Labels.
    targets : ndarray of intp, shape (n_samples,)
        Class indices.
    weights : ndarray of shape (n_samples,)
        Sample weights.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, all weights are zero, or the mapping contains an unknown
        label, although it does not contain all classes.
    """
    if class_weight is None:
        return weights
    if isinstance(class_weight, Mapping):
        # Not by compute_class_weight, which takes the label "1" for the number 1.
        labels = classes.tolist()
        unknown = [label for label in class_weight if label not in labels]
        missing = [label for label in labels if label not in class_weight]
        # Folds may lack classes, so that labels that do not occur are an error only if others are missing.
        if unknown and missing:
            raise ValueError(
                f"class_weight has a weight for {unknown[0]!r}, which is not a class, and none for "
                f"{missing[0]!r}; the classes are {labels}."
            )
        by_class = np.array([class_weight.get(label, 1.0) for label in labels], dtype=np.float64)
    else:
        by_class = compute_class_weight(
            class_weight, classes=np.arange(len(classes)), y=targets, sample_weight=weights
        )
    if not (np.isfinite(by_class) & (by_class >= 0)).all():
        raise ValueError(f"class_weight must contain finite values of at least 0, got {class_weight!r}.")
    return check_weight(weights * by_class[targets], len(targets))
