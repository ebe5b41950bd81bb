"""CoOp, compared with prompts built one row of 77 embeddings at a time."""

import numpy as np
import pytest
import torch
from plain_prompts import encode, plain_features, plain_rows
from toy_backbone import AnyWidthBackbone
from tuning_problem import encode as features_of
from tuning_problem import problem_of

from clipcal.backbones import open_backbone
from clipcal.exceptions import ClassNameError
from clipcal.methods import METHODS, CoOp, KgCoOp, zero_shot_features
from clipcal.regularizers import AnchorRegularizer
from clipcal.training import _chunks, torch_generator

# One token and several, a name whose last token includes the full stop, and one with punctuation and digits.
NAMES = ["dog", "golden retriever puppy", "crane (bird)", "Boeing 737-800", "x"]


@pytest.fixture
def mini():
    return open_backbone("mini", device="cpu", precision="fp32")


def learner_of(backbone, seed=0, **params):
    return CoOp(**params).learner(problem_of(backbone, NAMES, seed=seed))


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("n_context", [1, 4, 5])
def test_features_and_gradients_equal_those_of_full_prompts(tiny_backbone, position, n_context):
    learner = learner_of(tiny_backbone, context_init=None, n_context=n_context, class_token_position=position)
    with torch.no_grad():
        learner.context.mul_(25)  # to the norm of word embeddings, so that each position has an influence
    prompts = learner.prompts(NAMES)
    assert prompts.tokens.shape[1] < 77
    features = features_of(learner, prompts)
    context = learner.context.detach().clone().requires_grad_()
    expected = torch.stack(
        [plain_features(tiny_backbone, plain_rows(tiny_backbone, context, name, position)) for name in NAMES]
    )
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    target = torch.linspace(-1, 1, features.numel()).reshape(features.shape)
    (features * target).sum().backward()
    (expected * target).sum().backward()
    assert context.grad.abs().max() > 1e-3
    torch.testing.assert_close(learner.context.grad, context.grad, atol=1e-5, rtol=1e-4)


def test_positions_of_the_class_name_give_different_features(tiny_backbone):
    features = {}
    for position in ("end", "middle", "front"):
        learner = learner_of(tiny_backbone, class_token_position=position)
        features[position] = features_of(learner, learner.prompts(NAMES)).detach()
    assert (features["end"] - features["middle"]).abs().max() > 1e-2
    assert (features["front"] - features["middle"]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["tiny", "mini"])
def test_initial_words_give_zero_shot_features(kind, tiny_backbone, mini):
    backbone = {"tiny": tiny_backbone, "mini": mini}[kind]
    learner = learner_of(backbone)
    features = features_of(learner, learner.prompts(NAMES)).detach()
    expected = zero_shot_features(backbone, NAMES, "a photo of a {}.")
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    other = zero_shot_features(backbone, NAMES, "a picture of the {}.")
    assert (features - other).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("template", "whole"),
    [
        ("{}, a type of pet.", "a photo of a {}, a type of pet."),
        ("cute {}.", "a photo of a cute {}."),
        ("{}", "a photo of a {}"),
    ],
)
@pytest.mark.parametrize("class_specific", [False, True])
def test_template_words_are_part_of_the_prompt(tiny_backbone, template, whole, class_specific):
    learner = learner_of(tiny_backbone, template=template, class_specific=class_specific)
    assert learner.context.shape[-2:] == (4, 64)
    expected = zero_shot_features(tiny_backbone, NAMES, whole)
    features = features_of(learner, learner.prompts(NAMES)).detach()
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    assert (features - zero_shot_features(tiny_backbone, NAMES, "a photo of a {}.")).abs().max() > 1e-3


def test_context_init_with_punctuation(tiny_backbone):
    text = "a type of pet, a photo of a"
    learner = learner_of(tiny_backbone, context_init=text)
    assert len(learner.context) == 9
    expected = zero_shot_features(tiny_backbone, NAMES, text + " {}.")
    torch.testing.assert_close(features_of(learner, learner.prompts(NAMES)), expected, atol=1e-5, rtol=0)


def test_names_include_one_that_merges_with_the_full_stop(tiny_backbone):
    assert encode(tiny_backbone, "(bird).") != [*encode(tiny_backbone, "(bird)"), *encode(tiny_backbone, ".")]


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_class_specific_contexts_affect_only_their_class(tiny_backbone, position):
    learner = learner_of(
        tiny_backbone,
        context_init=None,
        n_context=3,
        class_specific=True,
        class_token_position=position,
        text_chunk_size=2,
    )
    assert learner.context.shape == (len(NAMES), 3, 64)
    assert not learner.supports_new_classes
    with torch.no_grad():
        learner.context.copy_(0.5 * torch.randn(learner.context.shape, generator=torch_generator(1)))
    features = features_of(learner, learner.prompts(NAMES))
    rows = [plain_rows(tiny_backbone, learner.context[i], name, position) for i, name in enumerate(NAMES)]
    expected = torch.stack([plain_features(tiny_backbone, row) for row in rows])
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    features[2].sum().backward()
    reached = learner.context.grad.abs().amax(dim=(1, 2)) > 0
    assert reached.tolist() == [False, False, True, False, False]


class TestRandomStart:
    def test_default_length_and_standard_deviation(self, tiny_backbone):
        context = learner_of(tiny_backbone, context_init=None).context
        assert context.shape == (16, 64)
        assert context.std().item() == pytest.approx(0.02, rel=0.1)
        assert context.mean().item() == pytest.approx(0, abs=0.002)

    def test_depends_on_the_seed(self, tiny_backbone):
        first, again, other = (
            learner_of(tiny_backbone, context_init=None, seed=seed).context for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.isclose(first, other).any()


def test_class_specific_random_contexts_differ(tiny_backbone):
    learner = learner_of(tiny_backbone, context_init=None, n_context=8, class_specific=True)
    assert learner.context.shape == (len(NAMES), 8, tiny_backbone.token_dim)
    # The whole tensor is drawn at once, from the generator of the fit.
    drawn = torch.randn(learner.context.shape, generator=torch_generator(0))
    torch.testing.assert_close(learner.context.detach(), 0.02 * drawn)
    starts = learner.context.detach().flatten(1)
    assert torch.pdist(starts).min() > 0.1


def test_class_specific_contexts_from_words_are_equal(tiny_backbone):
    learner = learner_of(tiny_backbone, class_specific=True)
    shared = learner_of(tiny_backbone).context
    for context in learner.context:
        torch.testing.assert_close(context, shared)


@pytest.mark.parametrize("text", ["a_photo_of_a", "a photo_of a", "a photo of a "])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_underscores_in_context_init_are_spaces(mini, text, position):
    expected = learner_of(mini, context_init="a photo of a", class_token_position=position)
    learner = learner_of(mini, context_init=text, class_token_position=position)
    assert learner.context.shape[0] == 4
    torch.testing.assert_close(learner.context, expected.context)
    with torch.no_grad():
        features = [features_of(made, made.prompts(NAMES)) for made in (learner, expected)]
    torch.testing.assert_close(*features)


def test_context_init_of_underscores_raises(mini):
    with pytest.raises(ValueError, match="'__' contains no words; use None"):
        learner_of(mini, context_init="__")


@pytest.mark.parametrize("position", ["end", "middle"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_chunks_do_not_change_features_and_gradients(tiny_backbone, position, class_specific):
    results = []
    for size in (256, 2, 1):
        learner = learner_of(
            tiny_backbone,
            class_token_position=position,
            class_specific=class_specific,
            text_chunk_size=size,
        )
        features = features_of(learner, learner.prompts(NAMES))
        (features * torch.linspace(-1, 1, 64)).sum().backward()
        results.append((features.detach(), learner.context.grad))
    for features, gradient in results[1:]:
        torch.testing.assert_close(features, results[0][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(gradient, results[0][1], atol=1e-5, rtol=1e-4)
    assert results[0][1].abs().max() > 1e-2


def test_text_chunk_size_limits_each_pass(tiny_backbone, monkeypatch):
    sizes = []
    encode = tiny_backbone.encode_suffixes
    monkeypatch.setattr(
        tiny_backbone,
        "encode_suffixes",
        lambda prefix, suffixes, packing, deep: (
            sizes.append(len(packing)) or encode(prefix, suffixes, packing)
        ),
        raising=False,
    )
    learner = learner_of(tiny_backbone, text_chunk_size=2)
    features_of(learner, learner.prompts(NAMES)).sum().backward()
    assert sizes == 2 * [2, 2, 1]
    sizes.clear()
    learner = learner_of(tiny_backbone)
    features_of(learner, learner.prompts(NAMES)).sum().backward()
    assert sizes == [5]


def test_memory_budget_determines_the_chunks(tiny_backbone):
    lengths = torch.tensor([3, 5, 5, 10, 3])

    def ends(size, cost, budget):
        return [rows.stop for rows in _chunks.chunks_of(lengths, size, cost=cost, budget=budget)]

    assert ends("auto", 10, 99) == [2, 3, 5]
    assert ends("auto", 10, 1) == [1, 2, 3, 4, 5]
    assert ends("auto", 10, 1000) == [5]
    assert ends(2, 10, 1000) == [2, 4, 6]
    assert len(ends("auto", None, 1)) == 1

    learner = learner_of(tiny_backbone)
    whole = features_of(learner, learner.prompts(NAMES))
    learner.encoder.memory_budget = 9 * tiny_backbone.text_bytes_per_token
    torch.testing.assert_close(features_of(learner, learner.prompts(NAMES)), whole, atol=1e-6, rtol=0)


def test_context_is_the_only_trainable_parameter(tiny_backbone):
    learner = learner_of(tiny_backbone)
    assert [name for name, _ in learner.named_parameters()] == ["context"]
    features_of(learner, learner.prompts(NAMES)).sum().backward()
    assert learner.context.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in tiny_backbone.model.parameters())


def test_a_backbone_that_is_a_module_is_not_learned():
    class ModuleBackbone(torch.nn.Module, AnyWidthBackbone):
        def __init__(self):
            super().__init__()
            self.embedding_dim = 8
            self.layer = torch.nn.Linear(2, 2)

    learner = learner_of(ModuleBackbone())
    assert [name for name, _ in learner.named_parameters()] == ["context"]
    assert list(learner.arrays()) == ["context"]


def test_arrays_are_copies_and_can_be_loaded(tiny_backbone):
    learner = learner_of(tiny_backbone)
    arrays = learner.arrays()
    assert arrays["context"].dtype == np.float32
    with torch.no_grad():
        learner.context.zero_()
    assert arrays["context"].any()
    learner.load_arrays(arrays)
    np.testing.assert_array_equal(learner.context.detach(), arrays["context"])


class TestErrors:
    def test_contradicting_n_context_and_context_init_raise(self, tiny_backbone):
        with pytest.raises(ValueError, match=r"'a photo of a' has 4 tokens, but n_context=16; use"):
            learner_of(tiny_backbone, n_context=16)
        assert len(learner_of(tiny_backbone, n_context=4).context) == 4

    @pytest.mark.parametrize("text", ["", "  "])
    def test_empty_context_init_raises(self, tiny_backbone, text):
        with pytest.raises(ValueError, match=r"contains no words; use None"):
            learner_of(tiny_backbone, context_init=text)

    def test_too_long_context_raises(self, tiny_backbone):
        # Of 77 positions, 4 are needed for the markers, a name of one token and the full stop.
        learner = learner_of(tiny_backbone, context_init=None, n_context=73)
        assert features_of(learner, learner.prompts(["dog"])).shape == (1, 64)
        with pytest.raises(ClassNameError, match=r"74 tokens leaves.*77 positions.*smaller n_context"):
            learner_of(tiny_backbone, context_init=None, n_context=74)

    @pytest.mark.parametrize("position", ["end", "front"])
    def test_too_long_name_raises(self, tiny_backbone, position):
        learner = learner_of(tiny_backbone, class_token_position=position)
        name = "very " * 71 + "long"
        with pytest.raises(ClassNameError, match=rf"'a photo of a {name}\.' has 79 tokens.*limit is 77"):
            learner.prompts(["dog", name])

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"class_token_position": "back"}, "'class_token_position'.*Got 'back'"),
            ({"context_init": None, "n_context": 0}, "'n_context'.*Got 0"),
            ({"text_chunk_size": 2.5}, r"'text_chunk_size'.*Got 2\.5"),
            ({"class_specific": "yes"}, "'class_specific'.*Got 'yes'"),
            ({"template": "a type of pet."}, r"exactly one '\{\}'"),
            (
                {"template": "{}, a pet.", "class_token_position": "front"},
                "template='{}, a pet.' needs class_token_position='end', but it is 'front'",
            ),
        ],
    )
    def test_invalid_parameters_raise(self, params, words):
        with pytest.raises(ValueError, match=words):
            learner_of(AnyWidthBackbone(), **params).prompts(NAMES)


def test_kgcoop_is_coop_with_an_anchor():
    assert isinstance(KgCoOp(), CoOp)
    assert [type(own) for own in KgCoOp().regularizers()] == [AnchorRegularizer]
    assert CoOp().regularizers() == []
    assert METHODS["kgcoop"] is KgCoOp


def test_name_that_ends_in_punctuation_is_moved_as_a_whole(tiny_backbone):
    learner = learner_of(tiny_backbone, context_init="a photo of", class_token_position="front")
    for name in ("C++", "who?", "10%"):
        prompts = learner.prompts([name])
        tokens = prompts.tokens[0][prompts.order[0]]
        sentence = tiny_backbone.tokenize([f"{name}."])[0]
        n_name = int((sentence != 0).sum()) - 2  # without the markers
        if sentence[n_name] == tiny_backbone.tokenize(["."])[0, 1]:
            n_name -= 1
        assert tokens[1 : 1 + n_name].tolist() == sentence[1 : 1 + n_name].tolist()
