"""Beside CalibratedClassifierCV: the same numbers where both work, and cases where only one of them does."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipcal.calibration import CalibratedCLIPClassifier, IsotonicCalibration
from clipcal.metrics import calibration_scorers, ece_scorer

X, DIGIT = load_digits(return_X_y=True)
WORDS = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[DIGIT]
FIT, HELD_OUT, TEST = slice(0, 300), slice(300, 900), slice(900, None)


def both(labels, method="temperature", ours=None):
    base = LogisticRegression(max_iter=2000).fit(X[FIT], labels[FIT])
    mine = CalibratedCLIPClassifier(base, method=ours or method, cv="prefit")
    theirs = CalibratedClassifierCV(FrozenEstimator(base), method=method)
    return [model.fit(X[HELD_OUT], labels[HELD_OUT]) for model in (mine, theirs)]


@pytest.mark.parametrize("labels", [DIGIT, WORDS], ids=["0..9", "words"])
def test_the_same_temperature(labels):
    mine, theirs = both(labels)
    assert_allclose(mine.predict_proba(X[TEST]), theirs.predict_proba(X[TEST]), atol=1e-6)


@pytest.mark.parametrize("cv", [5, "prefit"])
def test_the_same_inside_a_search(cv):
    grid = {"estimator__C": [0.01, 1.0]} if cv == 5 else {}
    base = LogisticRegression(max_iter=500)
    # A search makes clones, which only a frozen classifier survives.
    base = base if cv == 5 else FrozenEstimator(base.fit(X[FIT], WORDS[FIT]))
    search = GridSearchCV(CalibratedCLIPClassifier(base, cv=cv), grid, cv=2, scoring="neg_log_loss")
    assert search.fit(X[HELD_OUT], WORDS[HELD_OUT]).best_score_ > -0.6


def test_other_labels_do_not_change_a_temperature():
    by_digit, _ = both(DIGIT)
    # Scikit-learn takes such labels for column numbers and reads beyond its arrays, so it is not asked.
    for labels in (10 * DIGIT + 10, -DIGIT, DIGIT + 0.0):
        base = LogisticRegression(max_iter=2000).fit(X[FIT], labels[FIT])
        mine = CalibratedCLIPClassifier(base, cv="prefit").fit(X[HELD_OUT], labels[HELD_OUT])
        assert_allclose(mine.calibrator_.temperature_, by_digit.calibrator_.temperature_, rtol=1e-6)


def test_columns_in_another_order():
    class InPromptOrder(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.inner_ = LogisticRegression(max_iter=2000).fit(X, y)
            self.order_ = np.random.default_rng(0).permutation(10)
            self.classes_ = self.inner_.classes_[self.order_]
            return self

        def decision_function(self, X):
            return self.inner_.decision_function(X)[:, self.order_]

        def predict(self, X):
            return self.inner_.predict(X)

    mine = CalibratedCLIPClassifier(InPromptOrder().fit(X[FIT], WORDS[FIT]), cv="prefit")
    mine.fit(X[HELD_OUT], WORDS[HELD_OUT])
    sorted_ones, _ = both(WORDS)
    assert_allclose(mine.predict_proba(X[TEST]), sorted_ones.predict_proba(X[TEST]), atol=1e-9)


def test_few_rows_and_a_class_without_any():
    base = LogisticRegression(max_iter=2000).fit(X[FIT], WORDS[FIT])
    rows = np.concatenate([np.flatnonzero(WORDS[HELD_OUT] == word)[:4] + 300 for word in np.unique(WORDS)])
    for chosen in (rows, rows[4:]):
        for method in ("temperature", "vector", "matrix", "isotonic", IsotonicCalibration("one-vs-rest")):
            mine = CalibratedCLIPClassifier(base, method=method, cv="prefit").fit(X[chosen], WORDS[chosen])
            prob = mine.predict_proba(X[TEST])
            assert_allclose(prob.sum(axis=1), 1)
            # Nothing blows up: the log loss stays near that of the uncalibrated model.
            assert log_loss(WORDS[TEST], prob) < log_loss(WORDS[TEST], base.predict_proba(X[TEST])) + 0.2


def test_isotonic_maps_of_each_class():
    class Probabilities(ClassifierMixin, BaseEstimator):
        """scikit-learn fits on logits where there are some; this hides them."""

        def fit(self, X, y):
            self.inner_ = LogisticRegression(max_iter=2000).fit(X, y)
            self.classes_ = self.inner_.classes_
            return self

        def predict_proba(self, X):
            return self.inner_.predict_proba(X)

        def predict(self, X):
            return self.inner_.predict(X)

    base = Probabilities().fit(X[FIT], WORDS[FIT])
    method = IsotonicCalibration("one-vs-rest", smoothing=0)
    mine = CalibratedCLIPClassifier(base, method=method, cv="prefit").fit(X[HELD_OUT], WORDS[HELD_OUT])
    theirs = CalibratedClassifierCV(FrozenEstimator(base), method="isotonic", ensemble=False)
    theirs.fit(X[HELD_OUT], WORDS[HELD_OUT])
    assert_allclose(mine.predict_proba(X[TEST]), theirs.predict_proba(X[TEST]), atol=1e-9)


def test_in_pipelines_and_cross_validation():
    for model in (
        make_pipeline(StandardScaler(), CalibratedCLIPClassifier(LogisticRegression(max_iter=500), cv=2)),
        CalibratedCLIPClassifier(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), cv=2),
    ):
        scores = cross_val_score(model, X[HELD_OUT], WORDS[HELD_OUT], cv=2, scoring=ece_scorer)
        assert ((scores <= 0) & (scores > -0.2)).all()
    several = cross_validate(model, X[HELD_OUT], WORDS[HELD_OUT], cv=2, scoring=calibration_scorers())
    assert all(np.isfinite(several[f"test_{name}"]).all() for name in calibration_scorers())
