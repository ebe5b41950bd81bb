"""Properties of every method that is trained on embeddings, with the tools of scikit-learn."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from toy_backbone import AnyWidthBackbone, toy_backbone_for

from clipcal import CalibratedCLIPClassifier, CLIPImageEncoder, PromptTunedCLIPClassifier, ece_scorer
from clipcal.classifiers import EarlyStopping
from clipcal.methods import METHODS, zero_shot_features

NAMES = ["cat", "dog", "old hammer"]
TOY = AnyWidthBackbone(16)
RNG = np.random.default_rng(0)
Y = np.array(NAMES * 10)
CENTERS = zero_shot_features(TOY, NAMES * 10, "a photo of a {}.").numpy()
X = CENTERS + 0.3 * RNG.normal(size=(30, 16))

pytestmark = pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if not method().needs_pixels]
)


# The gradients of ProGrad change if an inner product has another sign, which rounding can decide.
ROUNDING = 1e-3
# The text features of the toy backbone are short, so that a step changes the direction of weights a lot.
RATES = {"linear-probe": 1e-4}


def make(method, **params):
    rate = RATES.get(method, 0.01)
    params = {"max_epochs": 3, "batch_size": 8, "learning_rate": rate, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(toy_backbone_for(method, 16), method=method, **params)


def test_training_reduces_the_loss(method):
    if METHODS[method].training_free:
        assert make(method, max_epochs=25).fit(X, Y).history_ == []
        return
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
    if METHODS[method].training_free:
        other = make(method, random_state=0).fit(X[::2], Y[::2])
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
    free = METHODS[method].training_free
    grid = {"method__alpha": [0.1, 10.0]} if free else {"learning_rate": [1e-3, 0.05]}
    search = GridSearchCV(make(method), grid, cv=3, scoring=ece_scorer, error_score="raise").fit(X, Y)
    assert len(set(search.cv_results_["mean_test_score"])) == 2
    assert set(search.predict(X)) <= set(NAMES)


def test_parameters_of_a_method_given_by_name(method):
    for name, value in METHODS[method]().get_params(deep=False).items():
        clf = make(method).set_params(**{f"method__{name}": value})
        assert isinstance(clf.method, METHODS[method])
        assert repr(getattr(clf.method, name)) == repr(value)


def test_calibrated(method):
    clf = make(method).fit(X, Y)
    for calibrated in (
        CalibratedCLIPClassifier(clf, cv="prefit").fit(X, Y),
        CalibratedCLIPClassifier(make(method), cv=2).fit(X, Y),
    ):
        assert calibrated.predict_proba(X).shape == (30, 3)
        other = calibrated.with_classes(["owl", "cow", "fox", "emu"])
        assert other.predict_proba(X).shape == (30, 4)


def test_images_equal_their_embeddings(method):
    images = RNG.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    labels = NAMES * 4
    embeddings = CLIPImageEncoder(TOY, normalize=False).transform(images)
    by_images = make(method).fit(images, labels)
    by_embeddings = make(method).fit(embeddings, labels)
    expected = by_embeddings.predict_proba(embeddings)
    np.testing.assert_allclose(by_images.predict_proba(images), expected, atol=ROUNDING)
    np.testing.assert_allclose(by_images.predict_proba(embeddings), expected, atol=ROUNDING)
    views = make(method, n_views=2).fit(images, labels).predict_proba(images)
    assert np.abs(views - expected).max() > 0


def test_two_classes(method):
    labels = np.array(["no", "yes"])[np.arange(30) % 2]
    clf = make(method).fit(X, labels)
    margins = clf.decision_function(X)
    assert margins.shape == (30,)
    np.testing.assert_allclose(1 / (1 + np.exp(-margins)), clf.predict_proba(X)[:, 1], atol=1e-6)


def test_weights_of_classes_and_samples(method):
    weights = np.where(Y == "dog", 5.0, 1.0)
    plain, weighted = make(method).fit(X, Y), make(method).fit(X, Y, sample_weight=weights)
    assert np.abs(weighted.predict_proba(X) - plain.predict_proba(X)).max() > 3 * ROUNDING
    by_class = make(method, class_weight={"dog": 5.0}).fit(X, Y)
    np.testing.assert_allclose(by_class.predict_proba(X), weighted.predict_proba(X), atol=ROUNDING)
    scaled = make(method).fit(X, Y, sample_weight=1000 * weights)
    np.testing.assert_allclose(scaled.predict_proba(X), weighted.predict_proba(X), atol=ROUNDING)


def test_zero_weights_equal_missing_samples(method):
    kept = np.arange(30) % 4 > 0
    weighted = make(method).fit(X, Y, sample_weight=kept)
    np.testing.assert_array_equal(
        weighted.predict_proba(X), make(method).fit(X[kept], Y[kept]).predict_proba(X)
    )


def test_warm_start_continues(method):
    clf = make(method, warm_start=True).fit(X, Y)
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(clf.set_params(max_epochs=0).fit(X, Y).predict_proba(X), proba, atol=1e-6)


def test_early_stopping(method):
    stopping = EarlyStopping(X, Y, scoring=lambda *data: 0.0, patience=1)
    clf = make(method, max_epochs=5).set_callbacks(stopping).fit(X, Y)
    if METHODS[method].training_free:
        assert clf.history_ == stopping.scores_ == []
        return
    assert len(clf.history_) == 2
    np.testing.assert_array_equal(
        stopping.best_estimator_.with_classes(NAMES).predict_proba(X),
        stopping.best_estimator_.predict_proba(X),
    )
