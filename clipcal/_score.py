"""Accuracy, for rows as the rest of the package reads them."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin

from clipcal._weights import rows_to_score

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
        return float(super().score(*rows_to_score(X, y, sample_weight)))
