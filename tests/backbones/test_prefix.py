"""Encoding names behind a shared prefix equals the text tower on padded prompts."""

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import normalize
from tuning_problem import problem_of

from clipcal.backbones import OpenClipBackbone, Packing
from clipcal.exceptions import BackboneError
from clipcal.methods import CoOp
from clipcal.text import load_nouns

VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
TEXT = {"width": 64, "heads": 2, "layers": 3}
SHARING = {
    "OpenAI's": lambda: open_clip.CLIP(32, VISION, TEXT, quick_gelu=True),
    "OpenCLIP's": lambda: open_clip.CLIP(32, VISION, TEXT),
    "custom text": lambda: open_clip.CustomTextCLIP(32, VISION, TEXT),
    "custom text, biased projection": lambda: open_clip.CustomTextCLIP(
        32, VISION, TEXT | {"proj_bias": True}
    ),
    "scaled layers": lambda: open_clip.CLIP(32, VISION, TEXT | {"ls_init_value": 0.5}),
    "one layer": lambda: open_clip.CLIP(32, VISION, TEXT | {"layers": 1}),
}
OTHERS = {
    "bidirectional": lambda: open_clip.CustomTextCLIP(32, VISION, TEXT | {"no_causal_mask": True}),
    "reads the first": lambda: open_clip.CustomTextCLIP(32, VISION, TEXT | {"pool_type": "first"}),
    "reads the last": lambda: open_clip.CustomTextCLIP(32, VISION, TEXT | {"pool_type": "last"}),
    "normed queries": lambda: open_clip.CustomTextCLIP(32, VISION, TEXT | {"qk_norm": True}),
    "appended token": lambda: open_clip.CoCa(
        32,
        multimodal_cfg={"context_length": 76, "width": 64, "heads": 2, "layers": 1},
        text_cfg=TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
        vision_cfg=VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    ),
}
NOUNS = load_nouns()
MADE: dict[str, OpenClipBackbone] = {}


def backbone_of(kind):
    if kind not in MADE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = (SHARING | OTHERS)[kind]()
            for name, value in model.named_parameters():
                # Biases and norms are initialized to 0 and 1, where omitting them would have no effect.
                if value.ndim == 1:
                    value.data += 0.1 * torch.randn_like(value)
                if "embedding" in name:
                    value.data *= 10
        MADE[kind] = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
    return MADE[kind]


def some_names(n):
    """Return nouns of one to many tokens, including the longest ones."""
    longest = sorted(NOUNS, key=len)[-2:]
    return [*longest, *NOUNS[:: len(NOUNS) // n]][:n] if n > 3 else list(NOUNS[40_000 : 40_000 + n])


def padded(backbone, context, prompts):
    """Encode as published trainers do: each prompt separately, padded to the context length."""
    tokens = nn.functional.pad(prompts.tokens, (0, backbone.context_length - prompts.tokens.shape[1]))
    embeddings = backbone.embed_tokens(tokens)
    rest = embeddings[:, 1 + len(context) :]
    embeddings = torch.cat([embeddings[:, :1], context.expand(len(tokens), -1, -1), rest], dim=1)
    return normalize(backbone.text_tower.encode(embeddings, tokens), dim=-1)


def loss_of(features):
    """Return a loss with a different weight for each coordinate, so that an error in any one changes it."""
    weights = torch.sin(torch.arange(features.numel(), dtype=torch.float32)).reshape(features.shape)
    return (weights * features).sum()


def assert_equal_to_padded(backbone, names, n_context, text_chunk_size="auto"):
    coop = CoOp(context_init=None, n_context=n_context, text_chunk_size=text_chunk_size)
    learner = coop.learner(problem_of(backbone, names, seed=1))
    learner.context.data *= 20
    prompts = learner.prompts(names)
    features = learner.encode_texts(prompts, None)
    loss_of(features).backward()
    context = learner.context.detach().clone().requires_grad_()
    # In chunks, as the padded prompts of a thousand names do not fit in memory.
    expected = []
    for start in range(0, len(names), 100):
        part = padded(backbone, context, prompts.take(slice(start, start + 100)))
        weights = torch.sin(torch.arange(start * part.shape[1], start * part.shape[1] + part.numel()).float())
        (weights.reshape(part.shape) * part).sum().backward()
        expected.append(part.detach())
    torch.testing.assert_close(features, torch.cat(expected), atol=1e-6, rtol=0)
    error = (learner.context.grad - context.grad).norm() / context.grad.norm()
    assert error < 1e-5
    assert context.grad.norm() > 1e-3


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("n_names", [1, 2, 50])
def test_equals_the_padded_computation(kind, n_names):
    assert backbone_of(kind).shares_prefix
    assert_equal_to_padded(backbone_of(kind), some_names(n_names), 16)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["OpenAI's", "OpenCLIP's", "custom text"])
def test_equals_the_padded_computation_for_a_thousand_names(kind):
    assert_equal_to_padded(backbone_of(kind), some_names(1000), 16)
    assert_equal_to_padded(backbone_of(kind), some_names(1000), 16, text_chunk_size=130)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.integers(0, len(NOUNS) - 1), min_size=1, max_size=60, unique=True),
    n_context=st.integers(1, 24),
    chunk=st.sampled_from(["auto", 1, 7]),
)
def test_equals_the_padded_computation_for_random_names_and_contexts(rows, n_context, chunk):
    assert_equal_to_padded(backbone_of("OpenAI's"), [NOUNS[row] for row in rows], n_context, chunk)


@pytest.mark.parametrize("kind", OTHERS)
def test_unsupported_towers_encode_each_prompt_separately(kind):
    backbone = backbone_of(kind)
    assert not backbone.shares_prefix
    learner = CoOp(context_init=None, n_context=4).learner(problem_of(backbone, ["x"] * 3, seed=1))
    prompts = learner.prompts(["dog", "fire engine", "x"])
    torch.testing.assert_close(
        learner.encode_texts(prompts, None), padded(backbone, learner.context, prompts), atol=1e-6, rtol=0
    )
    with pytest.raises(BackboneError, match=r"does not support a shared prefix .* use encode_text"):
        backbone.encode_suffixes(learner.context, learner.context, prompts.packing(1))


def test_tower_with_the_right_structure_but_other_outputs_is_detected():
    class Louder(nn.LayerNorm):
        """A norm whose output depends on the sequence length."""

        def forward(self, x):
            return super().forward(x) * x.shape[1]

    model = open_clip.CLIP(32, VISION, TEXT)
    model.transformer.resblocks[1].ln_2 = Louder(64)
    backbone = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
    with pytest.warns(UserWarning, match="has the structure of CLIP's but different outputs"):
        assert not backbone.shares_prefix


@pytest.mark.parametrize("kind", ["OpenAI's", "one layer"])
class TestSeveralPrefixesAndDeepPrompts:
    """Several prefixes, as in CoCoOp (one per image), and deep prompts, as in MaPLe."""

    lengths = torch.tensor([2, 5, 1, 3] * 10)
    n_prefix = 5

    def inputs(self, n_prompts):
        generator = torch.Generator().manual_seed(0)
        packing = Packing(self.lengths, self.n_prefix, torch.device("cpu"))
        prefix = torch.randn(n_prompts, self.n_prefix, 64, generator=generator)
        suffixes = torch.randn(packing.n_tokens, 64, generator=generator)
        deep = {number: torch.randn(n_prompts, 3, 64, generator=generator) for number in (1, 2)}
        return packing, prefix, suffixes, deep

    def plain(self, backbone, prefix, suffixes, deep):
        """Encode one prefix with one name at a time, with the blocks of open_clip."""
        module, features = backbone.text_tower.module, []
        for name, part in enumerate(suffixes.split(self.lengths.tolist())):
            x = torch.cat([prefix, part])
            x = (x + module.positional_embedding[: len(x)])[None]
            for number, block in enumerate(module.transformer.resblocks):
                if number in deep:
                    own = deep[number] if deep[number].ndim == 2 else deep[number][name]
                    x = torch.cat([x[:, :1], own[None], x[:, 1 + len(own) :]], dim=1)
                x = block(x, attn_mask=module.attn_mask[: x.shape[1], : x.shape[1]])
            features.append(module.ln_final(x)[0, -1] @ module.text_projection)
        return torch.stack(features)

    @pytest.mark.parametrize("with_deep", [False, True])
    def test_equals_encoding_one_prompt_at_a_time(self, kind, with_deep):
        backbone = backbone_of(kind)
        packing, prefix, suffixes, deep = self.inputs(3)
        deep = {number: deep[number] for number in deep if with_deep}
        leaves = [prefix, suffixes, *deep.values()]
        for leaf in leaves:
            leaf.requires_grad_()
        features = backbone.encode_suffixes(prefix, suffixes, packing, deep)
        assert features.shape == (3, 40, 32)
        expected = torch.stack(
            [self.plain(backbone, prefix[i], suffixes, {k: v[i] for k, v in deep.items()}) for i in range(3)]
        )
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
        reached = [leaf for leaf in leaves if kind != "one layer" or leaf.ndim == 2 or len(leaf[0]) == 5]
        for ours, plain in zip(
            torch.autograd.grad(loss_of(features), reached),
            torch.autograd.grad(loss_of(expected), reached),
            strict=True,
        ):
            torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)

    def test_shared_deep_prompts_and_own_suffixes(self, kind):
        backbone = backbone_of(kind)
        packing, prefix, suffixes, deep = self.inputs(2)
        own = torch.stack([suffixes, suffixes.flip(0)])
        shared = {number: prompts[0] for number, prompts in deep.items()}
        features = backbone.encode_suffixes(prefix, own, packing, shared)
        for i in range(2):
            torch.testing.assert_close(
                features[i], self.plain(backbone, prefix[i], own[i], shared), atol=1e-5, rtol=1e-5
            )
        single = backbone.encode_suffixes(prefix[1], own[1], packing, shared)
        torch.testing.assert_close(single, features[1], atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize(
        "blocks",
        [{1: 3}, {0: 4, 2: 4}, {0: -2, 1: 3, 2: 2}, {1: 2, 2: -4}, {2: 1}],
        ids=lambda blocks: " ".join(f"{k}:{n}" for k, n in blocks.items()),
    )
    @pytest.mark.parametrize("several", [False, True])
    def test_deep_prompts_that_differ_between_names(self, kind, blocks, several):
        """Block and number of replaced positions; a minus sign for prompts that all names share."""
        backbone = backbone_of(kind)
        packing, prefix, suffixes, _ = self.inputs(2)
        generator = torch.Generator().manual_seed(3)
        deep = {
            number: torch.randn(*((2, 40, n, 64) if n > 0 else (2, -n, 64)), generator=generator)
            for number, n in blocks.items()
        }
        if not several:
            prefix = prefix[0]
            deep = {number: p[:1] if p.ndim == 4 else p[0] for number, p in deep.items()}
        leaves = [prefix, suffixes, *deep.values()]
        for leaf in leaves:
            leaf.requires_grad_()
        features = backbone.encode_suffixes(prefix, suffixes, packing, deep)
        if several:
            expected = torch.stack(
                [
                    self.plain(backbone, prefix[i], suffixes, {k: v[i] for k, v in deep.items()})
                    for i in (0, 1)
                ]
            )
        else:
            own = {k: v[0] if v.ndim == 4 else v for k, v in deep.items()}
            expected = self.plain(backbone, prefix, suffixes, own)
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
        ours, plain = (
            torch.autograd.grad(loss_of(result), leaves, allow_unused=True) for result in (features, expected)
        )
        for found, wanted in zip(ours, plain, strict=True):
            # Prompts of blocks that a tower of one layer does not have.
            assert (found is None) == (wanted is None)
            if wanted is not None:
                torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_names_do_not_affect_each_other():
    backbone = backbone_of("OpenAI's")
    packing = Packing(torch.tensor([3, 4, 2]), 2, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    prefix, suffixes = torch.randn(2, 64, generator=generator), torch.randn(9, 64, generator=generator)
    before = backbone.encode_suffixes(prefix, suffixes, packing)
    suffixes[3:7] *= -1
    after = backbone.encode_suffixes(prefix, suffixes, packing)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], atol=1e-6, rtol=0)
    assert (after[1] - before[1]).abs().max() > 0.1


def test_bfloat16_is_as_accurate_as_autocast():
    model = backbone_of("OpenAI's").model
    names = some_names(50)
    errors = []
    learner = CoOp(context_init=None).learner(problem_of(backbone_of("OpenAI's"), ["x"] * 50, seed=0))
    exact = learner.encode_texts(learner.prompts(names), None)
    low = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu", precision="bf16")
    learner = CoOp(context_init=None).learner(problem_of(low, ["x"] * 50, seed=0))
    prompts = learner.prompts(names)
    features = learner.encode_texts(prompts, None)
    assert features.dtype == learner.context.dtype == torch.float32
    loss_of(features).backward()
    assert learner.context.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        autocast = padded(low, learner.context, prompts).float()
    errors = [(other - exact).norm(dim=1).max().item() for other in (features, autocast)]
    assert 0 < errors[0] < 1.5 * errors[1]


def test_autocast_of_the_caller_does_not_affect_shares_prefix():
    backbone = OpenClipBackbone(backbone_of("OpenCLIP's").model, open_clip.SimpleTokenizer(), device="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert backbone.shares_prefix


def test_training_works_after_inference_mode():
    model = backbone_of("OpenCLIP's").model
    backbone = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu", precision="bf16")
    learner = CoOp().learner(problem_of(backbone, ["x"] * 2, seed=0))
    with torch.inference_mode():
        learner.encode_texts(learner.prompts(["dog", "cat"]), None)
    learner.encode_texts(learner.prompts(["dog", "cat"]), None).sum().backward()
    assert learner.context.grad.abs().max() > 0
