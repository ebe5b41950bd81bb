"""Weights of classes and of samples."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.class_weight import compute_sample_weight
from toy_backbone import AnyWidthBackbone

from clipcal import PromptTunedCLIPClassifier
from clipcal.classifiers._class_weights import weigh_classes
from clipcal.training import EmbeddedData, torch_generator

NAMES = ["cat", "dog", "red panda"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 16))
Y = np.array(["cat"] * 12 + ["dog"] * 8 + ["red panda"] * 4)


def make(**params):
    params = {"backbone": AnyWidthBackbone(16), "max_epochs": 3, "batch_size": 8, "random_state": 0, **params}
    return PromptTunedCLIPClassifier(**params)


def learned(sample_weight=None, **params):
    return make(**params).fit(X, Y, sample_weight=sample_weight).learned_["context"]


@pytest.mark.parametrize("given", ["balanced", {"cat": 0.5, "dog": 1.0, "red panda": 4.0}, {"dog": 3.0}])
def test_equals_sample_weights(given):
    expected = learned(compute_sample_weight(given, Y))
    np.testing.assert_allclose(learned(class_weight=given), expected, atol=1e-6)
    assert np.abs(expected - learned()).max() > 1e-5


def test_balanced_counts_samples_by_their_weight():
    weights = RNG.uniform(0.5, 2, len(Y))
    balanced = weigh_classes("balanced", np.array(NAMES), np.searchsorted(NAMES, Y), weights)
    totals = [balanced[name == Y].sum() for name in NAMES]
    np.testing.assert_allclose(totals, totals[0])
    np.testing.assert_allclose(learned(weights, class_weight="balanced"), learned(balanced), atol=1e-6)
    counts = np.arange(len(Y)) % 3 + 1
    repeated = make(class_weight="balanced", batch_size=99).fit(
        np.repeat(X, counts, axis=0), Y.repeat(counts)
    )
    np.testing.assert_allclose(
        learned(counts, class_weight="balanced", batch_size=99), repeated.learned_["context"], atol=1e-6
    )


def test_zero_ignores_the_samples_of_a_class_but_not_the_class():
    only = np.where(Y == "dog", 1e-30, 1.0)
    clf = make(class_weight={"dog": 0}).fit(X, Y)
    assert clf.classes_.tolist() == NAMES
    np.testing.assert_allclose(clf.learned_["context"], learned(only), atol=1e-6)


@pytest.mark.parametrize("labels", [["0", "1", "2"], [0, 1, 2], [True, False]])
def test_labels_of_all_kinds(labels):
    y = np.array(labels)[np.arange(24) % len(labels)]
    names = dict(zip(labels, NAMES, strict=False))
    clf = make(class_names=names, class_weight={labels[1]: 3.0}).fit(X, y)
    weighted = make(class_names=names).fit(X, y, sample_weight=np.where(y == labels[1], 3.0, 1.0))
    np.testing.assert_allclose(clf.learned_["context"], weighted.learned_["context"], atol=1e-6)


def test_classes_that_a_fold_lacks_are_ignored():
    given = {"cat": 1.0, "dog": 2.0, "red panda": 3.0}
    two = Y != "red panda"
    expected = make(class_weight={"dog": 2.0}).fit(X[two], Y[two]).learned_["context"]
    np.testing.assert_array_equal(make(class_weight=given).fit(X[two], Y[two]).learned_["context"], expected)
    assert np.isfinite(cross_val_score(make(class_weight=given, max_epochs=1), X, Y, cv=2)).all()
    search = GridSearchCV(make(max_epochs=1), {"class_weight": [None, "balanced"]}, cv=2).fit(X, Y)
    assert len(search.cv_results_["params"]) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"Cat": 2.0}, r"'Cat', which is not a class, and none for 'cat'; the classes are \['cat', 'dog'"),
        ({"cat": -1.0}, "at least 0"),
        ({"cat": np.nan}, "finite"),
        ({"cat": 0, "dog": 0, "red panda": 0}, "zero"),
        ("equal", "class_weight"),
    ],
)
def test_invalid_weights(given, words):
    with pytest.raises(ValueError, match=words):
        make(class_weight=given).fit(X, Y)


class TestSampleWeightsInBatches:
    def test_expected_loss_of_a_batch_is_the_weighted_loss_of_the_data(self):
        weights, losses = np.array([5.0, 1, 1, 1, 2, 2]), np.arange(6.0)
        raw = np.zeros((6, 1, 4))
        raw[:, 0, 0] = 1
        data = EmbeddedData.from_raw(torch.tensor(raw), torch.arange(6), torch.tensor(weights).float())
        generator = torch_generator(0)
        for size in (1, 2, 3, 6):
            means = [
                float(batch.mean(torch.tensor(losses)[batch.targets].float()))
                for batch in data.batches(size, generator)
            ]
            assert np.mean(means) == pytest.approx(np.average(losses, weights=weights), rel=1e-6)

    @pytest.mark.parametrize("method", ["coop", "cocoop", "linear-probe"])
    def test_weights_have_an_effect_in_batches_of_one(self, method):
        weights = np.where(Y == "cat", 0.01, 1.0)
        params = {"method": method, "batch_size": 1, "max_epochs": 2, "warmup_epochs": 0}
        plain, weighted = make(**params).fit(X, Y), make(**params).fit(X, Y, sample_weight=weights)
        assert np.abs(weighted.predict_proba(X) - plain.predict_proba(X)).max() > 1e-4
