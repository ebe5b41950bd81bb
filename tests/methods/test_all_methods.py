"""Properties of every method that is trained on embeddings, with the tools of scikit-learn."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from toy_backbone import AnyWidthBackbone

from clipcal import PromptTunedCLIPClassifier, ece_scorer
from clipcal.methods import METHODS, zero_shot_features

NAMES = ["cat", "dog", "old hammer"]
TOY = AnyWidthBackbone(16)
RNG = np.random.default_rng(0)
Y = np.array(NAMES * 10)
CENTERS = zero_shot_features(TOY, NAMES * 10, "a photo of a {}.").numpy()
X = CENTERS + 0.3 * RNG.normal(size=(30, 16))

pytestmark = pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if not method.needs_pixels]
)


# The text features of the toy backbone are short, so that a step changes the direction of weights a lot.
RATES = {"linear-probe": 1e-4}


def make(method, **params):
    rate = RATES.get(method, 0.01)
    params = {"max_epochs": 3, "batch_size": 8, "learning_rate": rate, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(TOY, method=method, **params)


def test_training_reduces_the_loss(method):
    clf = make(method, max_epochs=25).fit(X, Y)
    assert clf.history_[-1]["loss"] < clf.history_[0]["loss"]
    parts = clf.history_[0].keys() - {"epoch", "learning_rate", "loss", "accuracy"}
    for record in clf.history_:
        assert record["loss"] == pytest.approx(sum(record[name] for name in parts), abs=1e-5)


def test_predictions_are_consistent(method):
    clf = make(method).fit(X, Y)
    proba = clf.predict_proba(X)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])
    np.testing.assert_allclose(clf.predict_proba(X[[4]])[0], proba[4], atol=1e-6)
    assert clf.text_features_.shape == (3, 16)


def test_result_depends_on_random_state_only(method):
    first, again, other = (make(method, random_state=seed).fit(X, Y) for seed in (0, 0, 1))
    for name, values in first.learned_.items():
        np.testing.assert_array_equal(values, again.learned_[name])
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert np.abs(first.predict_proba(X) - other.predict_proba(X)).max() > 0


def test_with_classes(method):
    clf = make(method).fit(X, Y)
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(clf.with_classes(NAMES[::-1]).predict_proba(X), proba, atol=1e-6)
    other = clf.with_classes(["owl", "cow", "fox", "emu"])
    assert other.predict_proba(X).shape == (30, 4)
    np.testing.assert_allclose(other.with_classes(NAMES).predict_proba(X), proba, atol=1e-6)
    np.testing.assert_array_equal(clf.predict_proba(X), proba)


def test_copies(method):
    clf = make(method).fit(X, Y)
    proba = clf.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X), proba)
    np.testing.assert_array_equal(clone(clf).fit(X, Y).predict_proba(X), proba)


def test_cross_validation_and_search(method):
    scores = cross_val_score(make(method), X, Y, cv=3, error_score="raise")
    assert ((scores >= 0) & (scores <= 1)).all()
    grid = {"learning_rate": [1e-3, 0.05]}
    search = GridSearchCV(make(method), grid, cv=3, scoring=ece_scorer, error_score="raise").fit(X, Y)
    assert len(set(search.cv_results_["mean_test_score"])) == 2
    assert set(search.predict(X)) <= set(NAMES)
