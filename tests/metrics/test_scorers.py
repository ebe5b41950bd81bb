"""Scorers in scikit-learn's model selection tools."""

import copy
import functools
import pickle
import warnings

import numpy as np
import pytest
import torch
from framed import Framed
from numpy.testing import assert_allclose
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipcal.metrics import (
    ace_scorer,
    adaptive_calibration_error,
    brier_score,
    brier_scorer,
    calibration_scorers,
    classwise_calibration_error,
    classwise_ece_scorer,
    cross_val_calibration_error,
    ece_scorer,
    expected_calibration_error,
    make_calibration_scorer,
    maximum_calibration_error,
    mce_scorer,
    negative_log_likelihood,
    nll_scorer,
    over_under_confidence,
    smooth_calibration_error,
    smooth_ece_scorer,
)

X, y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[y]


class CountingNB(GaussianNB):
    calls = 0

    def predict_proba(self, X):
        type(self).calls += 1
        return super().predict_proba(X)


@pytest.mark.parametrize("target", [y, NAMES, y * 10 + 3, (y == 1), np.where(y == 1, "yes", "no")])
def test_scorers_return_the_negated_metric(target):
    model = make_pipeline(StandardScaler(), GaussianNB()).fit(X, target)
    expected = expected_calibration_error(target, model.predict_proba(X), labels=model.classes_)
    assert_allclose(ece_scorer(model, X, target), -expected, rtol=1e-12)
    assert mce_scorer(model, X, target) < 0 and ace_scorer(model, X, target) < 0
    for scorer, metric in (
        (classwise_ece_scorer, classwise_calibration_error),
        (smooth_ece_scorer, smooth_calibration_error),
        (brier_scorer, brier_score),
        (nll_scorer, negative_log_likelihood),
    ):
        expected = metric(target, model.predict_proba(X), labels=model.classes_)
        assert expected > 0
        assert_allclose(scorer(model, X, target), -expected, rtol=1e-12)


def test_weights_reach_the_metric():
    model, weight = GaussianNB().fit(X, y), np.arange(150.0)
    expected = expected_calibration_error(y, model.predict_proba(X), sample_weight=weight)
    assert ece_scorer(model, X, y, sample_weight=weight) == -expected != ece_scorer(model, X, y)


def test_classes_missing_on_either_side_of_a_fold():
    # Unshuffled folds of a sorted target: the class of each test fold is not in its training fold.
    scores = cross_validate(GaussianNB(), X, NAMES, cv=KFold(3), scoring=ece_scorer, error_score="raise")
    assert (scores["test_score"] < -0.5).all()
    model = GaussianNB().fit(X, NAMES)
    assert np.isfinite(ece_scorer(model, X[:20], NAMES[:20]))


def test_classifier_with_a_single_class():
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


def test_all_scorers_share_one_prediction():
    CountingNB.calls = 0
    scorers = calibration_scorers()
    assert list(scorers) == ["ece", "ace", "mce", "classwise_ece", "smooth_ece", "brier", "nll"]
    scores = cross_validate(CountingNB(), X, NAMES, cv=3, scoring=scorers, error_score="raise", n_jobs=1)
    assert CountingNB.calls == 3
    assert all((scores[f"test_{name}"] < 0).all() for name in scorers)
    scorers.pop("ece")
    assert "ece" in calibration_scorers()


def test_classes_that_are_not_in_the_training_fold():
    model = GaussianNB().fit(X[:100], NAMES[:100])
    for name, scorer in calibration_scorers().items():
        if name in {"classwise_ece", "brier", "nll"}:
            with pytest.raises(ValueError, match=r"without a column: \['virginica'\]"):
                scorer(model, X, NAMES)
        else:
            assert -1 <= scorer(model, X, NAMES) < -0.2
        # A class may be missing in the test fold.
        assert np.isfinite(scorer(GaussianNB().fit(X, NAMES), X[:60], NAMES[:60]))
    with pytest.warns(UserWarning, match="without a column"):
        scores = cross_validate(GaussianNB(), X, NAMES, cv=KFold(3), scoring=calibration_scorers())
    assert np.isnan(scores["test_nll"]).all() and np.isfinite(scores["test_smooth_ece"]).all()


def test_invalid_arguments_raise_early():
    with pytest.raises(TypeError, match="'metric' parameter of make_calibration_scorer must be a callable"):
        make_calibration_scorer("ece")
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'bins'. Its parameters are y_true, .*, n_bins"
    ):
        make_calibration_scorer(expected_calibration_error, bins=10)
    with pytest.raises(TypeError, match="labels"):
        make_calibration_scorer(lambda y_true, y_prob: 0.0)


@pytest.mark.parametrize(("scorer", "n_jobs"), [(nll_scorer, 2), (brier_scorer, 1), (smooth_ece_scorer, 1)])
def test_model_selection(scorer, n_jobs):
    grid = {"logisticregression__C": [1e-3, 1.0]}
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    search = GridSearchCV(model, grid, scoring=scorer, cv=3, n_jobs=n_jobs, error_score="raise").fit(X, NAMES)
    assert search.best_params_ == {"logisticregression__C": 1.0}


def test_scoring_monitor():
    callback = pytest.importorskip("sklearn.callback")
    monitor = callback.ScoringMonitor(scoring={"nll": nll_scorer, "ece": ece_scorer})
    model = LogisticRegression(max_iter=500).set_callbacks(monitor).fit(X, NAMES)
    last = monitor.get_logs().data[-1]
    assert last["nll"] == pytest.approx(nll_scorer(model, X, NAMES))
    assert last["ece"] == pytest.approx(ece_scorer(model, X, NAMES))


def test_grid_search_can_be_cloned_and_pickled():
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


class WeightedNB(GaussianNB):
    """Records the arguments of its last fit, including one that is not per row."""

    seen = None

    def fit(self, X, y, sample_weight=None, note=None):
        type(self).seen = (len(X), sample_weight, note)
        return super().fit(X, y, sample_weight)


def test_pooled_error_with_weights():
    weight = np.random.default_rng(0).integers(0, 3, 150)
    there = weight > 0  # rows of weight 0 are dropped from all folds
    rows, truth, pooled = X[there], y[there], np.empty((there.sum(), 3))
    for train, test in StratifiedKFold(5).split(rows, truth):
        pooled[test] = GaussianNB().fit(rows[train], truth[train]).predict_proba(rows[test])
    for given in (weight, list(weight)):
        found = cross_val_calibration_error(GaussianNB(), X, NAMES, sample_weight=given)
        assert_allclose(found, expected_calibration_error(truth, pooled, sample_weight=weight[there]))
    assert found != expected_calibration_error(truth, pooled)


def test_pooled_error_passes_fit_arguments():
    weight = np.random.default_rng(0).integers(1, 4, 150)
    found = cross_val_calibration_error(WeightedNB(), X, y, params={"sample_weight": weight, "note": "hi"})
    train = list(StratifiedKFold(5).split(X, y))[-1][0]
    n_rows, seen, note = WeightedNB.seen
    assert (n_rows, note) == (120, "hi")
    np.testing.assert_array_equal(seen, weight[train])
    assert found != cross_val_calibration_error(WeightedNB(), X, y)


def test_pooled_error_in_two_processes():
    alone = cross_val_calibration_error(GaussianNB(), X, NAMES, metric=negative_log_likelihood)
    assert alone == cross_val_calibration_error(
        GaussianNB(), X, NAMES, metric=negative_log_likelihood, n_jobs=2
    )


def test_rows_in_several_test_folds_count_several_times():
    splits = [(np.arange(0, 150, 2), np.arange(1, 150, 2)), (np.arange(0, 150, 3), np.arange(1, 150, 4))]
    weight = np.arange(150.0)
    truths, probs, weights = [], [], []
    for train, test in splits:
        truths.append(y[test])
        probs.append(GaussianNB().fit(X[train], y[train]).predict_proba(X[test]))
        weights.append(weight[test])
    expected = expected_calibration_error(
        np.concatenate(truths), np.concatenate(probs), sample_weight=np.concatenate(weights)
    )
    assert_allclose(
        cross_val_calibration_error(GaussianNB(), X, y, cv=splits, sample_weight=weight), expected
    )


def test_pooled_error_accepts_metrics_without_weights():
    def error_rate(y_true, y_prob, *, labels):
        return np.mean(labels[y_prob.argmax(axis=1)] != y_true)

    assert 0 < cross_val_calibration_error(GaussianNB(), X, NAMES, metric=error_rate) < 0.1


def test_mean_over_folds_overstates_the_error():
    # Labels are drawn from the probabilities, so the model is calibrated.
    rng = np.random.default_rng(0)
    p = rng.uniform(size=1000)

    class Oracle(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def predict_proba(self, X):
            return np.column_stack([1 - X[:, 0], X[:, 0]])

    truth = (rng.random(1000) < p).astype(int)
    folds = -cross_validate(Oracle(), p[:, None], truth, cv=5, scoring=ece_scorer)["test_score"].mean()
    assert cross_val_calibration_error(Oracle(), p[:, None], truth, cv=5) < 0.6 * folds


class Frozen(ClassifierMixin, BaseEstimator):
    """Predicts fixed classes, independent of the data in fit."""

    def __init__(self, classes):
        self.classes = classes

    def fit(self, X, y):
        self.classes_ = np.array(self.classes)
        return self

    def predict_proba(self, X):
        logits = np.column_stack([X[:, 0] * (len(name) - 8) for name in self.classes])
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("metric", [expected_calibration_error, brier_score, negative_log_likelihood])
@pytest.mark.parametrize(
    "classes",
    [
        ["zebra", "setosa", "a fox", "virginica", "versicolor"],
        ["virginica", "zebra", "versicolor", "setosa"],
        ["setosa", "versicolor", "virginica", "yak"],
    ],
)
def test_pooled_error_of_a_fixed_vocabulary(classes, metric):
    model = Frozen(classes).fit(X, NAMES)
    splits = list(StratifiedKFold(3).split(X, NAMES))
    rows = np.concatenate([test for _, test in splits])
    expected = metric(NAMES[rows], model.predict_proba(X[rows]), labels=classes)
    assert_allclose(
        cross_val_calibration_error(model, X, NAMES, cv=splits, metric=metric), expected, rtol=1e-12
    )


def test_pooled_error_of_folds_with_different_classes():
    class Half(Frozen):
        def fit(self, X, y):
            self.classes_ = np.array(["yak", *np.unique(y)[::-1]])
            return self

        def predict_proba(self, X):
            return np.tile(np.arange(1, 1 + len(self.classes_)) / 10, (len(X), 1))

    # The first training fold has two classes, the second has three.
    splits = [(np.arange(100), [0, 149]), (np.arange(150), [60])]

    def check(y_true, y_prob, *, labels):
        assert labels.tolist() == ["setosa", "versicolor", "virginica", "yak"]
        assert y_true.tolist() == ["setosa", "virginica", "versicolor"]
        assert_allclose(y_prob, [[0.3, 0.2, 0, 0.1], [0.3, 0.2, 0, 0.1], [0.4, 0.3, 0.2, 0.1]])
        return 0.5

    assert cross_val_calibration_error(Half([]), X, NAMES, cv=splits, metric=check) == 0.5


def test_pooled_error_of_labels_of_another_kind_raises():
    with pytest.raises(ValueError, match=r"y and estimator.classes_ are of different kinds: numbers"):
        cross_val_calibration_error(Frozen(["setosa", "versicolor"]), X, y)
    with pytest.raises(ValueError, match="y contains NaN or another missing value"):
        cross_val_calibration_error(GaussianNB(), X[:2], np.array(["a", None], dtype=object))


def test_metrics_with_bound_arguments():
    bound = functools.partial(expected_calibration_error, n_bins=3)
    scorer = make_calibration_scorer(bound, closed="left")
    text = "make_calibration_scorer(partial(expected_calibration_error, n_bins=3), closed='left')"
    assert repr(scorer) == text
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, scoring=scorer, cv=3)
    assert "partial(expected_calibration_error" in repr(search)
    pooled = functools.partial(maximum_calibration_error, min_count=20)
    found = cross_val_calibration_error(GaussianNB(), X, y, metric=pooled)
    assert found < cross_val_calibration_error(GaussianNB(), X, y, metric=maximum_calibration_error)

    class Callable:
        def __call__(self, y_true, y_prob, *, labels):
            return 0.25

        def __repr__(self):
            return "Callable()"

    scorer = make_calibration_scorer(Callable())
    assert repr(scorer) == "make_calibration_scorer(Callable())"
    assert scorer(GaussianNB().fit(X, y), X, y) == -0.25


def test_metrics_that_return_no_single_number_raise():
    model = GaussianNB().fit(X, y)
    for metric, options in (
        (over_under_confidence, {}),
        (smooth_calibration_error, {"return_bandwidth": True}),
        (classwise_calibration_error, {"average": None}),
    ):
        with pytest.raises(TypeError, match=f"{metric.__name__} must return a single number"):
            make_calibration_scorer(metric, **options)(model, X, y)
    with pytest.raises(TypeError, match="it returned None"):
        make_calibration_scorer(lambda y_true, y_prob, labels: None)(model, X, y)
    assert type(make_calibration_scorer(lambda y_true, y_prob, labels: np.float32(1))(model, X, y)) is float


@pytest.mark.parametrize("name", ["labels", "sample_weight"])
def test_labels_and_weights_are_not_accepted(name):
    with pytest.raises(TypeError, match=f"does not accept {name}: the scorer passes"):
        make_calibration_scorer(expected_calibration_error, **{name: [0, 1, 2]})


def test_scores_of_perfect_folds_are_not_negative_zero():
    class Perfect(Frozen):
        def predict_proba(self, X):
            return np.eye(3)[np.searchsorted(self.classes_, NAMES[: len(X)])]

    model = Perfect(np.unique(NAMES)).fit(X, NAMES)
    for name, scorer in calibration_scorers().items():
        score = scorer(model, X, NAMES)
        assert score == 0 and not np.signbit(score), name


def test_predefined_scorers_are_copied():
    with config_context(enable_metadata_routing=True):
        changed = calibration_scorers()["ece"].set_score_request(sample_weight=True)
        fresh = calibration_scorers()["ece"]
        requests = [scorer.get_metadata_routing().score.requests for scorer in (changed, ece_scorer, fresh)]
    assert [bool(r.get("sample_weight")) for r in requests] == [True, False, False]


def test_advice_is_suppressed_in_folds_and_warnings_point_to_the_caller():
    class Half(GaussianNB):
        def predict_proba(self, X):
            return super().predict_proba(X) * 0.995

    model = Half().fit(X, y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cross_validate(GaussianNB(), X, NAMES, cv=3, scoring=calibration_scorers(), n_jobs=1)
        cross_validate(Half(), X, NAMES, cv=3, scoring=ece_scorer, n_jobs=1)
        adaptive_calibration_error(y, model.predict_proba(X), n_bins=40)
    assert [w.filename for w in caught] == [__file__] * 5
    assert ["rows of y_prob" in str(w.message) for w in caught] == [True] * 4 + [False]


@pytest.mark.parametrize("kind", ["pandas", "text", "table"])
@pytest.mark.parametrize("target", [y * 10 + 3, NAMES, y == 1], ids=["numbers", "text", "two"])
def test_columns_of_data_frames_are_selected_by_name(kind, target):
    plain = LogisticRegression(max_iter=500).fit(X, target)
    framed = Framed(kind).fit(X, target)
    for scorer in calibration_scorers().values():
        assert_allclose(scorer(framed, X, target), scorer(plain, X, target))
    assert_allclose(
        cross_val_calibration_error(Framed(kind), X, target),
        cross_val_calibration_error(LogisticRegression(max_iter=500), X, target),
    )
    options = {"cv": 3, "scoring": calibration_scorers(), "error_score": "raise"}
    found = cross_validate(make_pipeline(StandardScaler(), Framed(kind)), X, target, **options)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    expected = cross_validate(model, X, target, **options)
    for name in calibration_scorers():
        assert_allclose(found[f"test_{name}"], expected[f"test_{name}"])


def test_predictions_cached_by_other_scorers():
    # scikit-learn selects the second column of a data frame of two classes, whatever its name.
    framed, plain = Framed("table").fit(X, y == 1), LogisticRegression(max_iter=500).fit(X, y == 1)
    for scoring in ({"auc": "roc_auc", "ece": ece_scorer}, {"ece": ece_scorer, "auc": "roc_auc"}):
        found = check_scoring(framed, scoring=scoring)(framed, X, y == 1)
        assert_allclose(found["ece"], ece_scorer(plain, X, y == 1))
    # If the calibration scorer comes first, the cached column is the correct one.
    assert_allclose(found["auc"], check_scoring(plain, scoring="roc_auc")(plain, X, y == 1))


def test_columns_named_after_other_classes_raise():
    framed = Framed(names=["virginica", "versicolor", "rosa"]).fit(X, NAMES)
    with pytest.raises(ValueError, match=r"Framed.predict_proba returned columns named .*'rosa'"):
        ece_scorer(framed, X, NAMES)
    with pytest.raises(ValueError, match="Name one column after each class"):
        cross_val_calibration_error(framed, X, NAMES)


class Tensors(GaussianNB):
    def predict_proba(self, X):
        return torch.tensor(super().predict_proba(X), dtype=torch.bfloat16, requires_grad=True)


@pytest.mark.filterwarnings("ignore:The rows of y_prob should sum to 1")
def test_tensors_are_accepted():
    # Row sums of bfloat16 probabilities differ from 1 by up to 0.002, which raises a warning.
    as_rounded = torch.tensor(GaussianNB().fit(X, NAMES).predict_proba(X)).bfloat16().double().numpy()
    expected = expected_calibration_error(NAMES, as_rounded)
    assert_allclose(ece_scorer(Tensors().fit(X, NAMES), X, NAMES), -expected, atol=1e-7)
    two = Tensors().fit(X, y == 1)
    assert_allclose(ece_scorer(two, X, y == 1), ece_scorer(GaussianNB().fit(X, y == 1), X, y == 1), atol=0.01)
    found = cross_val_calibration_error(Tensors(), X, torch.tensor(y), sample_weight=torch.ones(150))
    assert_allclose(found, cross_val_calibration_error(GaussianNB(), X, y), atol=0.01)


class FiniteOnlyNB(GaussianNB):
    """Raises an error for input that is not finite, such as a corrupt image."""

    def predict_proba(self, X):
        assert np.isfinite(X).all()
        return super().predict_proba(X)


def test_rows_of_weight_zero_are_not_predicted():
    broken, truth, weight = X.copy(), NAMES.astype(object), np.ones(150)
    broken[::10], truth[::10], weight[::10] = np.nan, None, 0.0
    truth[10] = "iris of no kind"
    left = weight > 0
    model = FiniteOnlyNB().fit(X[left], NAMES[left])
    for scorer in calibration_scorers().values():
        expected = scorer(model, X[left], NAMES[left])
        assert_allclose(scorer(model, broken, truth, sample_weight=weight), expected)
        assert_allclose(scorer(model, broken, list(truth), sample_weight=list(weight)), expected)
    # The predictions of the other scorers, for all rows, are not affected.
    scoring = check_scoring(model, scoring={"auc": "neg_log_loss", "ece": ece_scorer, "mce": mce_scorer})
    both = scoring(model, X, NAMES, sample_weight=weight)
    assert_allclose(both["ece"], ece_scorer(model, X[left], NAMES[left]))
    assert_allclose(
        both["auc"], check_scoring(scoring="neg_log_loss")(model, X, NAMES, sample_weight=weight), rtol=1e-12
    )


def test_pooled_error_without_rows_of_weight_zero():
    broken, truth, weight = X.copy(), NAMES.astype(object), np.ones(150)
    broken[::10], truth[::10], weight[::10] = np.nan, None, 0.0
    truth[10] = "iris of no kind"
    left = weight > 0
    groups = np.arange(150) % 7
    groups_with_another = np.where(left, groups, 99)
    note = {"params": {"sample_weight": np.arange(1.0, 151.0)}}
    for options in ({"cv": 3}, {"cv": GroupKFold(3), "groups": groups_with_another}):
        found = cross_val_calibration_error(
            WeightedNB(), broken, truth, sample_weight=weight, **options, **note
        )
        if "groups" in options:
            options = {**options, "groups": groups[left]}
        expected = cross_val_calibration_error(
            WeightedNB(),
            X[left],
            NAMES[left],
            params={"sample_weight": np.arange(1.0, 151.0)[left]},
            **options,
        )
        assert_allclose(found, expected)


def test_given_splits_refer_to_all_rows():
    weight = (np.arange(150) % 10 > 0).astype(float)
    masks = [np.arange(150) % 3 == k for k in range(3)]
    found = cross_val_calibration_error(
        GaussianNB(), X, y, sample_weight=weight, cv=[(~test, np.flatnonzero(test)) for test in masks]
    )
    left = np.flatnonzero(weight)
    prob = np.empty((150, 3))
    for test in masks:
        kept = ~test & (weight > 0)
        prob[test] = GaussianNB().fit(X[kept], y[kept]).predict_proba(X[test])
    assert_allclose(found, expected_calibration_error(y[left], prob[left]))


def test_labels_of_string_dtype():
    wide = NAMES.astype(np.dtypes.StringDType())
    plain, pooled = GaussianNB().fit(X, NAMES), cross_val_calibration_error(GaussianNB(), X, NAMES)
    assert cross_val_calibration_error(GaussianNB(), X, wide) == pooled
    for scorer in calibration_scorers().values():
        assert scorer(plain, X, wide) == scorer(plain, X, NAMES)


def test_one_dimensional_probabilities_of_two_classes():
    class OneColumn(GaussianNB):
        def predict_proba(self, X):
            return super().predict_proba(X)[:, 1]

    model = GaussianNB().fit(X, y == 1)
    assert_allclose(ece_scorer(OneColumn().fit(X, y == 1), X, y == 1), ece_scorer(model, X, y == 1))
    assert_allclose(
        cross_val_calibration_error(OneColumn(), X, y == 1),
        cross_val_calibration_error(GaussianNB(), X, y == 1),
    )
