"""Methods and regularizers given by name or as objects, and searches over their parameters."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from toy_backbone import AnyWidthBackbone, LayeredBackbone

from clipcal import CalibratedCLIPClassifier, CoOp, PromptTunedCLIPClassifier, ece_scorer
from clipcal.calibration import CALIBRATORS
from clipcal.methods import KgCoOp
from clipcal.regularizers import AnchorRegularizer, DynamicOutlierRegularizer, VisualOutlierRegularizer

X = np.random.default_rng(0).standard_normal((24, 16))
Y = np.array(["ant", "bee", "cow"] * 8)


def make(**params):
    params = {"backbone": AnyWidthBackbone(16), "max_epochs": 2, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(**params)


GRIDS = {
    "name in the grid": ({}, {"regularizer": ["kg"], "regularizer__weight": [2.0, 8.0]}),
    "name in the classifier": ({"regularizer": "kg"}, {"regularizer__weight": [2.0, 8.0]}),
    "object": ({"regularizer": AnchorRegularizer()}, {"regularizer__weight": [2.0, 8.0]}),
    "two names": ({}, {"regularizer": ["kg", AnchorRegularizer()], "regularizer__weight": [2.0, 8.0]}),
    "image features": (
        {"method": "clip-adapter", "regularizer": VisualOutlierRegularizer(images=X[:5])},
        {"regularizer__weight": [0.1, 50.0]},
    ),
    "several names": ({}, {"regularizer": ["mbls", "tcpt", "zs-norm"], "regularizer__weight": [0.1, 1.0]}),
    "method in the grid": ({}, {"method": ["coop", "kgcoop"], "method__n_context": [None, 4]}),
    "cocoop": ({"method": "cocoop", "batch_size": 6}, {"method__context_init": [None, "a photo of a"]}),
    "prograd": ({"method": "prograd"}, {"method__n_context": [4, 8]}),
    "dept": ({"method": "dept"}, {"method__base__n_context": [4, 8]}),
    "base of dept": ({"method": "dept", "batch_size": 6}, {"method__base": ["kgcoop", "cocoop"]}),
    "proda": ({"method": "proda"}, {"method__n_active": [4, 8]}),
    "tcp": ({"method": "tcp", "backbone": LayeredBackbone(16)}, {"method__block": [1, 2]}),
    "tip-adapter": ({"method": "tip-adapter"}, {"method__alpha": [0.5, "search"]}),
    "tip-adapter-f": ({"method": "tip-adapter-f"}, {"method__beta": [0.5, "search"]}),
    "method in the classifier": ({}, {"method__context_init": [None, "a photo of a"]}),
}


@pytest.mark.parametrize(("params", "grid"), GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_search_sets_parameters_of_named_components(params, grid, n_jobs):
    folds = list(StratifiedKFold(2).split(X, Y))
    search = GridSearchCV(make(**params), grid, cv=folds, scoring=ece_scorer, n_jobs=n_jobs)
    search.fit(X, Y)
    train, test = folds[0]
    found = search.cv_results_["split0_test_score"]
    for candidate, score in zip(search.cv_results_["params"], found, strict=True):
        by_hand = make(**params).set_params(**clone(candidate, safe=False)).fit(X[train], Y[train])
        assert ece_scorer(by_hand, X[test], Y[test]) == pytest.approx(score, abs=1e-6)


def test_name_is_replaced_by_an_object_when_its_parameters_are_set():
    clf = make(regularizer="dor")
    assert clf.set_params(learning_rate=0.01).regularizer == "dor"
    clf.set_params(regularizer__weight=4.0, regularizer__pool="far")
    assert isinstance(clf.regularizer, DynamicOutlierRegularizer)
    assert clf.regularizer.get_params()["weight"] == 4.0
    assert clf.regularizer.pool == "far"
    clf.set_params(method="kgcoop", method__n_context=None)
    assert type(clf.method) is KgCoOp
    # Parameters set by earlier calls are kept.
    clf.set_params(regularizer__pool_size=10)
    assert (clf.regularizer.weight, clf.regularizer.pool_size) == (4.0, 10)


def test_set_params_on_a_clone_does_not_change_the_original():
    clf = make(regularizer="kg")
    clone(clf).set_params(regularizer__weight=1.0)
    assert clf.regularizer == "kg"


@pytest.mark.parametrize(
    ("params", "change", "words"),
    [
        ({}, {"regularizer__weight": 2.0}, r"regularizer__weight cannot be set, as regularizer=None has no"),
        (
            {"regularizer": ["kg"]},
            {"regularizer__weight": 2.0},
            r"\['kg'\] has no parameter 'weight'",
        ),
        ({"regularizer": "kg"}, {"regularizer__depth": 2}, "Invalid parameter 'depth' for estimator Anchor"),
        (
            {"regularizer": "l2"},
            {"regularizer__weight": 2.0},
            "'l2' is not known; choose among 'dor', 'dor",
        ),
        ({"method": "clip"}, {"method__n_context": 2}, "'clip' is not known; choose among 'coop', 'kgcoop'"),
        ({}, {"no_such__width": 2}, "Invalid parameter 'no_such'"),
    ],
)
def test_invalid_parameters_raise(params, change, words):
    with pytest.raises(ValueError, match=words):
        make(**params).set_params(**change)


def test_invalid_parameter_does_not_replace_the_name():
    clf = make(regularizer="dor")
    with pytest.raises(ValueError, match="wieght"):
        clf.set_params(regularizer__wieght=2.0)
    assert clf.regularizer == "dor"


def test_class_instead_of_instance_raises():
    with pytest.raises(TypeError, match=r"method is the class CoOp; pass an instance: CoOp\(\)"):
        make(method=CoOp).fit(X, Y)


class TestCalibrators:
    def test_search_over_calibrator_and_classifier_parameters(self):
        calibrated = CalibratedCLIPClassifier(make(regularizer="kg"), method="histogram", cv=2)
        grid = {"method__n_bins": [2, 5], "estimator__regularizer__weight": [1.0]}
        search = GridSearchCV(calibrated, grid, cv=2, scoring=ece_scorer, error_score="raise").fit(X, Y)
        best = search.best_estimator_
        assert best.method.n_bins == search.best_params_["method__n_bins"]
        assert best.estimator.regularizer.weight == 1.0
        assert calibrated.method == "histogram"

    def test_set_params_does_not_change_registered_calibrators(self):
        before = CALIBRATORS["histogram"].get_params()
        CalibratedCLIPClassifier(make(), method="histogram").set_params(method__n_bins=3)
        assert CALIBRATORS["histogram"].get_params() == before

    def test_unknown_calibrator_raises(self):
        with pytest.raises(ValueError, match="method='plat' is not known; choose among 'temperature'"):
            CalibratedCLIPClassifier(make(), method="plat").set_params(method__n_bins=3)


@pytest.mark.parametrize(
    ("method", "regularizer", "words"),
    [
        (
            "clip-adapter",
            "dor",
            "'dor' has no effect on method='clip-adapter', which does not train the text",
        ),
        (
            "clip-adapter",
            ["kg"],
            "'kg' has no effect on method='clip-adapter', .*use a regularizer of the logits",
        ),
        ("tip-adapter", ["entropy"], "'entropy' has no effect on method='tip-adapter', .*'tip-adapter-f'"),
        ("tip-adapter-f", "dor", "'dor' has no effect on method='tip-adapter-f', .*the logits"),
        (
            "coop",
            "dor-visual",
            "'dor-visual' has no effect on method='coop', .*the image features; use a",
        ),
        (
            "tip-adapter-f",
            "dor-visual",
            "'dor-visual' has no effect on method='tip-adapter-f', .*the image",
        ),
        ("cocoop", "dor-visual", "'dor-visual' has no effect on method='cocoop', .*regularizer='dor'"),
        ("tip-adapter", "dor-visual", "'dor-visual' has no effect on method='tip-adapter', .*not trained"),
        ("linear-probe", "dor", "'dor' has no effect on method='linear-probe', .*classes only"),
        ("lp++", "dor", r"'dor' has no effect on method='lp\+\+', .*classes only"),
        ("taskres", "dor", "'dor' has no effect on method='taskres', .*classes only; use regularizer='kg'"),
    ],
)
def test_regularizers_without_effect_are_refused(method, regularizer, words):
    clf = make(method=method, regularizer=regularizer)
    with pytest.raises(ValueError, match=words):
        clf.fit(X, Y)
