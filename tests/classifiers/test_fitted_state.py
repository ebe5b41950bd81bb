"""State of fitted classifiers and their copies for other classes."""

import numpy as np
import pytest
from toy_backbone import AnyWidthBackbone

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.exceptions import BackboneError, ClassNameError
from clipcal.methods import CoOp, zero_shot_features
from clipcal.regularizers import DynamicOutlierRegularizer

X = np.random.default_rng(0).standard_normal((8, 12))
Y = np.array(["cat", "dog"] * 4)


def fitted(**params):
    params.setdefault("method", CoOp(context_init=None, n_context=4))
    return PromptTunedCLIPClassifier(AnyWidthBackbone(), max_epochs=2, random_state=0, **params).fit(X, Y)


def test_with_classes_uses_the_method_of_the_fit():
    clf = fitted()
    before = clf.with_classes(["ant", "bee"]).predict_proba(X)
    clf.set_params(method=CoOp(context_init=None, n_context=16, class_token_position="front"))
    np.testing.assert_array_equal(clf.with_classes(["ant", "bee"]).predict_proba(X), before)


def test_with_classes_copies_mutable_attributes():
    clf = fitted()
    other = clf.with_classes(["ant", "bee"])
    other.learned_["context"][:] = 0
    other.history_.clear()
    assert np.abs(clf.learned_["context"]).max() > 0
    assert len(clf.history_) == 2


@pytest.mark.parametrize("y", [["cat", "dog", float("nan"), "cat"], ["cat", 1, "cat", 1]])
def test_labels_of_different_types_raise(y):
    with pytest.raises(ValueError, match="got a mixture of"):
        ZeroShotCLIPClassifier(AnyWidthBackbone()).fit(X[:4], y)


def test_with_classes_raises_for_labels_of_different_types():
    with pytest.raises(ClassNameError, match="mixture of float, str"):
        fitted().with_classes(["a", float("nan")])
    with pytest.raises(ClassNameError, match="got None"):
        fitted().with_classes(None)


@pytest.mark.parametrize("scale", [1e-60, 1e300])
def test_scale_of_sample_weights_does_not_matter(scale):
    plain = fitted().predict_proba(X)
    scaled = PromptTunedCLIPClassifier(
        AnyWidthBackbone(), method=CoOp(context_init=None, n_context=4), max_epochs=2, random_state=0
    ).fit(X, Y, sample_weight=np.full(len(Y), scale))
    np.testing.assert_allclose(scaled.predict_proba(X), plain)


def test_integer_labels_without_names_warn():
    with pytest.warns(UserWarning, match="cross_val_predict has encoded them as integers"):
        ZeroShotCLIPClassifier(AnyWidthBackbone()).fit(X, (Y == "dog").astype(int))


def test_cached_features_depend_on_the_precision():
    nouns = [f"noun {i}" for i in range(1000)]
    exact, coarse = AnyWidthBackbone(), AnyWidthBackbone()
    coarse.precision = "bf16"
    coarse.encode_text = lambda embeddings, tokens: exact.encode_text(embeddings, tokens).bfloat16().float()
    tables = [zero_shot_features(backbone, nouns, "a {}.") for backbone in (exact, coarse)]
    assert not np.array_equal(*tables)


def test_too_long_nouns_of_a_lexicon_are_dropped():
    clf = fitted(regularizer=DynamicOutlierRegularizer(lexicon=["long " * 100, "river"]))
    assert clf.history_[-1]["dor"] >= 0


class _Nameless:
    """Object with the methods of a backbone but without its attributes."""

    preprocess = augment = encode_images = tokenize = text_lengths = embed_tokens = encode_text = print


def test_error_for_an_invalid_backbone_names_the_missing_attributes():
    with pytest.raises(BackboneError, match="_Nameless, which lacks name, embedding_dim"):
        ZeroShotCLIPClassifier(_Nameless()).fit(X, Y)
