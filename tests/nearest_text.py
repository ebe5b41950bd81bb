"""An open-vocabulary classifier for tests, whose text features are points in the plane."""

import copy

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]
TEXTS = {name: np.array([np.cos(angle), np.sin(angle)]) for angle, name in enumerate(NAMES)}


class NearestText(ClassifierMixin, BaseEstimator):
    """Nearest text feature, after subtracting the mean offset between images and texts."""

    calls = {"with_classes": 0, "predict_proba": 0}  # noqa: RUF012

    def __init__(self, sharpness=2.0, class_names=None):
        self.sharpness = sharpness
        self.class_names = class_names

    def _texts(self, labels):
        return np.array([TEXTS[(self.class_names or {}).get(label, label)] for label in labels])

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.offset_ = np.mean(np.asarray(X) - self._texts(np.asarray(y).tolist()), axis=0)
        return self

    def predict_proba(self, X):
        check_is_fitted(self)
        self.calls["predict_proba"] += 1
        distances = (np.asarray(X)[:, None] - self._texts(self.classes_.tolist()) - self.offset_) ** 2
        return softmax(-self.sharpness * distances.sum(axis=2), axis=1)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def with_classes(self, labels):
        assert all(type(label) in (str, int) for label in labels)
        self.calls["with_classes"] += 1
        other = copy.copy(self)
        other.classes_ = np.unique(labels)
        return other
