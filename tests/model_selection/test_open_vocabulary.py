"""Scorers on the classes of the fold, with a test classifier whose text features are points in the plane."""

import copy
import pickle

import numpy as np
import pytest
from nearest_text import NAMES, TEXTS, NearestText
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipcal import LeaveClassesOut, ece_scorer, expected_calibration_error, open_vocabulary
from clipcal.metrics import make_calibration_scorer, maximum_calibration_error


@pytest.fixture(autouse=True)
def calls():
    NearestText.calls.update(with_classes=0, predict_proba=0)
    return NearestText.calls


rng = np.random.RandomState(0)
Y = rng.permutation(np.repeat(NAMES, 12))
X = np.array([TEXTS[name] for name in Y]) + 3 + 0.7 * rng.standard_normal((len(Y), 2))
KNOWN = np.isin(Y, ["ant", "cat", "dog"])
FITTED = NearestText().fit(X[KNOWN], Y[KNOWN])
CV = LeaveClassesOut(3, random_state=0)


def expected(rows, names, metric=expected_calibration_error, clf=FITTED, **kwargs):
    other = clf.with_classes(list(names))
    return metric(Y[rows], other.predict_proba(X[rows]), labels=other.classes_, **kwargs)


@pytest.mark.parametrize(
    ("classes", "rows", "names"),
    [
        ("fold", np.ones(len(Y), bool), NAMES),
        ("unseen", ~KNOWN, ["bee", "eel", "fox"]),
        ("seen", KNOWN, ["ant", "cat", "dog"]),
    ],
)
def test_score_agrees_with_that_of_a_copy_for_these_classes(classes, rows, names):
    before = copy.deepcopy(vars(FITTED))
    for target in (Y, list(Y), Y.astype(object)):
        assert open_vocabulary(ece_scorer, classes=classes)(FITTED, X, target) == -expected(rows, names)
    nll = open_vocabulary("neg_log_loss", classes=classes)(FITTED, list(X), Y)
    assert_allclose(nll, -expected(rows, names, log_loss))
    assert vars(FITTED).keys() == before.keys()
    assert_array_equal(FITTED.classes_, before["classes_"])


def test_only_classes_in_y_are_candidates():
    rows = np.isin(Y, ["ant", "bee", "cat"])
    assert open_vocabulary(ece_scorer)(FITTED, X[rows], Y[rows]) == -expected(rows, ["ant", "bee", "cat"])
    seen = np.isin(Y, ["ant", "cat"])
    score = open_vocabulary(ece_scorer, classes="seen")(FITTED, X[rows], Y[rows])
    assert_allclose(score, -expected(seen, ["ant", "cat"]))


def test_unseen_classes_are_wrong_without_open_vocabulary():
    assert open_vocabulary("accuracy", classes="unseen")(FITTED, X, Y) > 0.5
    assert make_scorer(accuracy_score)(FITTED, X[~KNOWN], Y[~KNOWN]) == 0


def test_no_copy_is_made_for_the_classes_of_the_estimator(calls):
    y = Y[KNOWN]
    model = GaussianNB().fit(X[KNOWN], y)
    assert open_vocabulary(ece_scorer)(model, X[KNOWN], y) == ece_scorer(model, X[KNOWN], y)
    open_vocabulary(ece_scorer)(FITTED, X[KNOWN], y)
    assert calls["with_classes"] == 0


def test_class_names_of_numeric_labels():
    numbers = np.array([NAMES.index(name) * 10 for name in Y])
    names = {10 * number: name for number, name in enumerate(NAMES)}
    clf = NearestText(class_names=names).fit(X[KNOWN], numbers[KNOWN])
    for classes in ("fold", "unseen", "seen"):
        scorer = open_vocabulary("neg_log_loss", classes=classes)
        assert_allclose(scorer(clf, X, numbers), scorer(FITTED, X, Y))


# Several scorers


def test_several_scorers_share_one_copy_and_one_prediction(calls):
    mce = make_calibration_scorer(maximum_calibration_error)
    scorer = open_vocabulary({"ece": ece_scorer, "mce": mce, "nll": "neg_log_loss"}, classes="unseen")
    scores = scorer(FITTED, X, Y)
    assert calls == {"with_classes": 1, "predict_proba": 1}
    alone = {name: open_vocabulary(one, classes="unseen") for name, one in scorer._given.items()}
    assert scores == {name: one(FITTED, X, Y) for name, one in alone.items()}
    by_name = open_vocabulary(["accuracy", "neg_log_loss"], classes="unseen")(FITTED, X, Y)
    assert by_name["neg_log_loss"] == scores["nll"]


def test_cross_validation_and_search():
    by_hand = []
    for train, test in CV.split(X, Y):
        clf = NearestText().fit(X[train], Y[train])
        by_hand.append(-expected(test, np.unique(Y[test]).tolist(), clf=clf))
    scorer = open_vocabulary(ece_scorer)
    scores = cross_val_score(NearestText(), X, Y, cv=CV, scoring=scorer, error_score="raise")
    assert_allclose(scores, by_hand, rtol=1e-12)

    several = open_vocabulary({"ece": ece_scorer, "nll": "neg_log_loss"})
    validated = cross_validate(
        NearestText(), X, Y, cv=CV, scoring=several, error_score="raise", return_train_score=True
    )
    assert_allclose(validated["test_ece"], by_hand, rtol=1e-12)
    assert "train_nll" in validated
    # In a dict of scikit-learn, beside a scorer of the unchanged estimator.
    mixed = {"open": scorer, "closed": "accuracy", "nll": "neg_log_loss", "ece": ece_scorer}
    validated = cross_validate(
        NearestText(), X, Y, cv=CV, scoring=mixed, error_score=np.nan, return_train_score=True
    )
    assert_allclose(validated["test_open"], by_hand, rtol=1e-12)
    assert (validated["test_closed"] == 0).all()

    search = GridSearchCV(
        NearestText(), {"sharpness": [0.01, 2.0]}, cv=CV, scoring=several, refit="nll", error_score="raise"
    )
    search = pickle.loads(pickle.dumps(clone(search))).fit(X, Y)
    assert search.best_params_ == {"sharpness": 2.0}
    assert search.score(X, Y) == several(search.best_estimator_, X, Y)["nll"]


def test_n_jobs():
    scorer = open_vocabulary({"ece": ece_scorer})
    one, two = (
        cross_validate(NearestText(), X, Y, cv=CV, scoring=scorer, n_jobs=n_jobs, error_score="raise")
        for n_jobs in (1, 2)
    )
    assert_array_equal(one["test_ece"], two["test_ece"])


def test_repr_pickle_and_clone():
    scorer = open_vocabulary("neg_log_loss", classes="unseen")
    assert repr(scorer) == "open_vocabulary('neg_log_loss', classes='unseen')"
    assert repr(open_vocabulary(ece_scorer)) == (
        "open_vocabulary(make_calibration_scorer(expected_calibration_error), classes='fold')"
    )
    for other in (pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)):
        assert repr(other) == repr(scorer)
        assert other(FITTED, X, Y) == scorer(FITTED, X, Y)


# Pipelines and searches


def test_pipelines_and_searches():
    scorer = open_vocabulary("neg_log_loss", classes="unseen")
    pipeline = make_pipeline(StandardScaler(with_std=False), NearestText()).fit(X[KNOWN], Y[KNOWN])
    assert_allclose(scorer(pipeline, X, Y), scorer(FITTED, X, Y))
    grid = {"nearesttext__sharpness": [2.0]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X[KNOWN], Y[KNOWN])
    outer = make_pipeline("passthrough", search).fit(X[KNOWN], Y[KNOWN])
    last = pipeline.steps[-1][1]
    for model in (search, outer):
        assert_allclose(scorer(model, X, Y), scorer(FITTED, X, Y))
        assert model.classes_.tolist() == ["ant", "cat", "dog"]
    assert pipeline.steps[-1][1] is last and last.classes_.tolist() == ["ant", "cat", "dog"]
    assert pipeline.fit is not None and hasattr(pipeline[0], "mean_")


# Metadata


def test_sample_weight_without_routing():
    weight = np.arange(1.0, len(Y) + 1)
    names = ["bee", "eel", "fox"]
    weighted = -expected(~KNOWN, names, sample_weight=weight[~KNOWN])
    for given in (weight, list(weight)):
        score = open_vocabulary(ece_scorer, classes="unseen")(FITTED, X, Y, sample_weight=given)
        assert score == weighted != -expected(~KNOWN, names)
    # Scorers without sample_weight ignore it, as in multi-metric scoring of scikit-learn.
    several = open_vocabulary({"ece": ece_scorer, "none": make_scorer(_accuracy_metric)}, classes="unseen")
    assert several(FITTED, X, Y, sample_weight=weight)["ece"] == weighted
    assert several(FITTED, X, Y, sample_weight=None)["ece"] == -expected(~KNOWN, names)


def _accuracy_metric(y_true, y_pred):
    return np.mean(y_true == y_pred)


def test_sample_weight_with_routing():
    weight = np.arange(1.0, len(Y) + 1)
    by_hand = []
    for train, test in CV.split(X, Y):
        clf = NearestText().fit(X[train], Y[train])
        names = np.unique(Y[test]).tolist()
        by_hand.append(-expected(test, names, clf=clf, sample_weight=weight[test]))
    before = copy.deepcopy(ece_scorer._get_metadata_request())
    with config_context(enable_metadata_routing=True):
        single = open_vocabulary(ece_scorer).set_score_request(sample_weight="importance")
        several = open_vocabulary({"ece": ece_scorer, "nll": "neg_log_loss"})
        several.set_score_request(sample_weight="importance")
        inner = copy.deepcopy(ece_scorer).set_score_request(sample_weight="importance")
        for scoring, column in [
            (single, "test_score"),
            (several, "test_ece"),
            (open_vocabulary(inner), "test_score"),
            ({"ece": single, "plain": open_vocabulary("accuracy")}, "test_ece"),
        ]:
            scores = cross_validate(
                NearestText(),
                X,
                Y,
                cv=CV,
                scoring=scoring,
                params={"importance": weight},
                error_score="raise",
            )
            assert_allclose(scores[column], by_hand, rtol=1e-12)
        plain = cross_validate(NearestText(), X, Y, cv=CV, scoring=open_vocabulary(ece_scorer))
        assert not np.allclose(plain["test_score"], by_hand)
        assert str(ece_scorer._get_metadata_request()) == str(before)
        with pytest.raises(TypeError, match="has no set_score_request"):
            open_vocabulary(_accuracy).set_score_request(sample_weight=True)


def _accuracy(estimator, X, y):
    return estimator.score(X, y)


# Invalid input


def test_callables_are_accepted():
    assert open_vocabulary(_accuracy)(FITTED, X, Y) == open_vocabulary("accuracy")(FITTED, X, Y)
    assert open_vocabulary(open_vocabulary(_accuracy))(FITTED, X, Y) == open_vocabulary(_accuracy)(
        FITTED, X, Y
    )


@pytest.mark.parametrize(
    ("classes", "rows", "message"),
    [
        (
            "unseen",
            KNOWN,
            r"classes='unseen' .* was not fitted.* 0 of the 36 rows in y qualify, of 0 classes\.",
        ),
        ("unseen", KNOWN | (Y == "bee"), r"12 of the 48 rows in y qualify, of 1 class, 'bee'. Use splits"),
        ("seen", ~KNOWN, r"classes='seen' .* on which the estimator was fitted"),
        ("fold", Y == "bee", r"classes='fold' needs rows of at least 2 classes; 12"),
    ],
)
def test_fewer_than_two_classes_raise(classes, rows, message):
    with pytest.raises(ValueError, match=message):
        open_vocabulary(ece_scorer, classes=classes)(FITTED, X[rows], Y[rows])


def test_estimators_without_with_classes_raise():
    scorer = open_vocabulary(ece_scorer)
    for model in (GaussianNB(), make_pipeline(StandardScaler(), GaussianNB())):
        with pytest.raises(TypeError, match=r"GaussianNB has no with_classes.*PromptTunedCLIPClassifier"):
            scorer(model.fit(X[KNOWN], Y[KNOWN]), X, Y)
    unrefitted = GridSearchCV(NearestText(), {"sharpness": [1.0]}, refit=False).fit(X, Y)
    with pytest.raises(TypeError, match=r"GridSearchCV has no with_classes.*search with refit"):
        scorer(unrefitted, X, Y)
    with pytest.raises(NotFittedError):
        open_vocabulary(ece_scorer, classes="seen")(NearestText(), X, Y)


def test_invalid_scorers_raise():
    with pytest.raises(ValueError, match=r"make_calibration_scorer\(expected_calibration_error\)"):
        open_vocabulary(expected_calibration_error)
    with pytest.raises(ValueError, match=r"make_calibration_scorer\(maximum_calibration_error\)"):
        open_vocabulary({"ece": ece_scorer, "mce": maximum_calibration_error})
    with pytest.raises(ValueError, match="make_scorer"):
        open_vocabulary(log_loss)
    with pytest.raises(ValueError, match="not a valid scoring value"):
        open_vocabulary("log_los")
    with pytest.raises(ValueError, match="'classes' parameter"):
        open_vocabulary(ece_scorer, classes="new")
    with pytest.raises(ValueError, match="'scorer' parameter"):
        open_vocabulary(None)


@pytest.mark.parametrize("missing", [None, np.nan, "gnu"])
def test_rows_of_weight_zero_are_ignored(missing):
    weight = np.where(np.arange(len(Y)) % 5 == 2, 0.0, 1.0 + np.arange(len(Y)) % 2)
    left = weight > 0
    rows, labels = X.copy(), Y.astype(object)
    rows[~left], labels[~left] = np.nan, missing
    for classes in ("fold", "unseen", "seen"):
        for inner in (ece_scorer, {"ece": ece_scorer, "nll": "neg_log_loss"}):
            scorer = open_vocabulary(inner, classes=classes)
            expected = scorer(FITTED, X[left], Y[left], sample_weight=weight[left])
            assert scorer(FITTED, rows, labels, sample_weight=weight) == expected
            assert scorer(FITTED, list(rows), list(labels), sample_weight=list(weight)) == expected
    with config_context(enable_metadata_routing=True):
        inner = make_calibration_scorer(expected_calibration_error).set_score_request(sample_weight=True)
        found = open_vocabulary(inner)(FITTED, rows, labels, sample_weight=weight)
    assert_allclose(found, -expected_on(left, weight))


def expected_on(left, weight):
    other = FITTED.with_classes(NAMES)
    return expected_calibration_error(
        Y[left], other.predict_proba(X[left]), labels=other.classes_, sample_weight=weight[left]
    )
