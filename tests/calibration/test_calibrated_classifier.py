"""CalibratedCLIPClassifier: held-out rows, labels, weights, new classes."""

import copy
import pickle

import numpy as np
import pytest
from drawn_logits import drawn_from, random_logits
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.calibration import (
    CALIBRATORS,
    CalibratedCLIPClassifier,
    HistogramBinning,
    TemperatureScaling,
    VectorScaling,
    fit_temperature,
)
from clipcal.calibration._logits import class_logits, fill_zeros
from clipcal.datasets import make_shapes
from clipcal.metrics import ece_scorer, expected_calibration_error, proximity
from clipcal.model_selection import LeaveClassesOut, open_vocabulary

IRIS_X, IRIS_Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[IRIS_Y]


class LinearLogits(ClassifierMixin, BaseEstimator):
    """A classifier that returns its input as logits, with ``with_classes`` and support for lists."""

    def __init__(self, classes=(0, 1, 2), scale=1.0):
        self.classes = classes
        self.scale = scale

    def fit(self, X, y):
        self.classes_ = np.asarray(self.classes)
        return self

    def decision_function(self, X):
        logits = np.array([np.asarray(x)[: len(self.classes_)] for x in X]) * self.scale
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X):
        decision = self.decision_function(X)
        return self.classes_[decision.argmax(axis=1) if decision.ndim == 2 else (decision > 0).astype(int)]

    def with_classes(self, labels):
        return LinearLogits(labels, self.scale).fit(None, None)


def test_agrees_with_scikit_learn():
    from sklearn.calibration import CalibratedClassifierCV

    logits = random_logits()
    y = drawn_from(0.4 * logits)
    frozen = FrozenEstimator(LinearLogits(range(5)).fit(logits, y))
    theirs = CalibratedClassifierCV(frozen, method="temperature", cv=3, ensemble=False).fit(logits, y)
    ours = CalibratedCLIPClassifier(frozen).fit(logits, y)
    assert_allclose(ours.predict_proba(logits), theirs.predict_proba(logits), atol=1e-6)


@pytest.mark.filterwarnings("ignore:The data do not determine")
@parametrize_with_checks(
    [
        CalibratedCLIPClassifier(LogisticRegression(), method=method)
        for method in sorted(CALIBRATORS)
        if not CALIBRATORS[method].side_inputs
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("alphabet", [[0, 1, 2], [10, 20, 30], [3, 1, 2], ["c", "a", "b"], [7.0, -1.0, 0.0]])
def test_label_values_do_not_matter(alphabet):
    logits = random_logits(300, 3)
    y = drawn_from(logits * 0.5)
    labels = np.asarray(alphabet)
    model = CalibratedCLIPClassifier(LinearLogits(labels).fit(None, None), cv="prefit").fit(
        list(logits), labels[y]
    )
    assert_allclose(model.calibrator_.temperature_, 1 / fit_temperature(logits, y))
    assert list(model.classes_) == sorted(alphabet)
    order = np.argsort(labels)
    assert_allclose(
        model.predict_proba(logits), softmax(logits / model.calibrator_.temperature_, axis=1)[:, order]
    )
    np.testing.assert_array_equal(model.predict(logits), labels[logits.argmax(axis=1)])


@pytest.mark.parametrize("dtype", [int, bool, str])
def test_two_classes(dtype):
    X, y = make_classification(300, n_informative=3, flip_y=0.2, random_state=0)
    y = y.astype(dtype)
    model = CalibratedCLIPClassifier(LogisticRegression(C=100)).fit(X, y)
    decision = model.decision_function(X)
    assert decision.shape == (300,)
    assert_allclose(decision, model.estimator_.decision_function(X) / model.calibrator_.temperature_)
    assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-decision)))
    assert_allclose(model.predict_log_proba(X), np.log(model.predict_proba(X)))
    np.testing.assert_array_equal(model.predict(X), model.estimator_.predict(X))


@pytest.mark.parametrize("cv", [5, None, 3, StratifiedKFold(4, shuffle=True, random_state=0)])
def test_temperature_is_fitted_on_held_out_rows(cv):
    base = make_pipeline(StandardScaler(), LogisticRegression(C=1e4, max_iter=1000))
    model = CalibratedCLIPClassifier(base, cv=cv).fit(IRIS_X, NAMES)
    folds = {None: 5}.get(cv, cv) if not hasattr(cv, "split") else cv
    splitter = StratifiedKFold(folds) if isinstance(folds, int) else folds
    logits = np.empty((150, 3))
    for train, test in splitter.split(IRIS_X, NAMES):
        logits[test] = clone(base).fit(IRIS_X[train], NAMES[train]).decision_function(IRIS_X[test])
    assert_allclose(model.calibrator_.temperature_, 1 / fit_temperature(logits, IRIS_Y))
    assert model.calibrator_.temperature_ > 1 and model.calibrator_.identified_
    assert_allclose(model.estimator_.predict_proba(IRIS_X), base.fit(IRIS_X, NAMES).predict_proba(IRIS_X))
    assert model.score(IRIS_X, NAMES) == base.score(IRIS_X, NAMES)


def test_prefit_and_frozen_estimators_are_not_modified():
    base = LogisticRegression(max_iter=300).fit(IRIS_X[::2], NAMES[::2])
    coefficients = base.coef_.copy()
    prefit = CalibratedCLIPClassifier(base, cv="prefit").fit(IRIS_X[1::2], NAMES[1::2])
    frozen = CalibratedCLIPClassifier(FrozenEstimator(base)).fit(IRIS_X[1::2], NAMES[1::2])
    assert prefit.estimator_ is base
    assert (
        prefit.calibrator_.temperature_
        == frozen.calibrator_.temperature_
        == clone(frozen).fit(IRIS_X[1::2], NAMES[1::2]).calibrator_.temperature_
    )
    np.testing.assert_array_equal(base.coef_, coefficients)
    assert prefit.n_features_in_ == frozen.n_features_in_ == 4


def test_prefit_does_not_need_rows_of_every_class():
    base = LogisticRegression(max_iter=300).fit(IRIS_X, NAMES)
    rows = [60, 70, 77, 83, 110, 133]
    model = CalibratedCLIPClassifier(base, cv="prefit").fit(IRIS_X[rows], NAMES[rows])
    assert model.predict_proba(IRIS_X).shape == (150, 3)
    with pytest.raises(ValueError, match="unknown to the fitted LogisticRegression: \\['owl'\\]"):
        CalibratedCLIPClassifier(base, cv="prefit").fit(IRIS_X[:2], ["owl", "setosa"])
    with pytest.raises(NotFittedError, match="cv=5"):
        CalibratedCLIPClassifier(LogisticRegression(), cv="prefit").fit(IRIS_X, NAMES)


def test_number_of_folds_is_limited_by_the_smallest_class():
    rows = np.r_[0:20, 50:70, 100:102]
    model = CalibratedCLIPClassifier(GaussianNB(), cv=5).fit(IRIS_X[rows], NAMES[rows])
    expected = CalibratedCLIPClassifier(GaussianNB(), cv=2).fit(IRIS_X[rows], NAMES[rows])
    assert model.calibrator_.temperature_ == expected.calibrator_.temperature_
    with pytest.raises(ValueError, match=r"'virginica' has only one sample.*prefit"):
        CalibratedCLIPClassifier(GaussianNB()).fit(IRIS_X[rows[:-1]], NAMES[rows[:-1]])


@pytest.mark.parametrize("base", [GaussianNB(), DecisionTreeClassifier(max_depth=2, random_state=0)])
def test_folds_that_lack_a_class_are_aligned(base):
    order = np.random.default_rng(0).permutation(150)
    X, y = IRIS_X[order], NAMES[order]
    without = np.flatnonzero(y != "setosa")
    splits = [(without[::2], np.arange(150)), (np.arange(75), np.arange(75, 150))]
    model = CalibratedCLIPClassifier(base, cv=splits).fit(X, y)
    first = clone(base).fit(X[without[::2]], y[without[::2]])
    second = clone(base).fit(X[:75], y[:75])
    logits = np.zeros((len(without) + 75, 3))
    logits[: len(without), 1:] = first.predict_proba(X[without])
    logits[len(without) :] = second.predict_proba(X[75:])
    # Zeros count as half of the smallest probability; the class missing in the first fold is excluded.
    logits = np.log(np.where(logits > 0, logits, min(logits[logits > 0].min(), 1 / 3) / 2))
    logits[: len(without), 0] = -np.inf
    truth = np.searchsorted(model.classes_, np.append(y[without], y[75:]))
    assert_allclose(model.calibrator_.temperature_, 1 / fit_temperature(logits, truth))
    with pytest.raises(ValueError, match="lacks all classes of the test part"):
        CalibratedCLIPClassifier(base, cv=KFold(3)).fit(IRIS_X, NAMES)


def test_probabilities_of_zero_stay_finite():
    model = CalibratedCLIPClassifier(KNeighborsClassifier(3)).fit(IRIS_X, NAMES)
    prob = model.predict_proba(IRIS_X)
    assert np.isfinite(prob).all()
    assert_allclose(prob.sum(axis=1), 1)


def test_one_versus_one_decisions_raise():
    X, y = make_classification(200, n_classes=4, n_informative=4, random_state=0)
    with pytest.raises(ValueError, match="decision_function_shape='ovr'"):
        CalibratedCLIPClassifier(SVC(decision_function_shape="ovo")).fit(X, y)


def test_input_may_be_a_list_of_texts():
    words = [f"{a:.1f} {b:.1f} {c:.1f} {d:.1f}" for a, b, c, d in IRIS_X]
    read = FunctionTransformer(lambda rows: np.array([row.split() for row in rows], dtype=float))
    model = CalibratedCLIPClassifier(make_pipeline(read, LogisticRegression(max_iter=500))).fit(
        words, list(NAMES)
    )
    plain = CalibratedCLIPClassifier(LogisticRegression(max_iter=500)).fit(IRIS_X, NAMES)
    assert_allclose(model.predict_proba(words), plain.predict_proba(IRIS_X))


def test_other_classes_keep_the_temperature():
    logits = random_logits(300, 5)
    y = drawn_from(logits[:, :3] * 0.5)
    model = CalibratedCLIPClassifier(LinearLogits().fit(None, None), cv="prefit").fit(logits, y)
    other = model.with_classes(["ant", "bee"])
    assert other.calibrator_.temperature_ == model.calibrator_.temperature_
    assert other.classes_.tolist() == ["ant", "bee"] and model.classes_.tolist() == [0, 1, 2]
    assert set(other.predict(logits)) == {"ant", "bee"}
    expected = softmax(logits[:, :2] / model.calibrator_.temperature_, axis=1)
    assert_allclose(other.predict_proba(logits), expected)
    assert model.predict_proba(logits).shape == (300, 3)
    assert not hasattr(CalibratedCLIPClassifier(LogisticRegression()), "with_classes")


def test_weights_are_passed_to_estimator_and_calibrator():
    weight = np.random.default_rng(0).integers(1, 4, 150)
    splits = list(StratifiedKFold(3).split(IRIS_X, IRIS_Y))
    base = GaussianNB()
    model = CalibratedCLIPClassifier(base, cv=splits).fit(IRIS_X, IRIS_Y, sample_weight=weight)
    assert_allclose(model.estimator_.theta_, base.fit(IRIS_X, IRIS_Y, weight).theta_)
    assert (
        model.calibrator_.temperature_
        != CalibratedCLIPClassifier(base, cv=splits).fit(IRIS_X, IRIS_Y).calibrator_.temperature_
    )
    with pytest.warns(UserWarning, match="calibrator only"):
        CalibratedCLIPClassifier(KNeighborsClassifier()).fit(IRIS_X, IRIS_Y, sample_weight=weight)


def test_metadata_routing():
    weight = np.random.default_rng(0).random(150) + 0.1
    plain = CalibratedCLIPClassifier(GaussianNB()).fit(IRIS_X, IRIS_Y, sample_weight=weight)
    with config_context(enable_metadata_routing=True):
        base = GaussianNB().set_fit_request(sample_weight=True)
        routed = CalibratedCLIPClassifier(base).set_fit_request(sample_weight=True)
        assert (
            routed.fit(IRIS_X, IRIS_Y, sample_weight=weight).calibrator_.temperature_
            == plain.calibrator_.temperature_
        )
        scores = cross_val_score(
            routed.set_score_request(sample_weight=False), IRIS_X, IRIS_Y, params={"sample_weight": weight}
        )
        assert (scores > 0.8).all()
        prefit = CalibratedCLIPClassifier(GaussianNB().fit(IRIS_X, IRIS_Y), cv="prefit")
        assert prefit.fit(IRIS_X, IRIS_Y, sample_weight=weight).calibrator_.identified_
        with pytest.raises(ValueError, match="set_fit_request"):
            CalibratedCLIPClassifier(GaussianNB()).fit(IRIS_X, IRIS_Y, sample_weight=weight)


def test_unidentified_temperature():
    X = np.r_[np.full(5, -9.0), np.full(5, 9.0)].reshape(-1, 1)
    with pytest.warns(UserWarning, match="classified correctly"):
        model = CalibratedCLIPClassifier(LogisticRegression()).fit(X, [0] * 5 + [1] * 5)
    assert model.calibrator_.temperature_ == 1 and not model.calibrator_.identified_


def test_grid_search_and_pickle():
    grid = {"estimator__C": [0.1, 10.0]}
    search = GridSearchCV(
        CalibratedCLIPClassifier(LogisticRegression(max_iter=500)), grid, scoring="neg_log_loss", cv=3
    )
    search.fit(IRIS_X, NAMES)
    restored = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(restored.predict_proba(IRIS_X), search.predict_proba(IRIS_X))


def test_failed_refit_does_not_change_the_model():
    model = CalibratedCLIPClassifier(GaussianNB(), cv=2).fit(IRIS_X, NAMES)
    before = model.predict_proba(IRIS_X[:3])
    with pytest.raises(ValueError, match="only one sample"):
        model.fit(IRIS_X[:20], ["a"] + ["b"] * 19)
    assert_allclose(model.predict_proba(IRIS_X[:3]), before)


# --- methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["vector", VectorScaling()])
def test_method_is_a_name_or_an_object(method):
    base = LogisticRegression(C=100, max_iter=500)
    model = CalibratedCLIPClassifier(base, method=method, cv=3).fit(IRIS_X, NAMES)
    assert isinstance(model.calibrator_, VectorScaling)
    held_out = np.empty((150, 3))
    for train, test in StratifiedKFold(3).split(IRIS_X, NAMES):
        held_out[test] = clone(base).fit(IRIS_X[train], NAMES[train]).decision_function(IRIS_X[test])
    expected = VectorScaling().fit(held_out, NAMES)
    logits = model.estimator_.decision_function(IRIS_X)
    assert_allclose(model.predict_proba(IRIS_X), expected.calibrate(logits), atol=1e-9)
    assert_allclose(softmax(model.decision_function(IRIS_X), axis=1), model.predict_proba(IRIS_X))
    if not isinstance(method, str):
        assert not hasattr(method, "classes_")


def test_invalid_methods_raise():
    with pytest.raises(TypeError, match=r"VectorScaling\(\)"):
        CalibratedCLIPClassifier(GaussianNB(), method=VectorScaling).fit(IRIS_X, IRIS_Y)
    with pytest.raises(ValueError, match="choose among 'temperature', 'vector'"):
        CalibratedCLIPClassifier(GaussianNB(), method="temprature").fit(IRIS_X, IRIS_Y)
    with pytest.raises(ValueError, match="CalibratedClassifierCV has it"):
        CalibratedCLIPClassifier(GaussianNB(), method="sigmoid").fit(IRIS_X, IRIS_Y)
    with pytest.raises(TypeError, match="such as VectorScaling"):
        CalibratedCLIPClassifier(GaussianNB(), method=StandardScaler()).fit(IRIS_X, IRIS_Y)


def test_grid_search_over_calibrator_parameters():
    model = CalibratedCLIPClassifier(GaussianNB(), method=TemperatureScaling(), cv=2)
    search = GridSearchCV(model, {"method__shrinkage": [0.0, 1.0]}, cv=2, scoring="neg_log_loss")
    search.fit(IRIS_X, NAMES)
    free, shrunk = search.cv_results_["mean_test_score"]
    for score, shrinkage in ((free, 0.0), (shrunk, 1.0)):
        by_hand = CalibratedCLIPClassifier(GaussianNB(), method=TemperatureScaling(shrinkage=shrinkage), cv=2)
        scores = cross_val_score(by_hand, IRIS_X, NAMES, cv=2, scoring="neg_log_loss")
        assert_allclose(score, scores.mean())
    assert free != shrunk


def test_with_classes_raises_for_calibrators_with_parameters_per_class():
    logits = random_logits(300, 5)
    y = drawn_from(logits[:, :3] * 0.5)
    model = CalibratedCLIPClassifier(LinearLogits().fit(None, None), method="vector", cv="prefit")
    model.fit(logits, y)
    with pytest.raises(ValueError, match=r"VectorScaling .* cannot be used for other classes"):
        model.with_classes(["ant", "bee"])
    assert model.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("method", ["density-ratio", "bin-mean-shift"])
def test_proximity_refers_to_the_rows_of_fit(method):
    X, y = make_classification(400, n_informative=4, n_classes=3, flip_y=0.2, random_state=0)
    base = LogisticRegression(max_iter=500).fit(X[:200], y[:200])
    model = CalibratedCLIPClassifier(base, method=method, cv="prefit").fit(X[200:], y[200:])
    expected = clone(model.calibrator_).fit(
        base.decision_function(X[200:]), y[200:], proximity=proximity(X[200:], X[200:], exclude_self=True)
    )
    near = proximity(X[:50], X[200:])
    assert_allclose(
        model.predict_proba(X[:50]), expected.calibrate(base.decision_function(X[:50]), proximity=near)
    )
    folds = CalibratedCLIPClassifier(base, method=method, cv=3).fit(X, y)
    assert folds.reference_features_.shape == (400, 20)
    assert_allclose(folds.predict_proba(X).sum(axis=1), 1)


def test_missing_side_inputs_raise():
    with pytest.raises(TypeError, match="GaussianNB has none"):
        CalibratedCLIPClassifier(GaussianNB(), method="dac").fit(IRIS_X, NAMES)
    words = [str(row) for row in IRIS_Y]
    read = FunctionTransformer(lambda rows: np.array(rows, dtype=float)[:, None])
    model = CalibratedCLIPClassifier(make_pipeline(read, GaussianNB()), method="density-ratio")
    with pytest.raises(TypeError, match="Encode the images"):
        model.fit(words, NAMES)


# --- held-out classes -------------------------------------------------------------------------------


class NearestMean(ClassifierMixin, BaseEstimator):
    """Logits by distance to fixed positions of classes, over-confident, and more so on unseen classes."""

    def fit(self, X, y):
        self.classes_ = self.trained_ = np.unique(y)
        return self

    def decision_function(self, X):
        positions = 3.0 * np.column_stack([np.cos(self.classes_ * 2.0), np.sin(self.classes_ * 2.0)])
        sharpness = 3.0 if np.isin(self.classes_, self.trained_).all() else 8.0
        logits = -((np.asarray(X)[:, None] - positions) ** 2).sum(axis=2) * sharpness
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X):
        decision = self.decision_function(X)
        return self.classes_[decision.argmax(axis=1) if decision.ndim == 2 else (decision > 0).astype(int)]

    def with_classes(self, labels):
        other = copy.copy(self)
        other.classes_ = np.unique(labels)
        return other


@pytest.fixture(scope="module")
def ring():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 60)
    X = 3.0 * np.column_stack([np.cos(y * 2.0), np.sin(y * 2.0)]) + rng.normal(size=(len(y), 2))
    return X, y


def test_held_out_classes_have_a_separate_calibrator(ring):
    X, y = ring
    splitter = LeaveClassesOut(n_splits=4, seen_size=0.25, random_state=3)
    model = CalibratedCLIPClassifier(NearestMean(), cv=splitter).fit(X, y)
    assert_allclose(model.unseen_calibrator_.temperature_ / model.calibrator_.temperature_, 8 / 3, rtol=0.25)

    unseen_logits, unseen_y = [], []
    for train, test in splitter.split(X, y):
        left_out = np.setdiff1d(y[test], y[train])
        rows = test[np.isin(y[test], left_out)]
        logits = np.full((len(rows), 12), -np.inf)
        logits[:, left_out] = (
            NearestMean().fit(X[train], y[train]).with_classes(left_out).decision_function(X[rows])
        )
        unseen_logits.append(logits)
        unseen_y.append(y[rows])
    beta = fit_temperature(np.concatenate(unseen_logits), np.concatenate(unseen_y))
    assert_allclose(model.unseen_calibrator_.temperature_, 1 / beta)


def test_each_prediction_uses_the_temperature_of_its_class(ring):
    X, y = ring
    splitter = LeaveClassesOut(n_splits=2, seen_size=0.2, random_state=0)
    model = CalibratedCLIPClassifier(NearestMean(), cv=splitter).fit(X[y < 8], y[y < 8])
    seen, unseen = model.calibrator_.temperature_, model.unseen_calibrator_.temperature_
    for classes in ([8, 9, 10, 11], [2, 3, 9, 10], [0, 1, 2]):
        other = model.with_classes(classes)
        logits = other.estimator_.decision_function(X)
        trained = np.isin(np.array(classes)[logits.argmax(axis=1)], np.arange(8))
        expected = softmax(logits / np.where(trained, seen, unseen)[:, None], axis=1)
        assert_allclose(other.predict_proba(X), expected)
        np.testing.assert_array_equal(other.predict(X), other.estimator_.predict(X))
    assert_allclose(model.predict_proba(X), softmax(model.estimator_.decision_function(X) / seen, axis=1))


def test_holding_out_classes_needs_support_for_other_classes(ring):
    with pytest.raises(ValueError, match="VectorScaling does not support"):
        CalibratedCLIPClassifier(NearestMean(), method="vector", cv="classes").fit(*ring)
    with pytest.raises(ValueError, match="GaussianNB has no with_classes"):
        CalibratedCLIPClassifier(GaussianNB(), cv="classes").fit(*ring)
    with pytest.raises(ValueError, match="holds out no rows of training classes"):
        CalibratedCLIPClassifier(NearestMean(), cv=LeaveClassesOut(random_state=0)).fit(*ring)


# --- CLIP classifiers ------------------------------------------------------------------------------------


def test_distance_aware_calibration_uses_text_features():
    X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    X = CLIPImageEncoder("mini", device="cpu").transform(X)
    clf = PromptTunedCLIPClassifier("mini", max_epochs=8, learning_rate=0.02, random_state=0, device="cpu")
    model = CalibratedCLIPClassifier(clf, method="dac", cv=2).fit(X, y)
    assert_allclose(model.predict_proba(X), model.estimator_.predict_proba(X), atol=1e-9)
    new = ["circle", "square", "star"]
    other = model.with_classes(new)
    expected = model.calibrator_.for_classes(
        sorted(new),
        text_features=other.estimator_.text_features_,
        zero_shot_features=ZeroShotCLIPClassifier("mini", device="cpu")
        .fit(X, y)
        .with_classes(new)
        .text_features_,
    )
    assert_allclose(other.calibrator_.scales_, expected.scales_, rtol=1e-5)
    np.testing.assert_array_equal(other.predict(X), other.estimator_.predict(X))
    assert not np.allclose(other.calibrator_.scales_, 1)


def test_images_are_encoded_once_for_logits_and_proximity(monkeypatch):
    X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    clf = ZeroShotCLIPClassifier("mini", device="cpu").fit(X, y)
    model = CalibratedCLIPClassifier(clf, method="density-ratio", cv="prefit").fit(X, y)
    on_embeddings = model.predict_proba(CLIPImageEncoder("mini", device="cpu").transform(X))
    encoded = []
    original = ZeroShotCLIPClassifier._predict_embeddings

    def counted(self, X):
        encoded.append(np.ndim(X))
        return original(self, X)

    monkeypatch.setattr(ZeroShotCLIPClassifier, "_predict_embeddings", counted)
    assert_allclose(model.predict_proba(X), on_embeddings, atol=1e-6)
    assert encoded.count(4) == 1  # the rest are embeddings


def test_proximity_of_images():
    X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    clf = ZeroShotCLIPClassifier("mini", device="cpu").fit(X, y)
    model = CalibratedCLIPClassifier(clf, method="density-ratio", cv="prefit").fit(X, y)
    assert_allclose(np.linalg.norm(model.reference_features_, axis=1), 1)
    assert_allclose(model.predict_proba(X[:5]).sum(axis=1), 1)


def test_probabilities_of_zero_do_not_dominate_the_temperature():
    X, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(30, random_state=0).fit(X[:300], y[:300])
    model = CalibratedCLIPClassifier(forest, cv="prefit").fit(X[300:900], y[300:900])
    # Some true classes have probability 0. A logit of -708 for these would give a temperature far above 1.
    assert (forest.predict_proba(X[300:900])[np.arange(600), y[300:900]] == 0).any()
    assert model.calibrator_.temperature_ < 1
    prob = model.predict_proba(X[900:])
    assert expected_calibration_error(y[900:], prob) < 0.1
    assert_allclose(np.exp(model.zero_logit_), np.exp(-np.log(30)) / 2)


def test_cross_validation_on_held_out_classes(ring):
    X, y = ring
    model = CalibratedCLIPClassifier(NearestMean(), cv=2)
    cv = LeaveClassesOut(n_splits=3, random_state=0)
    scores = cross_val_score(model, X, y, cv=cv, scoring=open_vocabulary(ece_scorer))
    for score, (train, test) in zip(scores, cv.split(X, y), strict=True):
        other = clone(model).fit(X[train], y[train]).with_classes(np.unique(y[test]))
        assert score == ece_scorer(other, X[test], y[test])


# --- invalid input and edge cases ----------------------------------------------------------------------


class CountingBayes(GaussianNB):
    fits = 0

    def fit(self, X, y, sample_weight=None):
        type(self).fits += 1
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("method", ["dac", VectorScaling(penalty=-1.0), HistogramBinning(n_bins=0)])
def test_invalid_methods_raise_before_fitting(method):
    CountingBayes.fits = 0
    with pytest.raises((TypeError, ValueError)):
        CalibratedCLIPClassifier(CountingBayes(), method=method).fit(IRIS_X, NAMES)
    assert CountingBayes.fits == 0


def test_one_versus_one_decisions_of_three_classes_raise():
    for machine in (SVC(decision_function_shape="ovo"), make_pipeline(SVC(decision_function_shape="ovo"))):
        with pytest.raises(ValueError, match="decision_function_shape='ovr'"):
            CalibratedCLIPClassifier(machine).fit(IRIS_X, NAMES)
    two = CalibratedCLIPClassifier(SVC(decision_function_shape="ovo")).fit(IRIS_X[:100], NAMES[:100])
    assert two.score(IRIS_X[:100], NAMES[:100]) == 1


@pytest.mark.parametrize("method", ["temperature", "bin-mean-shift", "density-ratio", "isotonic"])
def test_rows_of_weight_zero_are_ignored(method):
    X, y = make_classification(400, n_informative=4, n_classes=3, flip_y=0.3, random_state=0)
    base = LogisticRegression(max_iter=500).fit(X[:200], y[:200])
    X, y = X[200:], y[200:]
    weight = np.arange(200) % 2
    weighted = CalibratedCLIPClassifier(base, method=method, cv="prefit").fit(X, y, sample_weight=weight)
    without = CalibratedCLIPClassifier(base, method=method, cv="prefit").fit(X[1::2], y[1::2])
    assert_allclose(weighted.predict_proba(X), without.predict_proba(X), atol=1e-9)


def test_logits_of_zero_are_below_all_others_of_the_row():
    logits = class_logits(KNeighborsClassifier(2).fit(IRIS_X, IRIS_Y), IRIS_X[:3], np.arange(3))
    assert np.isnan(logits).any()
    filled = fill_zeros(
        np.array([[np.log(0.99), np.log(0.01), np.nan], [0.0, np.nan, -np.inf]]), np.log(0.15)
    )
    assert_allclose(filled, [[np.log(0.99), np.log(0.01), np.log(0.005)], [0, np.log(0.15), -np.inf]])


def test_logits_far_below_zero():
    model = LinearLogits().fit(None, None)
    logits = random_logits(300, 3)
    y = drawn_from(logits * 0.5)
    near = CalibratedCLIPClassifier(model, cv="prefit").fit(logits, y)
    far = CalibratedCLIPClassifier(model, cv="prefit").fit(logits - 5000, y)
    assert_allclose(far.calibrator_.temperature_, near.calibrator_.temperature_, rtol=1e-6)


def test_error_messages_of_prefit():
    base = GaussianNB().fit(IRIS_X, NAMES)
    with pytest.raises(NotFittedError, match=r"FrozenEstimator\(estimator\)"):
        clone(CalibratedCLIPClassifier(base, cv="prefit")).fit(IRIS_X, NAMES)
    with pytest.raises(TypeError, match="does not accept \\['nonsense'\\]"):
        CalibratedCLIPClassifier(base, cv="prefit").fit(IRIS_X, NAMES, nonsense=3)
    with pytest.raises(ValueError, match="FrozenEstimator does not support"):
        CalibratedCLIPClassifier(FrozenEstimator(base), cv="classes").fit(IRIS_X, NAMES)


def test_feature_names_are_removed_by_a_refit():
    pandas = pytest.importorskip("pandas")
    model = CalibratedCLIPClassifier(GaussianNB(), cv=2)
    model.fit(pandas.DataFrame(IRIS_X, columns=list("abcd")), NAMES)
    assert model.feature_names_in_.tolist() == list("abcd")
    assert not hasattr(model.fit(IRIS_X, NAMES), "feature_names_in_")
