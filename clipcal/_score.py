"""Accuracy, for rows as the rest of the package reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin

from ._arrays import plain_labels, to_numpy
from ._compat import _num_samples
from ._weights import rows_that_count, take_rows

__all__ = ["ScoredClassifier"]


class ScoredClassifier(ClassifierMixin):
    """scikit-learn's mixin, for labels in any type of array; rows of weight zero are not looked at."""

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy of the predictions.

        Parameters
        ----------
        X : indexable of length n_samples
            What to predict for; see ``fit``.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative. Rows of weight 0 are not looked at.

        Returns
        -------
        accuracy : float
            A fraction in [0, 1].
        """
        y, weight = plain_labels(y), to_numpy(sample_weight)
        rows = None if weight is None else rows_that_count(weight, _num_samples(y))
        X, y, weight = take_rows(rows, X, y, weight if rows is None else np.asarray(weight))
        return float(super().score(X, y, weight))
