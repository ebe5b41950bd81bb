"""Scorers inside scikit-learn's machinery."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipcal.metrics import (
    ace_scorer,
    cross_val_calibration_error,
    ece_scorer,
    expected_calibration_error,
    make_calibration_scorer,
    maximum_calibration_error,
    mce_scorer,
)

X, y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[y]


class CountingNB(GaussianNB):
    calls = 0

    def predict_proba(self, X):
        type(self).calls += 1
        return super().predict_proba(X)


@pytest.mark.parametrize("target", [y, NAMES, y * 10 + 3, (y == 1), np.where(y == 1, "yes", "no")])
def test_is_the_negated_metric(target):
    model = make_pipeline(StandardScaler(), GaussianNB()).fit(X, target)
    expected = expected_calibration_error(target, model.predict_proba(X), labels=model.classes_)
    assert_allclose(ece_scorer(model, X, target), -expected, rtol=1e-12)
    assert mce_scorer(model, X, target) < 0 and ace_scorer(model, X, target) < 0


def test_weights_reach_the_metric():
    model, weight = GaussianNB().fit(X, y), np.arange(150.0)
    expected = expected_calibration_error(y, model.predict_proba(X), sample_weight=weight)
    assert ece_scorer(model, X, y, sample_weight=weight) == -expected != ece_scorer(model, X, y)


def test_classes_missing_on_either_side_of_a_fold():
    # Unshuffled folds of a sorted target: each test part is a class that was not trained on.
    scores = cross_validate(GaussianNB(), X, NAMES, cv=KFold(3), scoring=ece_scorer, error_score="raise")
    assert (scores["test_score"] < -0.5).all()
    model = GaussianNB().fit(X, NAMES)
    assert np.isfinite(ece_scorer(model, X[:20], NAMES[:20]))


def test_one_trained_class():
    class Constant(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def predict_proba(self, X):
            return np.ones((len(X), 1))

    assert_allclose(ece_scorer(Constant().fit(X[:9], y[:9]), X, y), -2 / 3)


def test_several_scorers_share_one_prediction():
    CountingNB.calls = 0
    scoring = {"ece": ece_scorer, "mce": mce_scorer, "nll": "neg_log_loss"}
    scores = cross_validate(CountingNB(), X, y, cv=3, scoring=scoring, error_score="raise")
    assert CountingNB.calls == 3
    assert (scores["test_mce"] <= scores["test_ece"]).all()


def test_grid_search_clones_and_pickles():
    grid = {"C": [0.01, 1.0]}
    search = GridSearchCV(LogisticRegression(max_iter=500), grid, scoring=ece_scorer, cv=3)
    search = pickle.loads(pickle.dumps(clone(search))).fit(X, NAMES)
    assert search.best_params_ == {"C": 1.0}
    scorer = make_calibration_scorer(maximum_calibration_error, n_bins=5)
    restored = pickle.loads(pickle.dumps(scorer))
    assert restored(search, X, NAMES) == scorer(search, X, NAMES)
    assert repr(restored) == "make_calibration_scorer(maximum_calibration_error, n_bins=5)"


def test_metadata_routing():
    weight = np.arange(1.0, 151)
    with config_context(enable_metadata_routing=True):
        scorer = copy.deepcopy(ece_scorer).set_score_request(sample_weight=True)
        model = LogisticRegression(max_iter=300).set_fit_request(sample_weight=False)
        routed = cross_validate(
            model, X, y, scoring=scorer, cv=3, params={"sample_weight": weight}, error_score="raise"
        )
    fold_scores = [
        ece_scorer(clone(model).fit(X[train], y[train]), X[test], y[test], sample_weight=weight[test])
        for train, test in StratifiedKFold(3).split(X, y)
    ]
    assert_allclose(routed["test_score"], fold_scores)


def test_pooled_error_by_hand():
    pooled = np.empty((150, 3))
    for train, test in StratifiedKFold(5).split(X, y):
        pooled[test] = GaussianNB().fit(X[train], y[train]).predict_proba(X[test])
    assert_allclose(
        cross_val_calibration_error(GaussianNB(), X, NAMES), expected_calibration_error(y, pooled)
    )


def test_pooled_error_with_missing_classes_and_lists():
    rows = [list(row) for row in X]
    error = cross_val_calibration_error(GaussianNB(), rows, list(NAMES), cv=KFold(3))
    assert error > 0.9
    custom = cross_val_calibration_error(GaussianNB(), X, y, cv=KFold(3), metric=maximum_calibration_error)
    assert custom >= error
