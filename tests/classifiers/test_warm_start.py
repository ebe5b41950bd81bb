"""Training that continues from the previous fit."""

import numpy as np
import pytest
from sklearn.base import clone
from toy_backbone import AnyWidthBackbone, toy_backbone_for

import clipcal
from clipcal import CoOp, PromptTunedCLIPClassifier

NAMES = ["cat", "dog", "red panda"]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 16)), np.array(NAMES * 8)
# Constant rate, no momentum and whole batches, so that two fits of two epochs equal one of four.
PLAIN = {"schedule": "constant", "warmup_epochs": 0, "momentum": 0.0, "batch_size": 24, "learning_rate": 0.02}


def make(**params):
    params = {
        "backbone": AnyWidthBackbone(16),
        "recipe": "original",
        "max_epochs": 2,
        "random_state": 0,
        "warm_start": True,
        **params,
    }
    return PromptTunedCLIPClassifier(**params)


@pytest.mark.parametrize("method", ["coop", "cocoop", "tcp", "taskres", "clip-adapter", "linear-probe"])
def test_two_fits_equal_one_of_twice_the_epochs(method):
    params = {**PLAIN, "method": method, "backbone": toy_backbone_for(method, 16)}
    if method in ("tcp", "taskres"):
        params |= {"optimizer": "sgd"}
    clf = make(**params).fit(X, Y)
    once = clf.predict_proba(X)
    clf.fit(X, Y)
    expected = make(**params, max_epochs=4).fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-5)
    assert np.abs(once - expected).max() > 1e-4
    assert [record["epoch"] for record in clf.history_] == [0, 1]


def test_zero_epochs_keep_the_parameters():
    clf = make(max_epochs=5).fit(X, Y)
    before = clf.learned_["context"]
    np.testing.assert_array_equal(clf.set_params(max_epochs=0).fit(X, Y).learned_["context"], before)
    assert np.abs(clf.set_params(warm_start=False).fit(X, Y).learned_["context"] - before).max() > 1e-6


def test_continues_after_loading(tmp_path):
    clf = make().fit(X, Y)
    clipcal.save(clf, tmp_path / "clf.clipcal")
    loaded = clipcal.load(tmp_path / "clf.clipcal", backbone=AnyWidthBackbone(16))
    assert loaded.warm_start
    np.testing.assert_array_equal(loaded.fit(X, Y).learned_["context"], clf.fit(X, Y).learned_["context"])


def test_new_data_replace_statistics_of_the_old():
    clf = make(method="cocoop").fit(X, Y)
    clf.fit(X + 1, Y)
    np.testing.assert_allclose(
        clf.learned_["mean_image"], make(method="cocoop").fit(X + 1, Y).learned_["mean_image"]
    )


def test_clones_start_anew():
    clf = make().fit(X, Y)
    np.testing.assert_array_equal(
        clone(clf).fit(X, Y).learned_["context"], make().fit(X, Y).learned_["context"]
    )


def test_another_method_with_the_same_parameters_can_continue():
    context = make(max_epochs=0).fit(X, Y).set_params(method="kgcoop").fit(X, Y).learned_["context"]
    np.testing.assert_array_equal(context, make(max_epochs=0, method="kgcoop").fit(X, Y).learned_["context"])


def test_other_classes_are_an_error_and_leave_the_classifier_unchanged():
    clf = make().fit(X, Y)
    before = clf.predict_proba(X)
    with pytest.raises(ValueError, match=r"warm_start=True needs the classes .*'red panda'.*'fox'"):
        clf.fit(X, np.where(Y == "cat", "fox", Y))
    np.testing.assert_array_equal(clf.predict_proba(X), before)


@pytest.mark.parametrize("method", [CoOp(context_init=None, n_context=3), "cocoop", "taskres"])
def test_another_method_is_an_error(method):
    clf = make().fit(X, Y)
    with pytest.raises(ValueError, match=r"warm_start=True needs learned parameters of the shapes"):
        clf.set_params(method=method).fit(X, Y)
