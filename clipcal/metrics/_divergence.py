"""The feature divergence of text features, from the DOR paper."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from clipcal._arrays import to_numpy
from clipcal.metrics._proximity import nearest_squared_distances, unit_rows

__all__ = ["feature_divergence"]


def feature_divergence(text_features: ArrayLike, *, n_neighbors: int = 5, metric: str = "euclidean") -> float:
    """Compute the mean distance of text features to their nearest neighbors (the FD score).

    For class ``i``, ``FD(w_i)`` is the mean distance from ``w_i`` to the ``n_neighbors`` nearest features
    of other classes; the score is the mean over classes. A larger divergence is associated with
    over-confidence on new classes.

    Parameters
    ----------
    text_features : array-like of shape (n_classes, n_features)
        Features of the class prompts. Rows are normalized to unit length.

    n_neighbors : int, default=5
        Number of neighbors of each class. If there are fewer other classes, all of them are used. The
        paper does not state the number.

    metric : {"euclidean", "cosine"}, default="euclidean"
        Distance between unit vectors, ``|a - b|`` or ``1 - a.b``. The paper does not state the distance.
        Each is a monotone function of the other.

    Returns
    -------
    divergence : float
        In [0, 2].

    Raises
    ------
    ValueError
        If there are fewer than two classes, if features contain NaN, infinity or a row of zeros, or if a
        parameter is out of range.

    References
    ----------
    .. [1] S. Wang, Y. Li, H. Wei, "Understanding and Mitigating Miscalibration in Prompt Tuning for
       Vision-Language Models", ICML 2025, arXiv:2410.02681.

    Examples
    --------
    >>> from clipcal.metrics import feature_divergence
    >>> round(feature_divergence([[1, 0], [0, 1], [1, 1]], n_neighbors=1), 4)
    0.7654
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric must be 'euclidean' or 'cosine'; got {metric!r}.")
    if isinstance(n_neighbors, bool) or not isinstance(n_neighbors, Integral) or n_neighbors < 1:
        raise ValueError(f"n_neighbors must be a positive integer; got {n_neighbors!r}.")
    text_features = to_numpy(text_features)
    shape = np.shape(text_features)
    if len(shape) != 2 or shape[0] < 2:
        raise ValueError(
            f"text_features must have one row per class and at least two rows; got an array of shape {shape}."
        )
    features = unit_rows(np.asarray(text_features, dtype=np.float64), "text_features")
    n_neighbors = min(int(n_neighbors), len(features) - 1)
    total = 0.0
    for squared in nearest_squared_distances(features, features, n_neighbors, exclude_self=True):
        # For unit vectors, 1 - a.b = |a - b|**2 / 2.
        total += float((np.sqrt(squared) if metric == "euclidean" else squared / 2.0).sum())
    return total / (len(features) * n_neighbors)
