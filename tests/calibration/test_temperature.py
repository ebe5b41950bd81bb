"""The temperature of logits, and the meta-estimator that fits one on held-out rows."""

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris, make_classification
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

from clipcal.calibration import TemperatureScaling, fit_temperature

IRIS_X, IRIS_Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[IRIS_Y]


def drawn_from(logits, seed=0):
    """Labels for which `logits` are the truth."""
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return (logits + noise).argmax(axis=1)


def random_logits(n=400, n_classes=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_classes)) * 2


def log_loss_at(beta, logits, y, weight=None):
    return -np.average(log_softmax(beta * logits, axis=1)[np.arange(len(y)), y], weights=weight)


class LinearLogits(ClassifierMixin, BaseEstimator):
    """A fitted classifier that returns its input as logits; it has classes to swap and keeps lists."""

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


# --- the solver -------------------------------------------------------------------------------------


def test_temperature_by_hand():
    # Three rows in four are right at the same margin, so the best probability is 3/4.
    beta = fit_temperature([[0.0, 5.0]] * 4, [1, 1, 1, 0])
    assert_allclose(beta * 5, np.log(3), rtol=1e-12)
    assert_allclose(fit_temperature([[0.0, 5.0]] * 2, [1, 0], [3, 1]), beta, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_minimises_the_log_loss(weighted):
    logits = random_logits()
    y = drawn_from(0.4 * logits)
    weight = np.random.default_rng(1).random(len(y)) if weighted else None
    beta = fit_temperature(logits, y, weight)
    best = minimize_scalar(
        lambda u: log_loss_at(np.exp(u), logits, y, weight), bounds=(-5, 5), method="bounded"
    )
    assert_allclose(beta, np.exp(best.x), rtol=1e-4)
    assert log_loss_at(beta, logits, y, weight) <= best.fun + 1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.floats(-6, 6), st.integers(2, 8))
def test_scale_shift_and_repetition(seed, log_factor, n_classes):
    logits = random_logits(60, n_classes, seed)
    y = drawn_from(logits * 0.5, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beta = fit_temperature(logits, y)
        assert_allclose(fit_temperature(logits * 10**log_factor, y) * 10**log_factor, beta, rtol=1e-8)
        shift = np.random.default_rng(seed).normal(size=(60, 1)) * 100
        assert_allclose(fit_temperature(logits + shift, y), beta, rtol=1e-8)
        assert_allclose(fit_temperature(np.tile(logits, (3, 1)), np.tile(y, 3)), beta, rtol=1e-8)
        weight = np.random.default_rng(seed).integers(1, 4, 60)
        weighted = fit_temperature(logits, y, weight)
        assert_allclose(weighted, fit_temperature(logits.repeat(weight, axis=0), y.repeat(weight)), rtol=1e-8)
    assert log_loss_at(beta, logits, y) <= log_loss_at(1.0, logits, y) + 1e-12


def test_agrees_with_scikit_learn():
    from sklearn.calibration import CalibratedClassifierCV

    logits = random_logits()
    y = drawn_from(0.4 * logits)
    frozen = FrozenEstimator(LinearLogits(range(5)).fit(logits, y))
    theirs = CalibratedClassifierCV(frozen, method="temperature", cv=3, ensemble=False).fit(logits, y)
    ours = TemperatureScaling(frozen).fit(logits, y)
    assert_allclose(ours.predict_proba(logits), theirs.predict_proba(logits), atol=1e-6)


@pytest.mark.parametrize(
    ("logits", "y", "reason"),
    [
        ([[3, 0], [0, 2]], [0, 1], "classified correctly"),
        ([[3, 0], [0, 2]], [1, 0], "no higher than the average"),
        ([[1, 1], [1, 1]], [1, 0], "do not determine"),
    ],
)
def test_says_so_when_there_is_no_optimum(logits, y, reason):
    with pytest.warns(UserWarning, match=reason):
        assert fit_temperature(logits, y) == 1.0


def test_excluded_classes_have_no_say():
    logits = random_logits(200, 3)
    y = drawn_from(logits)
    padded = np.column_stack([logits, np.full(200, -np.inf)])
    assert_allclose(fit_temperature(padded, y), fit_temperature(logits, y), rtol=1e-10)
    with pytest.raises(ValueError, match="-inf in 1 rows"):
        fit_temperature(padded, np.append(y[:-1], 3))


@pytest.mark.parametrize(
    ("logits", "y", "weight", "message"),
    [
        ([[np.nan, 0]], [0], None, "NaN"),
        ([[1, 0]], [2], None, "searchsorted"),
        ([[1, 0]], ["a"], None, "searchsorted"),
        ([[1, 0]], [0], [0], "zero"),
        ([[1, 0], [0, 1]], [0], None, "inconsistent"),
        (np.empty((0, 2)), [], None, "0 sample"),
    ],
)
def test_solver_refuses(logits, y, weight, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, y, weight)


# --- the meta-estimator -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The data do not determine")
@parametrize_with_checks([TemperatureScaling(LogisticRegression())])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("alphabet", [[0, 1, 2], [10, 20, 30], [3, 1, 2], ["c", "a", "b"], [7.0, -1.0, 0.0]])
def test_names_of_labels_do_not_matter(alphabet):
    logits = random_logits(300, 3)
    y = drawn_from(logits * 0.5)
    labels = np.asarray(alphabet)
    model = TemperatureScaling(LinearLogits(labels).fit(None, None), cv="prefit").fit(list(logits), labels[y])
    assert_allclose(model.temperature_, 1 / fit_temperature(logits, y))
    assert list(model.classes_) == sorted(alphabet)
    order = np.argsort(labels)
    assert_allclose(model.predict_proba(logits), softmax(logits / model.temperature_, axis=1)[:, order])
    np.testing.assert_array_equal(model.predict(logits), labels[logits.argmax(axis=1)])


@pytest.mark.parametrize("dtype", [int, bool, str])
def test_two_classes(dtype):
    X, y = make_classification(300, n_informative=3, flip_y=0.2, random_state=0)
    y = y.astype(dtype)
    model = TemperatureScaling(LogisticRegression(C=100)).fit(X, y)
    decision = model.decision_function(X)
    assert decision.shape == (300,)
    assert_allclose(decision, model.estimator_.decision_function(X) / model.temperature_)
    assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-decision)))
    assert_allclose(model.predict_log_proba(X), np.log(model.predict_proba(X)))
    np.testing.assert_array_equal(model.predict(X), model.estimator_.predict(X))


@pytest.mark.parametrize("cv", [5, None, 3, StratifiedKFold(4, shuffle=True, random_state=0)])
def test_temperature_comes_from_held_out_rows(cv):
    base = make_pipeline(StandardScaler(), LogisticRegression(C=1e4, max_iter=1000))
    model = TemperatureScaling(base, cv=cv).fit(IRIS_X, NAMES)
    folds = {None: 5}.get(cv, cv) if not hasattr(cv, "split") else cv
    splitter = StratifiedKFold(folds) if isinstance(folds, int) else folds
    logits = np.empty((150, 3))
    for train, test in splitter.split(IRIS_X, NAMES):
        logits[test] = clone(base).fit(IRIS_X[train], NAMES[train]).decision_function(IRIS_X[test])
    assert_allclose(model.temperature_, 1 / fit_temperature(logits, IRIS_Y))
    assert model.temperature_ > 1 and model.identified_
    assert_allclose(model.estimator_.predict_proba(IRIS_X), base.fit(IRIS_X, NAMES).predict_proba(IRIS_X))
    assert model.score(IRIS_X, NAMES) == base.score(IRIS_X, NAMES)


def test_prefit_and_frozen_leave_the_estimator_alone():
    base = LogisticRegression(max_iter=300).fit(IRIS_X[::2], NAMES[::2])
    coefficients = base.coef_.copy()
    prefit = TemperatureScaling(base, cv="prefit").fit(IRIS_X[1::2], NAMES[1::2])
    frozen = TemperatureScaling(FrozenEstimator(base)).fit(IRIS_X[1::2], NAMES[1::2])
    assert prefit.estimator_ is base
    assert (
        prefit.temperature_
        == frozen.temperature_
        == clone(frozen).fit(IRIS_X[1::2], NAMES[1::2]).temperature_
    )
    np.testing.assert_array_equal(base.coef_, coefficients)
    assert prefit.n_features_in_ == frozen.n_features_in_ == 4


def test_prefit_needs_neither_every_class_nor_several_rows_of_one():
    base = LogisticRegression(max_iter=300).fit(IRIS_X, NAMES)
    rows = [60, 70, 77, 83, 110, 133]
    model = TemperatureScaling(base, cv="prefit").fit(IRIS_X[rows], NAMES[rows])
    assert model.predict_proba(IRIS_X).shape == (150, 3)
    with pytest.raises(ValueError, match="does not know: \\['owl'\\]"):
        TemperatureScaling(base, cv="prefit").fit(IRIS_X[:2], ["owl", "setosa"])
    with pytest.raises(NotFittedError, match="cv=5"):
        TemperatureScaling(LogisticRegression(), cv="prefit").fit(IRIS_X, NAMES)


def test_folds_shrink_to_the_smallest_class():
    rows = np.r_[0:20, 50:70, 100:102]
    model = TemperatureScaling(GaussianNB(), cv=5).fit(IRIS_X[rows], NAMES[rows])
    expected = TemperatureScaling(GaussianNB(), cv=2).fit(IRIS_X[rows], NAMES[rows])
    assert model.temperature_ == expected.temperature_
    with pytest.raises(ValueError, match=r"'virginica' has only one sample.*prefit"):
        TemperatureScaling(GaussianNB()).fit(IRIS_X[rows[:-1]], NAMES[rows[:-1]])


@pytest.mark.parametrize("base", [GaussianNB(), DecisionTreeClassifier(max_depth=2, random_state=0)])
def test_folds_that_lack_a_class_align(base):
    order = np.random.default_rng(0).permutation(150)
    X, y = IRIS_X[order], NAMES[order]
    without = np.flatnonzero(y != "setosa")
    splits = [(without[::2], np.arange(150)), (np.arange(75), np.arange(75, 150))]
    model = TemperatureScaling(base, cv=splits).fit(X, y)
    first = clone(base).fit(X[without[::2]], y[without[::2]])
    second = clone(base).fit(X[:75], y[:75])
    tiny = np.finfo(float).tiny
    logits = np.full((len(without) + 75, 3), -np.inf)
    logits[: len(without), 1:] = np.log(np.maximum(first.predict_proba(X[without]), tiny))
    logits[len(without) :] = np.log(np.maximum(second.predict_proba(X[75:]), tiny))
    truth = np.searchsorted(model.classes_, np.append(y[without], y[75:]))
    assert_allclose(model.temperature_, 1 / fit_temperature(logits, truth))
    with pytest.raises(ValueError, match="No row has its class"):
        TemperatureScaling(base, cv=KFold(3)).fit(IRIS_X, NAMES)


def test_probabilities_of_zero_stay_finite():
    model = TemperatureScaling(KNeighborsClassifier(3)).fit(IRIS_X, NAMES)
    prob = model.predict_proba(IRIS_X)
    assert np.isfinite(prob).all()
    assert_allclose(prob.sum(axis=1), 1)


def test_one_versus_one_decisions_are_refused():
    X, y = make_classification(200, n_classes=4, n_informative=4, random_state=0)
    with pytest.raises(ValueError, match="decision_function_shape='ovr'"):
        TemperatureScaling(SVC(decision_function_shape="ovo")).fit(X, y)


def test_rows_may_be_anything_that_can_be_indexed():
    words = [f"{a:.1f} {b:.1f} {c:.1f} {d:.1f}" for a, b, c, d in IRIS_X]
    read = FunctionTransformer(lambda rows: np.array([row.split() for row in rows], dtype=float))
    model = TemperatureScaling(make_pipeline(read, LogisticRegression(max_iter=500))).fit(words, list(NAMES))
    plain = TemperatureScaling(LogisticRegression(max_iter=500)).fit(IRIS_X, NAMES)
    assert_allclose(model.predict_proba(words), plain.predict_proba(IRIS_X))


def test_other_classes_keep_the_temperature():
    logits = random_logits(300, 5)
    y = drawn_from(logits[:, :3] * 0.5)
    model = TemperatureScaling(LinearLogits().fit(None, None), cv="prefit").fit(logits, y)
    other = model.with_classes(["ant", "bee"])
    assert other.temperature_ == model.temperature_
    assert other.classes_.tolist() == ["ant", "bee"] and model.classes_.tolist() == [0, 1, 2]
    assert set(other.predict(logits)) == {"ant", "bee"}
    expected = softmax(logits[:, :2] / model.temperature_, axis=1)
    assert_allclose(other.predict_proba(logits), expected)
    assert model.predict_proba(logits).shape == (300, 3)
    assert not hasattr(TemperatureScaling(LogisticRegression()), "with_classes")


def test_weights_reach_estimator_and_temperature():
    weight = np.random.default_rng(0).integers(1, 4, 150)
    splits = list(StratifiedKFold(3).split(IRIS_X, IRIS_Y))
    base = GaussianNB()
    model = TemperatureScaling(base, cv=splits).fit(IRIS_X, IRIS_Y, sample_weight=weight)
    assert_allclose(model.estimator_.theta_, base.fit(IRIS_X, IRIS_Y, weight).theta_)
    assert model.temperature_ != TemperatureScaling(base, cv=splits).fit(IRIS_X, IRIS_Y).temperature_
    with pytest.warns(UserWarning, match="temperature only"):
        TemperatureScaling(KNeighborsClassifier()).fit(IRIS_X, IRIS_Y, sample_weight=weight)


def test_metadata_routing():
    weight = np.random.default_rng(0).random(150) + 0.1
    plain = TemperatureScaling(GaussianNB()).fit(IRIS_X, IRIS_Y, sample_weight=weight)
    with config_context(enable_metadata_routing=True):
        base = GaussianNB().set_fit_request(sample_weight=True)
        routed = TemperatureScaling(base).set_fit_request(sample_weight=True)
        assert routed.fit(IRIS_X, IRIS_Y, sample_weight=weight).temperature_ == plain.temperature_
        scores = cross_val_score(
            routed.set_score_request(sample_weight=False), IRIS_X, IRIS_Y, params={"sample_weight": weight}
        )
        assert (scores > 0.8).all()
        prefit = TemperatureScaling(GaussianNB().fit(IRIS_X, IRIS_Y), cv="prefit")
        assert prefit.fit(IRIS_X, IRIS_Y, sample_weight=weight).identified_
        with pytest.raises(ValueError, match="set_fit_request"):
            TemperatureScaling(GaussianNB()).fit(IRIS_X, IRIS_Y, sample_weight=weight)


def test_unidentified_temperature_is_recorded():
    X = np.r_[np.full(5, -9.0), np.full(5, 9.0)].reshape(-1, 1)
    with pytest.warns(UserWarning, match="classified correctly"):
        model = TemperatureScaling(LogisticRegression()).fit(X, [0] * 5 + [1] * 5)
    assert model.temperature_ == 1 and not model.identified_


def test_grid_search_and_pickle():
    grid = {"estimator__C": [0.1, 10.0]}
    search = GridSearchCV(
        TemperatureScaling(LogisticRegression(max_iter=500)), grid, scoring="neg_log_loss", cv=3
    )
    search.fit(IRIS_X, NAMES)
    restored = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(restored.predict_proba(IRIS_X), search.predict_proba(IRIS_X))


def test_a_failed_refit_changes_nothing():
    model = TemperatureScaling(GaussianNB(), cv=2).fit(IRIS_X, NAMES)
    before = model.predict_proba(IRIS_X[:3])
    with pytest.raises(ValueError, match="only one sample"):
        model.fit(IRIS_X[:20], ["a"] + ["b"] * 19)
    assert_allclose(model.predict_proba(IRIS_X[:3]), before)
