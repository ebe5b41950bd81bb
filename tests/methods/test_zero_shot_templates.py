"""Zero-shot text features of one and several templates."""

import numpy as np
import open_clip
import pytest
import torch
from reference_steps import open_clip_features
from toy_backbone import AnyWidthBackbone

from clipcal.backbones import open_backbone
from clipcal.exceptions import ClassNameError
from clipcal.methods import _zero_shot, zero_shot_features
from clipcal.text import find_templates

NAMES = ["star", "hot dog", "a rather long name of many words"]
HAND_MADE = ["a photo of a {}.", "{} texture.", "a {} in a video game."]


class Counting(AnyWidthBackbone):
    """Backbone that records the number of texts of each batch."""

    def __init__(self, embedding_dim=32):
        super().__init__(embedding_dim)
        self.batches = []

    def tokenize(self, texts):
        """Record the batch size and tokenize texts."""
        self.batches.append(len(texts))
        return super().tokenize(texts)


@pytest.fixture(scope="module")
def mini():
    return open_backbone("mini", device="cpu")


def direction_of_mean(backbone, names, templates):
    each = [zero_shot_features(backbone, names, template).double().numpy() for template in templates]
    mean = np.mean(each, axis=0)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("template", [HAND_MADE, "imagenet-7", ("imagenet-7", "oxford_pets")])
def test_features_of_an_ensemble_are_normalized_means(tiny_backbone, tmp_path, template, in_memory):
    memory = None if in_memory else tmp_path
    for _ in range(2):  # the second time from the cache
        features = zero_shot_features(tiny_backbone, NAMES, template, memory=memory)
        expected = direction_of_mean(tiny_backbone, NAMES, find_templates(template))
        np.testing.assert_allclose(features, expected, atol=1e-6)
        assert features.dtype == torch.float32


def test_template_by_text_by_name_and_in_a_list_are_equal(tiny_backbone):
    alone = zero_shot_features(tiny_backbone, NAMES, "a photo of a {}, a type of pet.")
    for template in ("oxford_pets", ["oxford_pets"], ("a photo of a {}, a type of pet.",)):
        assert torch.equal(zero_shot_features(tiny_backbone, NAMES, template), alone)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("imagenet-80", open_clip.OPENAI_IMAGENET_TEMPLATES),
        ("imagenet-7", open_clip.SIMPLE_IMAGENET_TEMPLATES),
    ],
)
def test_known_ensembles_equal_the_classifiers_of_open_clip(mini, name, published):
    tokenizer = mini._tokenizer.tokenizer
    weights = open_clip.build_zero_shot_classifier(mini.model, tokenizer, NAMES, published)
    features = zero_shot_features(mini, NAMES, name)
    torch.testing.assert_close(features, weights.T, atol=1e-5, rtol=0)


def test_words_before_and_after_the_name_change_features(mini):
    def cosine(first, second):
        pair = [zero_shot_features(mini, ["star"], template)[0] for template in (first, second)]
        return torch.dot(*pair).item()

    assert cosine("a photo of a {}.", "a photo of a {}.") == pytest.approx(1, abs=1e-5)
    assert cosine("a photo of a {}.", "a photo of a {}, a type of pet.") < 0.999
    assert cosine("a photo of a {}.", "a painting of a {}.") < 0.999
    assert cosine("{} texture.", "{} pattern.") < 0.999


@pytest.mark.parametrize("in_memory", [True, False])
def test_features_of_names_too_long_for_one_template_are_zeros(tmp_path, in_memory):
    long = "very " * 70 + "long"  # 71 words, two markers and a full stop: 74 of 77 tokens
    names, template = ["dog", long, "cat"], ["{}.", "a b c d {}.", "a {}."]
    memory = None if in_memory else tmp_path
    assert zero_shot_features(AnyWidthBackbone(), names, ["{}.", "a {}."], memory=memory).any(dim=1).all()
    features = zero_shot_features(AnyWidthBackbone(), names, template, skip_long=True, memory=memory)
    assert features.any(dim=1).tolist() == [True, False, True]
    expected = direction_of_mean(AnyWidthBackbone(), ["dog", "cat"], template)
    np.testing.assert_allclose(features[[0, 2]], expected, atol=1e-6)
    with pytest.raises(ClassNameError, match="tokens"):
        zero_shot_features(AnyWidthBackbone(), names, template, memory=memory)


def test_long_lists_are_cached_in_the_process():
    _zero_shot._tables.clear()
    backbone, names = Counting(24), [f"noun {i}" for i in range(1000)]
    first = zero_shot_features(backbone, names, HAND_MADE)
    assert sum(backbone.batches) == 3000 and len(_zero_shot._tables) == 1
    assert torch.equal(zero_shot_features(backbone, tuple(names), tuple(HAND_MADE)), first)
    assert sum(backbone.batches) == 3000
    other = zero_shot_features(backbone, names, HAND_MADE[:2])
    assert sum(backbone.batches) == 5000 and not torch.equal(other, first)
    np.testing.assert_allclose(
        zero_shot_features(backbone, names[::-1], HAND_MADE[:2]).flip(0), other, atol=1e-6
    )
    assert len(_zero_shot._tables) == 2


def test_each_text_of_an_ensemble_is_cached_on_disk(tmp_path):
    backbone = Counting()
    zero_shot_features(backbone, NAMES, HAND_MADE, memory=tmp_path)
    assert sum(backbone.batches) == 9
    zero_shot_features(backbone, NAMES, [*HAND_MADE[::-1], "the {}."], memory=tmp_path)
    assert sum(backbone.batches) == 12


@pytest.mark.parametrize("template", ["no place", ["a {}.", "{} {}"], [], "imagenet80"])
def test_invalid_template_raises_before_encoding(template):
    backbone = Counting()
    with pytest.raises(ClassNameError, match="template"):
        zero_shot_features(backbone, NAMES, template)
    assert backbone.batches == []


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("templates", [HAND_MADE[:1], HAND_MADE])
def test_features_without_normalization_are_means_of_raw_features(
    tiny_backbone, tmp_path, templates, in_memory
):
    memory = None if in_memory else tmp_path
    raw = [open_clip_features(tiny_backbone, template, NAMES) for template in templates]
    for _ in range(2):  # the second time from the cache
        features = zero_shot_features(tiny_backbone, NAMES, templates, normalize=False, memory=memory)
        torch.testing.assert_close(features, torch.stack(raw).mean(dim=0), atol=1e-5, rtol=1e-5)
        unit = zero_shot_features(tiny_backbone, NAMES, templates, memory=memory)
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))
    assert (features.norm(dim=1) - 1).abs().min() > 0.1


def test_long_lists_without_normalization_are_cached_separately():
    _zero_shot._tables.clear()
    names = [f"noun {i}" for i in range(1000)]
    unit, raw = (
        zero_shot_features(AnyWidthBackbone(24), names, HAND_MADE[0], normalize=normalize)
        for normalize in (True, False)
    )
    assert (raw.norm(dim=1) - 1).abs().mean() > 0.1
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=1), unit)
