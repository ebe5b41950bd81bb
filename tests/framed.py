"""Classifiers whose predictions are data frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression


class TextTable:
    """Minimal table whose column names must be strings, as in polars."""

    def __init__(self, values, columns):
        self.values, self.columns = np.asarray(values), [str(name) for name in columns]

    shape = property(lambda self: self.values.shape)
    ndim = property(lambda self: self.values.ndim)

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)

    def __getitem__(self, key):
        return TextSeries(self.values[key])


class TextSeries(TextTable):
    """A column of :class:`TextTable`."""

    def __init__(self, values):
        self.values = values


FRAMES = {
    "pandas": lambda values, names: pd.DataFrame(values, columns=list(names)),
    "text": lambda values, names: pd.DataFrame(values, columns=[str(name) for name in names]),
    "table": TextTable,
}


class Framed(ClassifierMixin, BaseEstimator):
    """Logistic regression that returns data frames with columns in decreasing order of the labels."""

    def __init__(self, frame="pandas", logits=False, names=None):
        self.frame = frame
        self.logits = logits
        self.names = names

    def fit(self, X, y, sample_weight=None):
        self.model_ = LogisticRegression(max_iter=500).fit(np.asarray(X), y, sample_weight)
        self.classes_ = self.model_.classes_
        return self

    def _framed(self, values):
        names = self.classes_.tolist()[::-1] if self.names is None else self.names
        return FRAMES[self.frame](values[:, ::-1], names)

    def predict(self, X):
        return self.model_.predict(np.asarray(X))

    def predict_proba(self, X):
        return self._framed(self.model_.predict_proba(np.asarray(X)))

    def __getattr__(self, name):
        if name == "decision_function" and self.__dict__.get("logits"):
            return lambda X: self._framed(self.model_.predict_log_proba(np.asarray(X)))
        raise AttributeError(name)
