"""The recipe "fast" of all methods that have it."""

import numpy as np
import pytest

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.methods import METHODS

FAST = [name for name, method in METHODS.items() if "fast" in getattr(method(), "recipes", {})]


@pytest.fixture(scope="module")
def images():
    X, y = make_shapes("textures", n_per_class=6, random_state=0, return_X_y=True)
    rows = np.isin(y, np.unique(y)[:6])
    return CLIPImageEncoder("mini").transform(X[rows]), y[rows]


def test_methods_with_the_recipe():
    assert FAST == ["coop", "kgcoop", "prograd", "tcp", "clip-adapter"]


@pytest.mark.parametrize("name", FAST)
def test_trains_the_chosen_number_of_epochs(name, images):
    X, y = images
    clf = PromptTunedCLIPClassifier("mini", method=name, recipe="fast", random_state=0).fit(X, y)
    losses = [record["mean_log_loss"] for record in clf.validation_history_]
    assert len(clf.history_) == np.argmin(losses)
    assert len(losses) == np.argmin(losses) + 6
    assert {"log_loss", "new_log_loss"} <= set(clf.validation_history_[0])
    names = ["circle", "square", "star"]
    np.testing.assert_allclose(clf.with_classes(names).predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("name", FAST)
def test_lowers_the_training_loss(name, images):
    clf = PromptTunedCLIPClassifier("mini", method=name, recipe="fast", max_epochs=8, random_state=0)
    losses = [record["cross_entropy"] for record in clf.fit(*images).history_]
    assert len(losses) == 8
    assert min(losses[4:]) < losses[0]


def test_other_methods_name_their_recipes(images):
    clf = PromptTunedCLIPClassifier("mini", method="taskres", recipe="fast")
    with pytest.raises(ValueError, match="'fast' is unknown for method TaskRes; choose one of 'original'"):
        clf.fit(*images)
