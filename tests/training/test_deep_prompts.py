"""Deep prompts, compared with prompts that are encoded one at a time with all 77 positions."""

import pytest
import torch
from toy_backbone import AnyWidthBackbone

from clipcal.exceptions import BackboneError
from clipcal.training import PromptEncoder, tokenize_prompts, torch_generator

TEXTS = ["X X X dog.", "X X X golden retriever puppy.", "X X X crane (bird).", "X X X x."]
N_CONTEXT, WIDTH, N_IMAGES = 3, 64, 2


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch_generator(seed)).requires_grad_()


def plain(backbone, context, text, deep):
    """Encode one prompt. The deep prompts are tensors (n, token_dim)."""
    model = backbone.model
    ids = backbone.tokenize([text])[0].tolist()
    padded = torch.tensor([*ids, *[0] * (77 - len(ids))])
    x = model.token_embedding(padded)
    x = torch.cat([x[:1], context, x[1 + N_CONTEXT :]]) + model.positional_embedding
    for number, block in enumerate(model.transformer.resblocks):
        if number in deep:
            x = torch.cat([x[:1], deep[number], x[1 + len(deep[number]) :]])
        x = block(x[None], attn_mask=model.attn_mask)[0]
    return model.ln_final(x)[len(ids) - 1] @ model.text_projection


def loss_of(features):
    return (features * torch.sin(torch.arange(features.numel()).float()).view(features.shape)).sum()


CASES = {
    "shared": {1: noise(2, WIDTH, seed=1)},
    "own": {1: noise(len(TEXTS), 3, WIDTH, seed=2)},
    "shared, then own": {0: noise(3, WIDTH, seed=3), 1: noise(len(TEXTS), 2, WIDTH, seed=4)},
    "own, then shared": {0: noise(len(TEXTS), 1, WIDTH, seed=5), 1: noise(3, WIDTH, seed=6)},
}


@pytest.mark.parametrize("chunk_size", ["auto", 3, 1])
@pytest.mark.parametrize("case", CASES)
def test_equals_encoding_one_prompt_at_a_time(tiny_backbone, case, chunk_size):
    context, deep = noise(N_CONTEXT, WIDTH), CASES[case]
    prompts = tokenize_prompts(tiny_backbone, TEXTS, N_CONTEXT)
    features = PromptEncoder(tiny_backbone, chunk_size)(prompts, context, deep)
    expected = torch.stack(
        [
            plain(tiny_backbone, context, text, {k: v if v.ndim == 2 else v[i] for k, v in deep.items()})
            for i, text in enumerate(TEXTS)
        ]
    )
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    learned = [context, *deep.values()]
    ours, wanted = (torch.autograd.grad(loss_of(result), learned) for result in (features, expected))
    for found, gradient in zip(ours, wanted, strict=True):
        # In block 0 the context is replaced in whole.
        assert gradient.norm() > 1e-3 or case == "shared, then own"
        assert (found - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6


class TestFrozenWordsAfterTheContext:
    """Prompts such as "X X X a b dog.", of which all begin with words that are not learned."""

    TEXTS = ("X X X one more dog.", "X X X one more golden retriever puppy.", "X X X one more x.")
    N_FROZEN = 2

    def prompts(self, backbone, *, shared):
        """Return the prompts; `shared` says whether the frozen words are known to be the same in all."""
        n_common = N_CONTEXT + (self.N_FROZEN if shared else 0)
        prompts = tokenize_prompts(backbone, list(self.TEXTS), n_common)
        assert prompts.n_shared == 1 + n_common
        return prompts

    @pytest.mark.parametrize("chunk_size", ["auto", 2, 1])
    @pytest.mark.parametrize("shared", [True, False])
    @pytest.mark.parametrize("n_own", [None, 3], ids=["shared prompts", "own prompts"])
    @pytest.mark.parametrize("n", [3, 2, 1])
    def test_deep_prompts_replace_the_first_positions(self, tiny_backbone, n, n_own, shared, chunk_size):
        shape = (n, WIDTH) if n_own is None else (n_own, n, WIDTH)
        context, deep = noise(N_CONTEXT, WIDTH), {1: noise(*shape, seed=1)}
        prompts = self.prompts(tiny_backbone, shared=shared)
        features = PromptEncoder(tiny_backbone, chunk_size)(prompts, context, deep)
        own = [{1: deep[1] if n_own is None else deep[1][i]} for i in range(3)]
        expected = torch.stack(
            [plain(tiny_backbone, context, text, own[i]) for i, text in enumerate(self.TEXTS)]
        )
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
        learned = [context, deep[1]]
        ours, wanted = (torch.autograd.grad(loss_of(result), learned) for result in (features, expected))
        for found, gradient in zip(ours, wanted, strict=True):
            assert gradient.norm() > 1e-3
            assert (found - gradient).norm() <= 1e-4 * gradient.norm()

    def test_frozen_words_may_be_replaced_too(self, tiny_backbone):
        """All shared positions are available, for deep prompts that are longer than the context."""
        context, deep = noise(N_CONTEXT, WIDTH), {1: noise(N_CONTEXT + self.N_FROZEN, WIDTH, seed=1)}
        features = PromptEncoder(tiny_backbone)(self.prompts(tiny_backbone, shared=True), context, deep)
        expected = torch.stack([plain(tiny_backbone, context, text, deep) for text in self.TEXTS])
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
        with pytest.raises(ValueError, match="n is at most 3"):
            PromptEncoder(tiny_backbone)(self.prompts(tiny_backbone, shared=False), context, deep)


@pytest.mark.parametrize("chunk_size", ["auto", 1])
def test_contexts_and_deep_prompts_per_image(tiny_backbone, chunk_size):
    context = noise(N_IMAGES, 1, N_CONTEXT, WIDTH)
    deep = {0: noise(N_IMAGES, 1, 2, WIDTH, seed=1), 1: noise(len(TEXTS), 3, WIDTH, seed=2)}
    prompts = tokenize_prompts(tiny_backbone, TEXTS, N_CONTEXT)
    features = PromptEncoder(tiny_backbone, chunk_size)(prompts, context, deep)
    assert features.shape == (N_IMAGES, len(TEXTS), 64)
    expected = torch.stack(
        [
            torch.stack(
                [
                    plain(tiny_backbone, context[j, 0], text, {0: deep[0][j, 0], 1: deep[1][i]})
                    for i, text in enumerate(TEXTS)
                ]
            )
            for j in range(N_IMAGES)
        ]
    )
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    learned = [context, *deep.values()]
    ours, wanted = (torch.autograd.grad(loss_of(result), learned) for result in (features, expected))
    for found, gradient in zip(ours, wanted, strict=True):
        assert (found - gradient).norm() < 1e-4 * gradient.norm()


def test_without_a_graph(tiny_backbone):
    context, deep = noise(N_CONTEXT, WIDTH), CASES["own"]
    prompts = tokenize_prompts(tiny_backbone, TEXTS, N_CONTEXT)
    encoder = PromptEncoder(tiny_backbone)
    with torch.no_grad():
        features = encoder(prompts, context, deep)
    torch.testing.assert_close(features, encoder(prompts, context, deep).detach())


def test_own_deep_prompts_count_as_tokens(tiny_backbone):
    context = noise(N_CONTEXT, WIDTH)
    prompts = tokenize_prompts(tiny_backbone, TEXTS, N_CONTEXT)
    encoder = PromptEncoder(tiny_backbone)
    plain_work = encoder.work(prompts, context)
    n_rows = 1 + N_CONTEXT + int((prompts.lengths - 1 - N_CONTEXT).sum())
    assert encoder.work(prompts, context, CASES["shared"]) == plain_work
    assert encoder.work(prompts, context, CASES["own"]) == pytest.approx(
        plain_work * (n_rows + 3 * len(TEXTS)) / n_rows
    )


@pytest.mark.parametrize(
    ("deep", "words"),
    [
        ({2: torch.zeros(3, WIDTH)}, "deep has prompts for block 2; the text tower has the blocks 0 to 1"),
        ({-1: torch.zeros(3, WIDTH)}, "deep has prompts for block -1"),
        ({1: torch.zeros(WIDTH)}, r"deep\[1\] has the shape \(64,\); expected \(n, 64\), or \(4, n, 64\)"),
        ({1: torch.zeros(3, 16)}, r"deep\[1\] has the shape \(3, 16\)"),
        ({1: torch.zeros(5, 3, WIDTH)}, r"deep\[1\] has the shape \(5, 3, 64\)"),
        ({1: torch.zeros(N_CONTEXT, 1, 3, WIDTH)}, r"deep\[1\] has the shape \(3, 1, 3, 64\)"),
        (
            {1: torch.zeros(4, WIDTH)},
            r"deep\[1\] has the shape \(4, 64\).*n is at most 3, the number of shared",
        ),
    ],
)
def test_wrong_deep_prompts_raise(tiny_backbone, deep, words):
    prompts = tokenize_prompts(tiny_backbone, TEXTS, N_CONTEXT)
    with pytest.raises(ValueError, match=words):
        PromptEncoder(tiny_backbone)(prompts, noise(N_CONTEXT, WIDTH), deep)


def test_class_specific_contexts_leave_no_position_to_replace(tiny_backbone):
    prompts = tokenize_prompts(tiny_backbone, TEXTS, N_CONTEXT)
    with pytest.raises(ValueError, match="n is at most 0"):
        PromptEncoder(tiny_backbone)(prompts, noise(len(TEXTS), N_CONTEXT, WIDTH), CASES["own"])


def test_backbone_without_shared_prefixes_is_refused():
    backbone = AnyWidthBackbone()
    prompts = tokenize_prompts(backbone, TEXTS, N_CONTEXT)
    with pytest.raises(BackboneError, match=r"Deep prompts need .* 'AnyWidthBackbone' does not offer"):
        PromptEncoder(backbone)(prompts, noise(N_CONTEXT, 16), {0: noise(N_CONTEXT, 16)})


def test_number_of_blocks(tiny_backbone):
    assert PromptEncoder(tiny_backbone).n_blocks == 2
    with pytest.raises(BackboneError, match=r"a known number of blocks"):
        _ = PromptEncoder(AnyWidthBackbone()).n_blocks
