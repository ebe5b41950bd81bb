"""Accuracy score that supports all label types of the package and ignores rows of weight zero."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin

from clipcal._weights import rows_to_score

__all__ = ["ScoredClassifier"]


class ScoredClassifier(ClassifierMixin):
    """Classifier mixin whose ``score`` takes labels in any array type and ignores rows of weight zero."""

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy of the predictions.

        Parameters
        ----------
        X : indexable of length n_samples
            Input samples; see ``fit``.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Sample weights, finite and non-negative. Rows of weight 0 are ignored.

        Returns
        -------
        accuracy : float
            Mean accuracy, in [0, 1].
        """
        return float(super().score(*rows_to_score(X, y, sample_weight)))
