"""Comparison with CalibratedClassifierCV, including cases that it does not support."""

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


def both(labels, method="temperature"):
    base = LogisticRegression(max_iter=2000).fit(X[FIT], labels[FIT])
    ours = CalibratedCLIPClassifier(base, method=method, cv="prefit")
    theirs = CalibratedClassifierCV(FrozenEstimator(base), method=method)
    return [model.fit(X[HELD_OUT], labels[HELD_OUT]) for model in (ours, theirs)]


@pytest.mark.parametrize("labels", [DIGIT, WORDS], ids=["0..9", "words"])
def test_temperature_agrees(labels):
    ours, theirs = both(labels)
    assert_allclose(ours.predict_proba(X[TEST]), theirs.predict_proba(X[TEST]), atol=1e-6)


@pytest.mark.parametrize("cv", [5, "prefit"])
def test_grid_search(cv):
    grid = {"estimator__C": [0.01, 1.0]} if cv == 5 else {}
    base = LogisticRegression(max_iter=500)
    # A search clones estimators, which resets all but frozen ones.
    base = base if cv == 5 else FrozenEstimator(base.fit(X[FIT], WORDS[FIT]))
    search = GridSearchCV(CalibratedCLIPClassifier(base, cv=cv), grid, cv=2, scoring="neg_log_loss")
    assert search.fit(X[HELD_OUT], WORDS[HELD_OUT]).best_score_ > -0.6


def test_temperature_does_not_depend_on_label_values():
    by_digit, _ = both(DIGIT)
    # scikit-learn uses such labels as column indices, out of bounds, so it is not run here.
    for labels in (10 * DIGIT + 10, -DIGIT, DIGIT + 0.0):
        base = LogisticRegression(max_iter=2000).fit(X[FIT], labels[FIT])
        ours = CalibratedCLIPClassifier(base, cv="prefit").fit(X[HELD_OUT], labels[HELD_OUT])
        assert_allclose(ours.calibrator_.temperature_, by_digit.calibrator_.temperature_, rtol=1e-6)


def test_unsorted_classes():
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

    ours = CalibratedCLIPClassifier(InPromptOrder().fit(X[FIT], WORDS[FIT]), cv="prefit")
    ours.fit(X[HELD_OUT], WORDS[HELD_OUT])
    expected, _ = both(WORDS)
    assert_allclose(ours.predict_proba(X[TEST]), expected.predict_proba(X[TEST]), atol=1e-9)


def test_few_rows_and_a_class_without_rows():
    base = LogisticRegression(max_iter=2000).fit(X[FIT], WORDS[FIT])
    rows = np.concatenate([np.flatnonzero(WORDS[HELD_OUT] == word)[:4] + 300 for word in np.unique(WORDS)])
    for chosen in (rows, rows[4:]):
        for method in ("temperature", "vector", "matrix", "isotonic", IsotonicCalibration("one-vs-rest")):
            ours = CalibratedCLIPClassifier(base, method=method, cv="prefit").fit(X[chosen], WORDS[chosen])
            prob = ours.predict_proba(X[TEST])
            assert_allclose(prob.sum(axis=1), 1)
            # The log loss is close to that of the uncalibrated model.
            assert log_loss(WORDS[TEST], prob) < log_loss(WORDS[TEST], base.predict_proba(X[TEST])) + 0.2


def test_isotonic_one_vs_rest_agrees():
    class Probabilities(ClassifierMixin, BaseEstimator):
        """Hides decision_function, which scikit-learn would use instead of probabilities."""

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
    ours = CalibratedCLIPClassifier(base, method=method, cv="prefit").fit(X[HELD_OUT], WORDS[HELD_OUT])
    theirs = CalibratedClassifierCV(FrozenEstimator(base), method="isotonic", ensemble=False)
    theirs.fit(X[HELD_OUT], WORDS[HELD_OUT])
    assert_allclose(ours.predict_proba(X[TEST]), theirs.predict_proba(X[TEST]), atol=1e-9)


def test_in_pipelines_and_cross_validation():
    for model in (
        make_pipeline(StandardScaler(), CalibratedCLIPClassifier(LogisticRegression(max_iter=500), cv=2)),
        CalibratedCLIPClassifier(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), cv=2),
    ):
        scores = cross_val_score(model, X[HELD_OUT], WORDS[HELD_OUT], cv=2, scoring=ece_scorer)
        assert ((scores <= 0) & (scores > -0.2)).all()
    several = cross_validate(model, X[HELD_OUT], WORDS[HELD_OUT], cv=2, scoring=calibration_scorers())
    assert all(np.isfinite(several[f"test_{name}"]).all() for name in calibration_scorers())
