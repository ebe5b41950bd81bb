"""Input of CalibratedCLIPClassifier: groups, weights of zero, data frames, tensors and string dtypes."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from framed import Framed
from nearest_text import NAMES as WORDS
from nearest_text import TEXTS, NearestText
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris, make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    BaseCrossValidator,
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from clipcal.calibration import CALIBRATORS, CalibratedCLIPClassifier, TemperatureScaling
from clipcal.metrics import ece_scorer
from clipcal.model_selection import LeaveClassesOut, open_vocabulary

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
GROUPS = np.arange(150) % 6
LOGISTIC = LogisticRegression(max_iter=500)
pytestmark = pytest.mark.filterwarnings("ignore:The data do not determine")


def wrapped(base=LOGISTIC, **options):
    return CalibratedCLIPClassifier(base, **{"cv": 3, **options})


# --- groups -----------------------------------------------------------------------------------------


class EverySecondGroup(BaseCrossValidator):
    """A custom splitter without metadata requests."""

    def split(self, X, y=None, groups=None):
        for odd in (0, 1):
            test = np.unique(groups, return_inverse=True)[1] % 2 == odd
            yield np.flatnonzero(~test), np.flatnonzero(test)

    def get_n_splits(self, X=None, y=None, groups=None):
        return 2


@pytest.mark.parametrize(
    "cv", [GroupKFold(3), LeaveOneGroupOut(), StratifiedGroupKFold(2), EverySecondGroup()]
)
def test_groups_are_passed_to_the_splitter(cv):
    by_hand = wrapped(cv=list(cv.split(X, NAMES, GROUPS))).fit(X, NAMES)
    for groups in (GROUPS, GROUPS.tolist(), pd.Series(GROUPS), torch.tensor(GROUPS), GROUPS.astype(str)):
        model = wrapped(cv=cv).fit(X, NAMES, groups=groups)
        assert model.calibrator_.temperature_ == by_hand.calibrator_.temperature_
    in_pipeline = make_pipeline(FunctionTransformer(), wrapped(cv=cv))
    in_pipeline.fit(X, NAMES, calibratedclipclassifier__groups=GROUPS)
    assert in_pipeline[-1].calibrator_.temperature_ == by_hand.calibrator_.temperature_


def test_groups_are_passed_to_an_estimator_that_uses_them():
    class Grouped(GaussianNB):
        def fit(self, X, y, sample_weight=None, groups=None):
            self.n_groups_ = len(np.unique(groups))
            return super().fit(X, y, sample_weight)

    model = wrapped(Grouped(), cv=GroupKFold(3)).fit(X, NAMES, groups=GROUPS)
    assert model.estimator_.n_groups_ == 6
    assert wrapped(Grouped()).fit(X, NAMES, groups=GROUPS).estimator_.n_groups_ == 6
    search = GridSearchCV(LOGISTIC, {"C": [0.1, 1.0]}, cv=GroupKFold(2))
    for cv in (3, GroupKFold(3)):
        model = wrapped(search, cv=cv).fit(X, NAMES, groups=GROUPS)
        assert model.estimator_.n_splits_ == 2
    nested = wrapped(wrapped(cv=GroupKFold(2)), cv=GroupKFold(3)).fit(X, NAMES, groups=GROUPS)
    assert nested.score(X, NAMES) > 0.9
    plain = {"params": {"groups": GROUPS}}
    assert (cross_val_score(wrapped(cv=GroupKFold(2)), X, NAMES, cv=3, **plain) > 0.9).all()


@pytest.mark.parametrize("cv", [3, KFold(3), "classes", LeaveClassesOut(seen_size=0.2)])
def test_unused_groups_raise(cv):
    with pytest.raises(TypeError, match=r"Neither cv=.* nor .*fit uses groups. Pass a splitter"):
        wrapped(NearestText() if cv in ("classes",) else LOGISTIC, cv=cv).fit(X, NAMES, groups=GROUPS)
    with pytest.raises(ValueError, match=r"cv=GroupKFold.* splits by groups; pass them: fit\(X, y, groups"):
        wrapped(cv=GroupKFold(3)).fit(X, NAMES)
    with pytest.raises(TypeError, match=r"does not accept \['groups'\]"):
        wrapped(clone(LOGISTIC).fit(X, NAMES), cv="prefit").fit(X, NAMES, groups=GROUPS)
    assert wrapped(cv=list(KFold(3, shuffle=True, random_state=0).split(X))).fit(X, NAMES, groups=None)


def test_groups_without_rows_of_weight_zero():
    weight = np.where(np.arange(150) % 10 == 9, 0.0, 1.0)
    left = weight > 0
    groups = np.where(left, GROUPS, 99).astype(object)
    groups[9] = None
    expected = wrapped(cv=LeaveOneGroupOut()).fit(X[left], NAMES[left], groups=GROUPS[left])
    found = wrapped(cv=LeaveOneGroupOut()).fit(X, NAMES, sample_weight=weight, groups=groups)
    assert_allclose(found.predict_proba(X), expected.predict_proba(X))


def test_groups_with_metadata_routing():
    plain = wrapped(cv=GroupKFold(3)).fit(X, NAMES, groups=GROUPS)
    weight = np.where(np.arange(150) % 10 == 9, 0.0, 1.0)
    weighted = wrapped(cv=GroupKFold(3)).fit(X, NAMES, sample_weight=weight, groups=GROUPS)
    with config_context(enable_metadata_routing=True):
        routed = wrapped(cv=GroupKFold(3)).fit(X, NAMES, groups=GROUPS)
        assert_array_equal(routed.predict_proba(X), plain.predict_proba(X))
        pipeline = make_pipeline(FunctionTransformer(), wrapped(cv=GroupKFold(3))).fit(
            X, NAMES, groups=GROUPS
        )
        assert_array_equal(pipeline.predict_proba(X), plain.predict_proba(X))
        base = clone(LOGISTIC).set_fit_request(sample_weight=True)
        routed = wrapped(base, cv=GroupKFold(3)).fit(X, NAMES, sample_weight=weight, groups=GROUPS)
        assert_array_equal(routed.predict_proba(X), weighted.predict_proba(X))


# --- rows of weight zero ----------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [None, np.nan, "another iris"])
@pytest.mark.parametrize("method", ["temperature", "density-ratio", "vector"])
@pytest.mark.parametrize("cv", ["prefit", 3, "given"])
def test_rows_of_weight_zero_are_ignored(cv, method, missing):
    rng = np.random.default_rng(0)
    data = X + 2 * rng.normal(size=X.shape)
    weight = np.where(np.arange(150) % 7 == 3, 0.0, 1.0 + np.arange(150) % 3)
    left = np.flatnonzero(weight)
    broken, labels = data.copy(), NAMES.astype(object)
    broken[weight == 0], labels[weight == 0] = np.nan, missing
    splits = of_the_rest = cv
    if cv == "given":
        third = np.arange(150) % 3
        splits = [(third != k, third == k) for k in range(3)]
        of_the_rest = [(train[left], test[left]) for train, test in splits]
    base = FrozenEstimator(clone(LOGISTIC).fit(data[left], NAMES[left])) if cv == "prefit" else LOGISTIC
    expected = wrapped(base, method=method, cv=of_the_rest).fit(data[left], NAMES[left], weight[left])
    for given in (weight, weight.tolist(), torch.tensor(weight)):
        found = wrapped(base, method=method, cv=splits).fit(broken, labels, given)
        assert found.classes_.tolist() == ["setosa", "versicolor", "virginica"]
        assert_array_equal(found.predict_proba(data), expected.predict_proba(data))
    assert found.score(broken, labels, weight) == expected.score(data[left], NAMES[left], weight[left])


@pytest.mark.filterwarnings("ignore:NearestText.fit does not accept")
def test_labels_of_weight_zero_do_not_limit_the_number_of_folds():
    labels, weight = NAMES.copy(), np.ones(150)
    labels[0], weight[0] = "other", 0.0
    model = wrapped(cv=5).fit(X, labels, sample_weight=weight)
    expected = wrapped(cv=5).fit(X[1:], NAMES[1:])
    assert model.calibrator_.temperature_ == expected.calibrator_.temperature_
    with pytest.raises(ValueError, match="at least one"):
        wrapped().fit(X, NAMES, sample_weight=np.zeros(150))
    positions = np.random.default_rng(0).permutation(np.repeat(WORDS, 12))
    points = np.array([TEXTS[word] for word in positions])
    points += 0.3 * np.random.default_rng(1).normal(size=points.shape)
    weight = (positions != "fox").astype(float)
    left = weight > 0
    by_class = wrapped(NearestText(), cv="classes").fit(points, positions, sample_weight=weight)
    assert by_class.calibrator_.temperature_ == (
        wrapped(NearestText(), cv="classes").fit(points[left], positions[left]).calibrator_.temperature_
    )


# --- data frames and tensors ------------------------------------------------------------------


@pytest.mark.parametrize("frame", ["pandas", "text", "table"])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("target", [NAMES, Y * 10 + 3, Y == 1], ids=["text", "numbers", "two"])
def test_columns_of_data_frames_are_selected_by_name(frame, logits, target):
    class Plain(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.model_ = clone(LOGISTIC).fit(X, y)
            self.classes_ = self.model_.classes_
            return self

        def predict_proba(self, X):
            return self.model_.predict_proba(X)

    expected = wrapped(Plain()).fit(X, target)
    for framed in (wrapped(Framed(frame, logits=logits)), wrapped(Framed(frame, logits=logits), cv="prefit")):
        if framed.cv == "prefit":
            framed.estimator.fit(X, target)
            found = framed.fit(X, target)
            assert found.score(X, target) == expected.score(X, target)
        else:
            found = framed.fit(X, target)
            assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-9)
            assert_allclose(ece_scorer(found, X, target), ece_scorer(expected, X, target), atol=1e-9)
    with pytest.raises(ValueError, match="returned columns named"):
        names = [*np.unique(target).tolist()[1:], "else"]
        wrapped(Framed(frame, logits=logits, names=names)).fit(X, target)


def test_features_are_selected_by_name_like_in_the_classifier():
    names = list("abcd")
    frame = pd.DataFrame(X + np.random.default_rng(0).normal(size=X.shape), columns=names)
    model = wrapped(_ByName(LOGISTIC, names), method="density-ratio").fit(frame, NAMES)
    assert_allclose(model.predict_proba(frame[list("dbca")]), model.predict_proba(frame))


class _ByName(ClassifierMixin, BaseEstimator):
    def __init__(self, base, names):
        self.base = base
        self.names = names

    def fit(self, X, y):
        self.feature_names_in_ = np.array(self.names)
        self.model_ = clone(self.base).fit(X[self.names].to_numpy(), y)
        self.classes_ = self.model_.classes_
        return self

    def decision_function(self, X):
        return self.model_.decision_function(X[self.names].to_numpy())


class Tensors(GaussianNB):
    def predict_proba(self, X):
        return torch.tensor(super().predict_proba(X), requires_grad=True)


def test_tensors_are_accepted():
    expected = wrapped(GaussianNB()).fit(X, Y)
    found = wrapped(Tensors()).fit(X, torch.tensor(Y), torch.ones(150))
    assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-9)
    assert found.score(X, torch.tensor(Y)) == expected.score(X, Y)


def test_labels_of_string_dtype():
    wide = NAMES.astype(np.dtypes.StringDType())
    expected = wrapped().fit(X, NAMES)
    found = wrapped().fit(X, wide)
    assert_array_equal(found.predict(X), expected.predict(X))
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    assert found.score(X, wide) == expected.score(X, NAMES)
    points = np.array([TEXTS[word] for word in WORDS] * 9)
    points += 0.3 * np.random.default_rng(1).normal(size=points.shape)
    words = np.array(WORDS * 9, dtype=np.dtypes.StringDType())
    model = wrapped(NearestText(), cv="classes").fit(points, words)
    scorer = open_vocabulary({"ece": ece_scorer, "nll": "neg_log_loss", "hits": "accuracy"})
    assert scorer(model, points, words) == scorer(model, points, np.array(WORDS * 9))


# --- probabilities instead of logits ----------------------------------------------------------------


class Confused(GaussianNB):
    """A classifier whose ``decision_function`` returns probabilities."""

    def decision_function(self, X):
        prob = self.predict_proba(X)
        return prob[:, 1] if prob.shape[1] == 2 else prob


@pytest.mark.parametrize("method", sorted(set(CALIBRATORS) - {"dac", "sals"}))
@pytest.mark.parametrize("cv", [2, "prefit"])
def test_warns_of_probabilities_from_decision_function(method, cv):
    rng = np.random.default_rng(0)
    data, target = make_classification(
        300, n_informative=4, n_classes=3, flip_y=0.2, random_state=rng.integers(9)
    )
    for y in (target, (target > 0).astype(int)):
        model = wrapped(Confused(), method=method, cv=cv)
        if cv == "prefit":
            model.estimator.fit(data, y)
        with pytest.warns(UserWarning, match="the result of Confused.decision_function lies in") as caught:
            model.fit(data, y)
        warned = [w for w in caught if "as probabilities do" in str(w.message)]
        assert [w.filename for w in warned] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.predict_proba(data), model.decision_function(data), model.predict(data)
            # Logarithms of probabilities are logits, and predict_proba alone is supported.
            base = GaussianNB().fit(data, y)
            wrapped(base, method=method, cv="prefit").fit(data, y).predict_proba(data[:1])
            wrapped(FrozenEstimator(clone(LOGISTIC).fit(data, y)), method=method).fit(data, y)


@pytest.mark.parametrize("cv", [4, "prefit"])
def test_few_log_odds_in_0_1_do_not_warn(cv):
    # The two rows of a fold may lie in [0, 1], but not all rows.
    data = np.array([0.1, 0.2, 0.3, 0.4, -0.2, 0.9, 0.3, 0.8])[:, None]
    target = np.array([0, 1] * 4)
    base = clone(LOGISTIC)
    model = wrapped(base.fit(data, target) if cv == "prefit" else base, cv=cv)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Every")
        model.fit(data, target).predict_proba(data[5:6])


def test_one_dimensional_predictions():
    class OneColumn(GaussianNB):
        def predict_proba(self, X):
            return super().predict_proba(X)[:, 1]

    expected = wrapped(GaussianNB()).fit(X, Y > 0).predict_proba(X)
    assert_allclose(wrapped(OneColumn()).fit(X, Y > 0).predict_proba(X), expected, atol=1e-9)
    odds = np.random.default_rng(0).normal(size=200) * 3
    y = np.random.default_rng(1).uniform(size=200) < expit(odds / 2)

    class Odds(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.array([False, True])
            return self

        def decision_function(self, X):
            return np.asarray(X)

    model = CalibratedCLIPClassifier(Odds().fit(odds, y), cv="prefit").fit(odds, y)
    scaling = TemperatureScaling().fit(odds, y)
    assert_allclose(model.predict_proba(odds), scaling.calibrate(odds))
    assert_allclose(model.decision_function(odds), scaling.transform(odds))
