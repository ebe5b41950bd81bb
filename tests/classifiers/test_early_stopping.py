"""Callback that stops training."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from toy_backbone import AnyWidthBackbone

import clipcal
from clipcal import PromptTunedCLIPClassifier, ece_scorer
from clipcal.classifiers import EarlyStopping
from clipcal.metrics import nll_scorer

NAMES = ["cat", "dog", "red panda"]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 16)), np.array(NAMES * 10)
X_VAL, Y_VAL = RNG.normal(size=(12, 16)), np.array(NAMES * 4)


def make(**params):
    params = {"backbone": AnyWidthBackbone(16), "max_epochs": 6, "batch_size": 8, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(**params)


class Given:
    """Scorer that returns given values, one per epoch."""

    def __init__(self, *scores):
        self.scores, self.calls = scores, 0

    def __call__(self, estimator, X, y):
        self.calls += 1
        return self.scores[self.calls - 1]


def stopped(*scores, **params):
    stopping = EarlyStopping(X_VAL, Y_VAL, scoring=Given(*scores), **params)
    clf = make().set_callbacks(stopping).fit(X, Y)
    assert len(clf.history_) == len(stopping.scores_)
    return stopping


def test_stops_after_epochs_without_improvement():
    stopping = stopped(0.0, 1.0, 0.5, 1.0, 9.0, 9.0, patience=2)
    assert stopping.scores_ == [0, 1, 0.5, 1]
    assert stopping.best_epoch_ == 1
    assert stopped(0.0, 1.0, 0.5, 1.5, 1.0, 2.0, patience=2).scores_ == [0, 1, 0.5, 1.5, 1, 2]
    assert stopped(0.0, -1.0, patience=1).best_epoch_ == 0


def test_a_score_that_is_not_a_number_is_worse_than_any_number():
    stopping = stopped(np.nan, -2.0, np.nan, -1.0, -1.5, -1.5, patience=2)
    assert stopping.best_epoch_ == 3
    assert stopped(np.nan, np.nan, np.nan, patience=2).best_epoch_ == 0


def test_small_improvements_do_not_count():
    stopping = stopped(0.0, 0.1, 0.2, 0.19, min_delta=0.2, patience=3)
    assert stopping.scores_ == [0, 0.1, 0.2, 0.19]
    assert stopping.best_epoch_ == 0
    assert stopped(0.0, 0.3, 0.2, 0.1, min_delta=0.2, patience=2).best_epoch_ == 1


def test_scores_and_best_estimator_are_those_of_its_epoch(tmp_path):
    stopping = EarlyStopping(X_VAL, Y_VAL, scoring=Given(0, 1, 0, 0), patience=2)
    clf = make().set_callbacks(stopping).fit(X, Y)
    best = stopping.best_estimator_
    monitored = EarlyStopping(X_VAL, Y_VAL, patience=6)
    make().set_callbacks(monitored).fit(X, Y)
    assert monitored.scores_[1] == pytest.approx(nll_scorer(best, X_VAL, Y_VAL))
    assert monitored.scores_[3] == pytest.approx(nll_scorer(clf, X_VAL, Y_VAL))
    assert len(set(monitored.scores_)) == 6
    assert len(best.history_) == 2
    assert best.history_ == clf.history_[:2]
    clipcal.save(best, tmp_path / "best.clipcal")
    loaded = clipcal.load(tmp_path / "best.clipcal", backbone=AnyWidthBackbone(16))
    np.testing.assert_array_equal(loaded.predict_proba(X), best.predict_proba(X))
    np.testing.assert_allclose(best.with_classes(NAMES).predict_proba(X), best.predict_proba(X), atol=1e-6)
    assert np.abs(best.predict_proba(X) - clf.predict_proba(X)).max() > 1e-6
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(again.predict_proba(X), best.predict_proba(X))


def test_the_state_of_a_fit_does_not_affect_the_next():
    stopping = EarlyStopping(X_VAL, Y_VAL, patience=1, scoring="accuracy")
    clf = make().set_callbacks(stopping)
    first = clf.fit(X, Y).history_
    scores = stopping.scores_
    assert clf.fit(X, Y).history_ == first
    assert stopping.scores_ == scores
    with pytest.raises(ValueError, match="NaN"):
        clf.fit(X * np.nan, Y)
    make(max_epochs=0).set_callbacks(stopping).fit(X, Y)
    assert stopping.scores_ == []
    assert (stopping.best_epoch_, stopping.best_estimator_) == (None, None)


def test_clones_share_the_callback():
    stopping = EarlyStopping(X_VAL, Y_VAL, patience=1, scoring=ece_scorer)
    clf = make().set_callbacks(stopping)
    assert np.isfinite(cross_val_score(clf, X, Y, cv=2, scoring=ece_scorer)).all()
    assert len(clone(clf).fit(X, Y).history_) == len(stopping.scores_)


@pytest.mark.parametrize("method", ["coop", "cocoop", "clip-adapter"])
def test_images_are_encoded_once(method):
    class Counting(AnyWidthBackbone):
        encoded = 0

        def encode_images(self, pixels):
            self.encoded += len(pixels)
            return super().encode_images(pixels)

    images = RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    backbone = Counting(16)
    stopping = EarlyStopping(images, NAMES * 2, patience=4)
    clf = make(backbone=backbone, method=method, max_epochs=3).set_callbacks(stopping).fit(images, NAMES * 2)
    assert backbone.encoded == 12
    assert stopping.scores_[-1] == pytest.approx(nll_scorer(clf, images, NAMES * 2))


@pytest.mark.parametrize("params", [{"patience": 0}, {"min_delta": -1.0}, {"scoring": 3}])
def test_invalid_parameters(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        EarlyStopping(X_VAL, Y_VAL, **params)


def test_unknown_scorer_is_an_error_before_training():
    with pytest.raises(ValueError, match="nonsense"):
        make().set_callbacks(EarlyStopping(X_VAL, Y_VAL, scoring="nonsense")).fit(X, Y)
