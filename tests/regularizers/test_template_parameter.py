"""Parameter ``template`` of regularizers: one template, a known name, or an ensemble."""

import numpy as np
import pytest
from sklearn.base import clone
from torch.nn.functional import normalize
from torch.testing import assert_close
from toy_backbone import AnyWidthBackbone

from clipcal import DynamicOutlierRegularizer, PromptTunedCLIPClassifier
from clipcal.classifiers._components import find_regularizer
from clipcal.exceptions import ClassNameError
from clipcal.methods import zero_shot_features
from clipcal.regularizers import AnchorRegularizer

NAMES = ["dog", "river", "hammer"]
NOUNS = ["denim", "violin", "twilight", "granite", "lantern"]
PET, TEXTURE = "a photo of a {}, a type of pet.", "{} texture."


def anchor(**parameters):
    return AnchorRegularizer(weight=50.0, **parameters)


def outlier(**parameters):
    return DynamicOutlierRegularizer(weight=50.0, lexicon=NOUNS, **parameters)


def fit(regularizer, backbone=None):
    X, y = np.random.default_rng(0).normal(size=(12, 32)), NAMES * 4
    clf = PromptTunedCLIPClassifier(
        backbone or AnyWidthBackbone(), regularizer=regularizer, max_epochs=3, random_state=0
    )
    return clf.fit(X, y).text_features_


def test_anchors_of_an_ensemble_are_normalized_means():
    anchors = []

    class Recording(AnchorRegularizer):
        def prepare(self, *given):
            term = super().prepare(*given)
            anchors.append(term.anchors)
            return term

    names = sorted(NAMES)
    pet, texture = (zero_shot_features(AnyWidthBackbone(), names, template) for template in (PET, TEXTURE))
    for template in ([PET, TEXTURE], ("oxford_pets", "dtd")):
        fit(Recording(template=template))
        assert_close(anchors.pop(), normalize(pet + texture, dim=1))


@pytest.mark.parametrize("regularizer", [anchor, outlier])
def test_known_names_equal_their_templates(regularizer):
    pet, texture, both = (fit(regularizer(template=given)) for given in (PET, TEXTURE, [PET, TEXTURE]))
    np.testing.assert_array_equal(fit(regularizer(template="oxford_pets")), pet)
    np.testing.assert_array_equal(fit(regularizer(template=("oxford_pets", "dtd"))), both)
    # The targets of each template differ.
    for first, second in ((pet, texture), (pet, both), (texture, both)):
        assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize("regularizer", [anchor, outlier])
@pytest.mark.parametrize(
    ("template", "error", "words"),
    [
        ("no place", ClassNameError, r"exactly one '\{\}'.*got 'no place'"),
        (["a {}.", "{} {}"], ClassNameError, r"got '\{\} \{\}'"),
        ("imagenet80", ClassNameError, "Did you mean 'imagenet-80'"),
        ([], ClassNameError, "template is empty"),
        (None, ValueError, "'template' parameter.*Got None"),
        (3, ValueError, "'template' parameter.*Got 3"),
    ],
)
def test_invalid_template_raises(regularizer, template, error, words):
    with pytest.raises(error, match=words):
        fit(regularizer(template=template))


@pytest.mark.parametrize("regularizer", [anchor, outlier])
@pytest.mark.parametrize("template", ["no place", ["a {}.", "{} {}"], [], 3])
def test_invalid_template_raises_before_encoding(regularizer, template):
    class Refusing(AnyWidthBackbone):
        def encode_text(self, token_embeddings, tokens):
            raise AssertionError

    with pytest.raises(ValueError, match="template"):
        fit(regularizer(template=template), Refusing())
    # The same check as soon as the regularizer is read.
    with pytest.raises(ValueError, match="template"):
        find_regularizer(regularizer(template=template))


@pytest.mark.parametrize("regularizer", [anchor, outlier])
@pytest.mark.parametrize("template", [["a {}.", "the {}."], ("dtd",), "imagenet-7"])
def test_clone_keeps_the_template(regularizer, template):
    kept = clone(regularizer(template=template))
    fit(kept)
    assert kept.template == template and type(kept.template) is type(template)
