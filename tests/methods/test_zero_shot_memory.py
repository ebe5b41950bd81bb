"""Caching of zero-shot text features."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from toy_backbone import AnyWidthBackbone

from clipcal import DynamicOutlierRegularizer, FeatureCache, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.exceptions import ClassNameError
from clipcal.methods import _zero_shot, zero_shot_features

TEMPLATE = "a photo of a {}."
LONG = "very " * 100 + "long"


class Counting(AnyWidthBackbone):
    """Backbone that records the texts it tokenizes."""

    def __init__(self, embedding_dim=32):
        super().__init__(embedding_dim)
        self.texts = []

    def for_width(self, n_features):
        """Return the backbone itself, to keep its records."""
        return self

    def tokenize(self, texts):
        """Record and tokenize texts."""
        tokens = super().tokenize(texts)
        self.texts += texts
        return tokens


def encode(names, memory, template=TEMPLATE, **kwargs):
    backbone = Counting()
    return zero_shot_features(backbone, names, template, memory=memory, **kwargs).numpy(), backbone.texts


def test_only_new_texts_are_encoded(tmp_path):
    names = [f"thing {i}" for i in range(1200)]
    first, n_first = encode(names, tmp_path)
    again, new = encode([*names[::-1], "dog", "dog"], tmp_path)
    assert len(n_first) == 1200 and new == ["a photo of a dog."]
    np.testing.assert_array_equal(again[:-2][::-1], first)
    np.testing.assert_array_equal(again[-1], again[-2])
    plain = zero_shot_features(AnyWidthBackbone(), [*names, "dog"], TEMPLATE).numpy()
    np.testing.assert_allclose(np.append(first, again[-1:], axis=0), plain, atol=1e-6)
    assert encode(["dog"], tmp_path, "a drawing of a {}.")[1] == ["a drawing of a dog."]


def test_too_long_texts_are_cached_as_zeros_and_raise_without_skip_long(tmp_path):
    features, _ = encode(["dog", LONG], tmp_path, skip_long=True)
    assert features[0].any() and not features[1].any()
    again, new = encode([LONG, "dog"], tmp_path, skip_long=True)
    assert new == [] and not again[0].any()
    for names in ([LONG], ["dog", LONG, "cat"]):
        with pytest.raises(ClassNameError, match="tokens"):
            encode(names, tmp_path)
    assert encode(["dog"], tmp_path)[1] == []


@pytest.mark.parametrize("known", [[], ["cat"]])
def test_all_new_texts_can_be_too_long(tiny_backbone, tmp_path, known):
    names = [*known, LONG]
    zero_shot_features(tiny_backbone, known, TEMPLATE, memory=tmp_path) if known else None
    features = zero_shot_features(tiny_backbone, names, TEMPLATE, memory=tmp_path, skip_long=True)
    assert features.any(dim=1).tolist() == [True] * len(known) + [False]


def test_interrupted_run_is_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(_zero_shot, "_PIECE", 10)

    class Interrupted(Counting):
        def tokenize(self, texts):
            if len(self.texts) == 20:
                raise KeyboardInterrupt
            return super().tokenize(texts)

    names = [f"thing {i}" for i in range(35)]
    with pytest.raises(KeyboardInterrupt):
        zero_shot_features(Interrupted(), names, TEMPLATE, memory=tmp_path)
    assert len(encode(names, tmp_path)[1]) == 15


def test_classifiers_cache_their_prompts(tmp_path):
    backbone = Counting()
    X, y = np.random.default_rng(0).normal(size=(12, 32)), ["ant", "bee", "cow"] * 4
    cache = FeatureCache(tmp_path)
    first = ZeroShotCLIPClassifier(backbone, template=[TEMPLATE, "a {}."], memory=cache).fit(X, y)
    assert len(backbone.texts) == 6
    [table] = cache.info()
    assert (table["kind"], table["n_rows"]) == ("texts", 6)
    backbone.texts.clear()
    again = ZeroShotCLIPClassifier(backbone, template=["a {}.", TEMPLATE], memory=cache).fit(X, y)
    np.testing.assert_allclose(again.text_features_, first.text_features_, atol=1e-6)
    assert backbone.texts == []
    regularizers = [DynamicOutlierRegularizer(lexicon=["dog", "elk", "fox"], batch_size=2), "kg"]
    for regularizer in regularizers:
        tuned = PromptTunedCLIPClassifier(backbone, regularizer=regularizer, max_epochs=1, random_state=0)
        kept = pickle.loads(pickle.dumps(tuned)).set_params(memory=cache, backbone=backbone)
        np.testing.assert_allclose(kept.fit(X, y).text_features_, tuned.fit(X, y).text_features_, atol=1e-6)


@pytest.mark.slow
def test_cached_nouns_of_wordnet_need_no_backbone(tmp_path):
    code = """
import sys
from clipcal.backbones import open_backbone
from clipcal.methods import zero_shot_features
from clipcal.text import DEFAULT_TEMPLATE, load_nouns
backbone = open_backbone("mini", device="cpu", memory="cache")
zero_shot_features(backbone, load_nouns(), DEFAULT_TEMPLATE, skip_long=True, memory="cache")
print("open_clip" in sys.modules)
"""
    for expected in ("True", "False"):
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert run.stdout.strip() == expected
