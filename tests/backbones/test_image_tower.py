"""ImageTower equals open_clip without prompts, and a reference implementation with prompts."""

import copy
import pickle

import joblib
import open_clip
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import LayerNorm, VisionTransformer
from tiny_clip import make_tiny_model
from torch import nn

from clipcal.backbones import OpenClipBackbone, open_backbone
from clipcal.backbones._image_tower import ImageTower
from clipcal.exceptions import BackboneError

VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 32}
TEXT = {"width": 64, "heads": 2, "layers": 1}
AVERAGE = {"pool_type": "avg", "final_ln_after_pool": True}
MODELS = {
    "OpenAI's": lambda: open_clip.CLIP(32, VISION, TEXT, quick_gelu=True),
    "OpenCLIP's": lambda: open_clip.CLIP(32, VISION, TEXT),
    "custom text": lambda: open_clip.CustomTextCLIP(32, VISION, TEXT),
    "average": lambda: open_clip.CLIP(32, VISION | AVERAGE, TEXT),
    "average of normed tokens": lambda: open_clip.CLIP(32, VISION | {"pool_type": "avg"}, TEXT),
    "no first norm": lambda: open_clip.CLIP(32, VISION | {"no_ln_pre": True}, TEXT),
    "fixed positions": lambda: open_clip.CLIP(32, VISION | {"pos_embed_type": "sin_cos_2d"}, TEXT),
    "patch dropout": lambda: open_clip.CLIP(32, VISION | {"patch_dropout": 0.5}, TEXT),
    "scaled layers": lambda: open_clip.CLIP(32, VISION | {"ls_init_value": 0.5}, TEXT),
    "normed queries": lambda: open_clip.CLIP(32, VISION | {"qk_norm": True, "scale_fc": True}, TEXT),
    "CoCa": lambda: open_clip.CoCa(
        32,
        multimodal_cfg={"context_length": 76, "width": 64, "heads": 2, "layers": 1},
        text_cfg=TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
        vision_cfg=VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    ),
    "tokens first": lambda: tokens_first(open_clip.CLIP(32, VISION, TEXT)),
    "no projection": lambda: without_projection(open_clip.CLIP(32, VISION, TEXT)),
}
# Models that the reference implementation `written_out` supports.
PLAIN = ["OpenAI's", "OpenCLIP's", "custom text", "average", "average of normed tokens", "no first norm"]
PLAIN += ["fixed positions", "patch dropout", "tokens first", "no projection"]
MADE: dict[str, nn.Module] = {}


def tokens_first(model):
    model.visual.transformer.batch_first = False
    for block in model.visual.transformer.resblocks:
        block.attn.batch_first = False
    return model


def without_projection(model):
    model.visual.proj = None
    return model


def model_of(kind):
    if kind not in MADE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MODELS[kind]()
            for value in model.visual.parameters():
                # Biases and norms are initialized to 0 and 1, where omitting them would have no effect.
                if value.ndim == 1:
                    value.data += 0.1 * torch.randn_like(value)
        MADE[kind] = model.eval().requires_grad_(False)
    return MADE[kind]


def tower_of(kind):
    return ImageTower(model_of(kind).visual)


def backbone_of(kind, **keywords):
    return OpenClipBackbone(model_of(kind), open_clip.SimpleTokenizer(), device="cpu", **keywords)


def noise(*shape, seed=0, requires_grad=False):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_(requires_grad)


def some_prompts(blocks, n_prompts=2, n_images=None, width=64):
    shape = (n_prompts, width) if n_images is None else (n_images, n_prompts, width)
    return {number: noise(*shape, seed=10 + number, requires_grad=True) for number in blocks}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def loss_of(features):
    """Weigh every coordinate differently, so that none can go wrong unseen."""
    weights = torch.sin(torch.arange(features.numel(), dtype=features.dtype)).reshape(features.shape)
    return (weights * features).sum()


def layer_norm(norm, x):
    if isinstance(norm, nn.Identity):
        return x
    centered = x - x.mean()
    return centered / (centered.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def attention(block, tokens):
    """Attend from every token to all, one head after the other; `tokens` is a list of vectors."""
    width, n_heads = len(tokens[0]), block.attn.num_heads
    normed = torch.stack([layer_norm(block.ln_1, token) for token in tokens])
    q, k, v = (normed @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).split(width, dim=1)
    size, heads = width // n_heads, []
    for start in range(0, width, size):
        part = slice(start, start + size)
        scores = (q[:, part] @ k[:, part].T / size**0.5).exp()
        heads.append(scores / scores.sum(dim=1, keepdim=True) @ v[:, part])
    return torch.cat(heads, dim=1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


def mlp(block, token):
    z = block.mlp.c_fc.weight @ layer_norm(block.ln_2, token) + block.mlp.c_fc.bias
    if isinstance(block.mlp.gelu, nn.GELU):
        z = z * 0.5 * (1 + torch.erf(z / 2**0.5))
    else:
        z = z / (1 + torch.exp(-1.702 * z))
    return block.mlp.c_proj.weight @ z + block.mlp.c_proj.bias


def written_out(visual, image, prompts):
    """Embed one image (3, height, width) by the equations of a ViT; prompts are (n_prompts, width)."""
    size, n_rows = visual.patch_size[0], visual.grid_size[0]
    kernels = visual.conv1.weight.flatten(1)
    tokens = [visual.class_embedding]
    for row in range(n_rows):
        for column in range(n_rows):
            patch = image[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
            tokens.append(kernels @ patch.flatten())
    tokens = [token + place for token, place in zip(tokens, visual.positional_embedding, strict=True)]
    n_own = len(tokens)
    tokens = [layer_norm(visual.ln_pre, token) for token in [*tokens, *prompts.get(0, [])]]
    for number, block in enumerate(visual.transformer.resblocks):
        if number and number in prompts:
            tokens = [*tokens[:n_own], *prompts[number]]
        tokens = [token + more for token, more in zip(tokens, attention(block, tokens), strict=True)]
        tokens = [token + mlp(block, token) for token in tokens]
    if visual.pool_type == "tok":
        pooled = layer_norm(visual.ln_post, tokens[0])
    elif visual.final_ln_after_pool:
        pooled = layer_norm(visual.ln_post, torch.stack(tokens[1:n_own]).mean(dim=0))
    else:
        pooled = torch.stack([layer_norm(visual.ln_post, token) for token in tokens[1:n_own]]).mean(dim=0)
    return pooled if visual.proj is None else pooled @ visual.proj


@pytest.mark.parametrize("kind", MODELS)
class TestWithoutPrompts:
    def test_embeddings_equal_open_clip(self, kind):
        pixels = noise(5, 3, 32, 32)
        with torch.no_grad():
            expected = model_of(kind).encode_image(pixels, normalize=False)
            assert_close(tower_of(kind).encode(pixels), expected)
            assert_close(tower_of(kind).encode(pixels, {}), expected)
        assert expected.shape == (5, tower_of(kind).embedding_dim)

    def test_gradients_of_the_pixels_equal_open_clip(self, kind):
        own, walked = noise(3, 3, 32, 32, requires_grad=True), noise(3, 3, 32, 32, requires_grad=True)
        expected = model_of(kind).encode_image(own, normalize=False)
        actual = tower_of(kind).encode(walked)
        assert_close(actual, expected)
        loss_of(expected).backward()
        loss_of(actual).backward()
        assert_close(walked.grad, own.grad)
        assert own.grad.norm() > 1e-3


class TestLastBlock:
    """It is computed for the class token only, where this is the only one that is read."""

    @pytest.mark.parametrize("kind", MODELS)
    def test_gives_the_same_features_and_gradients(self, kind):
        tower, whole = tower_of(kind), tower_of(kind)
        whole.ends_with_class_token = False
        prompts, again = some_prompts([0, 1]), some_prompts([0, 1])
        pixels = noise(3, 3, 32, 32)
        features, expected = tower.encode(pixels, prompts), whole.encode(pixels, again)
        assert_close(features, expected)
        loss_of(features).backward()
        loss_of(expected).backward()
        for number, prompt in prompts.items():
            assert (prompt.grad - again[number].grad).norm() < 1e-5 * again[number].grad.norm()

    def test_depends_on_the_pooling(self):
        assert tower_of("OpenAI's").ends_with_class_token
        average = open_clip.CLIP(32, VISION | {"pool_type": "avg"}, TEXT).visual.eval()
        assert not ImageTower(average).ends_with_class_token

    def test_other_outputs_of_a_block_of_the_same_structure_are_detected(self):
        visual = copy.deepcopy(model_of("OpenAI's").visual)

        class Bounded(type(visual.transformer.resblocks[-1])):
            def forward(self, x, *rest, **options):
                return super().forward(x, *rest, **options).tanh()

        visual.transformer.resblocks[-1].__class__ = Bounded
        tower, pixels = ImageTower(visual), noise(3, 3, 32, 32)
        assert not tower.ends_with_class_token
        assert_close(tower.encode(pixels), visual(pixels))


class TestSize:
    def test_sizes_of_a_tower(self):
        tower = tower_of("OpenAI's")
        assert (tower.width, tower.n_blocks, tower.n_tokens, tower.embedding_dim) == (64, 3, 17, 32)
        assert tower_of("no projection").embedding_dim == 64

    def test_embedded_model(self):
        backbone = open_backbone("mini", device="cpu")
        tower = backbone.image_tower
        assert (tower.width, tower.n_blocks, tower.n_tokens, tower.embedding_dim) == (128, 4, 17, 128)
        pixels = noise(40, 3, 32, 32)
        assert_close(backbone.encode_pixels(pixels), backbone.encode_images(pixels))


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("blocks", [[], [0], [0, 1], [0, 2], [2, 1, 0]], ids=str)
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_features_and_gradients_equal_the_reference(kind, blocks, own):
    tower, n_images = tower_of(kind), 3
    pixels = noise(n_images, 3, 32, 32)
    prompts = some_prompts(blocks, n_images=n_images if own else None)
    features = tower.encode(pixels, prompts)
    assert features.shape == (n_images, tower.embedding_dim)
    assert features.dtype == torch.float32
    visual = copy.deepcopy(tower.module).double()
    exact = {number: prompt.detach().double().requires_grad_() for number, prompt in prompts.items()}
    expected = torch.stack(
        [
            written_out(visual, image.double(), {n: p[i] if own else p for n, p in exact.items()})
            for i, image in enumerate(pixels)
        ]
    )
    torch.testing.assert_close(features.double(), expected, atol=1e-5, rtol=1e-5)
    if not blocks:
        return
    loss_of(features).backward()
    loss_of(expected).backward()
    for number, prompt in prompts.items():
        reference = exact[number].grad
        assert reference.norm() > 1e-3
        assert (prompt.grad - reference).norm() < 1e-5 * reference.norm()


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_equal_finite_differences(kind):
    tower = ImageTower(copy.deepcopy(model_of(kind).visual).double())
    pixels = noise(2, 3, 32, 32).double()
    first, deep = noise(2, 2, 64, seed=1).double(), noise(2, 64, seed=2).double()
    direction = [noise(*t.shape, seed=3).double() for t in (first, deep, pixels)]

    def along(step):
        a, b, images = (t + step * d for t, d in zip((first, deep, pixels), direction, strict=True))
        return loss_of(tower.encode(images, {0: a, 1: b}))

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    [slope] = torch.autograd.grad(along(step), step)
    difference = (along(1e-5) - along(-1e-5)) / 2e-5
    assert abs(slope) > 1e-3
    torch.testing.assert_close(slope, difference, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", MODELS)
class TestPrompts:
    def test_separate_prompts_affect_their_image_only(self, kind):
        tower, pixels = tower_of(kind), noise(3, 3, 32, 32)
        prompts = some_prompts([0, 2], n_images=3)
        features = tower.encode(pixels, prompts)
        alone = [tower.encode(pixels[i : i + 1], {n: p[i] for n, p in prompts.items()}) for i in range(3)]
        torch.testing.assert_close(features, torch.cat(alone), atol=1e-5, rtol=1e-5)
        features[1].sum().backward()
        for prompt in prompts.values():
            assert prompt.grad[[0, 2]].abs().max() == 0
            assert prompt.grad[1].norm() > 1e-3

    def test_shared_prompts_equal_repeated_prompts(self, kind):
        tower, pixels = tower_of(kind), noise(3, 3, 32, 32)
        shared = some_prompts([0, 1])
        repeated = {
            number: prompt.detach().expand(3, -1, -1).clone().requires_grad_()
            for number, prompt in shared.items()
        }
        features = tower.encode(pixels, shared)
        again = tower.encode(pixels, repeated)
        assert torch.equal(features, again)
        loss_of(features).backward()
        loss_of(again).backward()
        for number, prompt in shared.items():
            torch.testing.assert_close(prompt.grad, repeated[number].grad.sum(dim=0), atol=1e-6, rtol=1e-4)

    def test_encode_under_no_grad(self, kind):
        tower, pixels, prompts = tower_of(kind), noise(3, 3, 32, 32), some_prompts([0, 1])
        expected = tower.encode(pixels, prompts)
        assert expected.requires_grad
        with torch.no_grad():
            features = tower.encode(pixels, prompts)
        assert not features.requires_grad
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)

    def test_empty_prompts_have_no_effect(self, kind):
        pixels = noise(3, 3, 32, 32)
        empty = {0: torch.zeros(0, 64), 2: torch.zeros(3, 0, 64)}
        assert torch.equal(tower_of(kind).encode(pixels, empty), tower_of(kind).encode(pixels))

    def test_prompts_change_the_features(self, kind):
        pixels = noise(3, 3, 32, 32)
        plain, shallow = tower_of(kind).encode(pixels), tower_of(kind).encode(pixels, some_prompts([0]))
        deep = tower_of(kind).encode(pixels, some_prompts([0, 2]))
        assert (shallow - plain).abs().max() > 1e-3
        assert (deep - shallow).abs().max() > 1e-3


def inputs_of_blocks(tower, pixels, prompts):
    """Return the input of each block, (n, n_tokens, width)."""
    inputs, blocks = [], tower.module.transformer.resblocks
    handles = [
        # The last block is not called as a whole, but its first norm is.
        block.ln_1.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
        for block in blocks
    ]
    with torch.no_grad():
        tower.encode(pixels, prompts)
    for handle in handles:
        handle.remove()
    return inputs


@pytest.mark.parametrize("block", [1, 2])
def test_prompts_of_a_block_replace_tokens_at_its_input_only(block):
    tower, pixels = tower_of("OpenAI's"), noise(2, 3, 32, 32)
    prompts = some_prompts([0, block])
    without = inputs_of_blocks(tower, pixels, {0: prompts[0]})
    inputs = inputs_of_blocks(tower, pixels, prompts)
    assert [x.shape for x in inputs] == [(2, 19, 64)] * 3
    assert all(torch.equal(inputs[k], without[k]) for k in range(block))
    # At the input of the block the image tokens are unchanged, and the prompt tokens are replaced.
    assert torch.equal(inputs[block][:, :17], without[block][:, :17])
    assert torch.equal(inputs[block][:, 17:], prompts[block].expand(2, -1, -1))
    assert all(not torch.equal(inputs[k][:, :17], without[k][:, :17]) for k in range(block + 1, 3))


def test_prompts_of_the_first_block_pass_ln_pre_without_positional_embeddings():
    tower, pixels, prompts = tower_of("OpenAI's"), noise(2, 3, 32, 32), some_prompts([0])
    plain, first = (inputs_of_blocks(tower, pixels, p)[0] for p in ({}, prompts))
    assert torch.equal(first[:, :17], plain)
    expected = torch.stack([layer_norm(tower.module.ln_pre, token) for token in prompts[0]])
    torch.testing.assert_close(first[0, 17:], expected)
    assert torch.equal(first[0, 17:], first[1, 17:])


def test_features_do_not_depend_on_the_order_of_prompts():
    tower, pixels = tower_of("OpenCLIP's"), noise(2, 3, 32, 32)
    prompts = some_prompts([0, 1], n_prompts=4)
    features = tower.encode(pixels, prompts)
    turned = tower.encode(pixels, {number: prompt.flip(0) for number, prompt in prompts.items()})
    torch.testing.assert_close(features, turned, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_model_is_not_modified(kind):
    model = model_of(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = [dict(vars(module)) for module in model.modules()]
    loss_of(tower_of(kind).encode(noise(2, 3, 32, 32), some_prompts([0, 1]))).backward()
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for module, known in zip(model.modules(), attributes, strict=True):
        assert vars(module).keys() == known.keys()
        assert not module.training
        assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks
    assert all(value.grad is None and not value.requires_grad for value in model.parameters())


class TestErrors:
    @pytest.mark.parametrize(
        ("blocks", "match"),
        [
            ([1], r"the blocks \[1\].*must include block 0"),
            ([0, 3], r"the blocks \[0, 3\].*blocks 0 to 2"),
            ([0, -1], r"the blocks \[0, -1\]"),
        ],
    )
    def test_invalid_blocks_raise(self, blocks, match):
        prompts = {number: noise(2, 64) for number in blocks}
        with pytest.raises(ValueError, match=match):
            tower_of("OpenAI's").encode(noise(3, 3, 32, 32), prompts)

    @pytest.mark.parametrize(
        "prompts",
        [
            {0: (64,)},
            {0: (2, 32)},
            {0: (2, 2, 64)},
            {0: (1, 2, 64)},
            {0: (1, 3, 2, 64)},
            {0: (2, 64), 1: (3, 64)},
            {0: (3, 2, 64), 1: (2, 2, 64)},
            {0: (2, 64), 1: (64,)},
        ],
        ids=str,
    )
    def test_invalid_shapes_raise(self, prompts):
        prompts = {number: torch.zeros(shape) for number, shape in prompts.items()}
        number = max(prompts)
        expected = rf"prompts\[{number}\] has the shape .*expected \(n_prompts, 64\), or \(3, n_prompts, 64\)"
        with pytest.raises(ValueError, match=expected):
            tower_of("OpenAI's").encode(noise(3, 3, 32, 32), prompts)

    def test_resnet_raises(self):
        visual = ModifiedResNet((1, 1, 1, 1), output_dim=32, heads=2, image_size=32, width=8).eval()
        with pytest.raises(BackboneError, match=r"ModifiedResNet cannot take prompts.*VisionTransformer"):
            ImageTower(visual)

    def test_timm_model_raises(self):
        pytest.importorskip("timm")
        vision = {"image_size": 32, "timm_model_name": "resnet10t", "timm_proj": "linear"}
        model = open_clip.CLIP(32, vision, TEXT)
        backbone = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
        assert backbone.encode_images(noise(1, 3, 32, 32)).shape == (1, 32)
        for use in (lambda: backbone.image_tower, lambda: backbone.encode_pixels(noise(1, 3, 32, 32))):
            with pytest.raises(BackboneError, match=r"TimmModel cannot take prompts.*'ViT-B-16/openai'"):
                use()

    @pytest.mark.parametrize("changes", [{"pool_type": "none"}, {"attentional_pool": "parallel"}], ids=str)
    def test_more_than_one_vector_per_image_raises(self, changes):
        # Parallel pooling in open_clip requires embeddings of the width of the tokens.
        visual = open_clip.CLIP(64, VISION | changes | {"attn_pooler_heads": 2}, TEXT).visual.eval()
        with pytest.raises(BackboneError, match=r"array of the shape \(\d+, 64\) per image.*'none'"):
            ImageTower(visual)

    def test_training_mode_raises(self):
        visual = copy.deepcopy(model_of("patch dropout").visual).train()
        with pytest.raises(BackboneError, match=r"training mode.*Call \.eval\(\)"):
            ImageTower(visual)

    @pytest.mark.parametrize("change", ["twice", "another shape"])
    def test_modified_forward_pass_raises(self, change):
        class Changed(VisionTransformer):
            """A tower whose forward pass differs from that of its modules."""

            def forward(self, x):
                features = super().forward(x)
                return 2 * features if change == "twice" else features[:, :16]

        visual = Changed(32, 8, 64, 2, 2, 4.0, output_dim=32, norm_layer=LayerNorm).eval()
        with pytest.raises(BackboneError, match=r"Changed has the structure of open_clip"):
            ImageTower(visual)


class TestBackbone:
    @pytest.mark.parametrize("kind", MODELS)
    def test_encode_pixels_without_prompts_equals_encode_images(self, kind):
        backbone, pixels = backbone_of(kind), noise(20, 3, 32, 32)
        features = backbone.encode_pixels(pixels)
        torch.testing.assert_close(features, backbone.encode_images(pixels), atol=1e-6, rtol=1e-6)
        assert features.shape == (20, backbone.image_tower.embedding_dim)

    def test_image_tower_is_created_once(self):
        backbone = backbone_of("OpenAI's")
        assert backbone.image_tower is backbone.image_tower
        assert backbone.image_tower.module is backbone.model.visual

    @pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
    def test_splitting_does_not_change_the_features(self, own, monkeypatch):
        monkeypatch.setattr("clipcal.backbones._threads.usable_threads", lambda: 2)
        backbone, pixels = backbone_of("OpenAI's"), noise(20, 3, 32, 32)
        prompts = some_prompts([0, 1], n_images=20 if own else None)
        sizes, encode = [], backbone.image_tower.encode

        def spied(pixels, prompts=None, **options):
            sizes.append(len(pixels))
            return encode(pixels, prompts, **options)

        monkeypatch.setattr(backbone.image_tower, "encode", spied)
        expected = backbone.encode_pixels(pixels, prompts)
        assert sizes == [20] and expected.requires_grad
        with torch.no_grad():
            features = backbone.encode_pixels(pixels, prompts)
        assert sorted(sizes[1:]) == [10, 10] and not features.requires_grad
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)

    def test_too_many_prompts_raise_with_splitting(self, monkeypatch):
        monkeypatch.setattr("clipcal.backbones._threads.usable_threads", lambda: 2)
        prompts = some_prompts([0], n_images=40)
        with torch.no_grad(), pytest.raises(ValueError, match=r"\(20, n_prompts, 64\)"):
            backbone_of("OpenAI's").encode_pixels(noise(20, 3, 32, 32), prompts)

    def test_only_prompts_get_gradients(self):
        backbone, prompts = backbone_of("OpenAI's"), some_prompts([0, 1, 2])
        loss_of(backbone.encode_pixels(noise(4, 3, 32, 32), prompts)).backward()
        assert all(prompt.grad.norm() > 1e-3 for prompt in prompts.values())
        assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())

    def test_bf16_returns_float32(self):
        rounded, exact = (backbone_of("OpenAI's", precision=p) for p in ("bf16", "fp32"))
        pixels = noise(4, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(rounded.encode_pixels(pixels), rounded.encode_images(pixels))
        features, gradients = [], []
        for backbone in (rounded, exact):
            prompts = some_prompts([0, 1])
            features.append(backbone.encode_pixels(pixels, prompts))
            loss_of(features[-1]).backward()
            gradients.append(torch.stack([prompt.grad for prompt in prompts.values()]))
        assert features[0].dtype == gradients[0].dtype == torch.float32
        assert not torch.equal(*features)
        for actual, expected in (features, gradients):
            assert (actual - expected).norm() < 0.05 * expected.norm()

    def test_fp32_disables_autocast_of_the_caller(self):
        backbone, pixels, prompts = backbone_of("OpenAI's"), noise(4, 3, 32, 32), some_prompts([0, 1])
        expected = backbone.encode_pixels(pixels, prompts)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(backbone.encode_pixels(pixels, prompts), expected)

    def test_tower_created_in_inference_mode_supports_gradients(self):
        backbone, pixels, prompts = backbone_of("OpenAI's"), noise(4, 3, 32, 32), some_prompts([0, 1])
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            before = backbone.encode_pixels(pixels, prompts)
        features = backbone.encode_pixels(pixels, prompts)
        torch.testing.assert_close(features, before.clone(), atol=1e-5, rtol=1e-5)
        loss_of(features).backward()
        assert prompts[1].grad.norm() > 1e-3

    def test_use_does_not_change_joblib_hash_and_pickle(self):
        backbone = OpenClipBackbone(make_tiny_model(), open_clip.SimpleTokenizer(), device="cpu")
        before = joblib.hash(backbone)
        features = backbone.encode_pixels(noise(2, 3, 32, 32))
        assert joblib.hash(backbone) == before
        again = pickle.loads(pickle.dumps(backbone))
        assert "image_tower" not in vars(again)
        assert torch.equal(again.encode_pixels(noise(2, 3, 32, 32)), features)
        assert again.image_tower.module is again.model.visual

    @pytest.mark.parametrize("kind", MODELS)
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_embedded_pixels_give_the_same_features(self, kind, precision):
        backbone, pixels = backbone_of(kind, precision=precision), noise(4, 3, 32, 32)
        patches, prompts = backbone.embed_pixels(pixels), some_prompts([0, 1])
        assert patches.shape == (4, backbone.image_tower.n_tokens, 64)
        assert not patches.requires_grad
        for given in ({}, prompts):
            assert torch.equal(backbone.encode_pixels(patches, given), backbone.encode_pixels(pixels, given))
        features = backbone.encode_pixels(patches, some_prompts([0], n_images=4))
        assert features.dtype == torch.float32

    def test_embedding_is_split(self, monkeypatch):
        monkeypatch.setattr("clipcal.backbones._threads.usable_threads", lambda: 2)
        backbone, pixels = backbone_of("OpenAI's"), noise(20, 3, 32, 32)
        sizes, embed = [], backbone.image_tower.embed

        def spied(pixels):
            sizes.append(len(pixels))
            return embed(pixels)

        expected = embed(pixels)
        monkeypatch.setattr(backbone.image_tower, "embed", spied)
        torch.testing.assert_close(backbone.embed_pixels(pixels), expected)
        assert sorted(sizes) == [10, 10]

    def test_fp32_embedding_disables_autocast_of_the_caller(self):
        backbone, pixels = backbone_of("OpenAI's"), noise(4, 3, 32, 32)
        expected = backbone.embed_pixels(pixels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(backbone.embed_pixels(pixels), expected)


class TestEmbed:
    @pytest.mark.parametrize("kind", MODELS)
    def test_rest_of_the_tower_gives_the_same_features_and_gradients(self, kind):
        tower, pixels = tower_of(kind), noise(3, 3, 32, 32)
        patches = tower.embed(pixels)
        gradients = []
        for images in (pixels, patches):
            prompts = some_prompts([0, 2])
            features = tower.encode(images, prompts)
            gradients.append([features, *torch.autograd.grad(loss_of(features), list(prompts.values()))])
        for ours, expected in zip(*gradients, strict=True):
            assert torch.equal(ours, expected)

    def test_is_the_input_of_the_first_block(self):
        tower, pixels = tower_of("OpenAI's"), noise(3, 3, 32, 32)
        torch.testing.assert_close(tower.embed(pixels), inputs_of_blocks(tower, pixels, {})[0])

    def test_wrong_number_of_prompts_raises(self):
        tower = tower_of("OpenAI's")
        with pytest.raises(ValueError, match=r"\(3, n_prompts, 64\)"):
            tower.encode(tower.embed(noise(3, 3, 32, 32)), some_prompts([0], n_images=2))


def saved_bytes(backward_of, model):
    """Return the loss, and the bytes of the tensors that are kept for its backward pass, without weights."""
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return backward_of(), sum(sizes.values())


class TestActivationCheckpointing:
    @pytest.mark.parametrize("kind", MODELS)
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_gives_the_same_features_and_gradients(self, kind, precision):
        backbone, pixels = backbone_of(kind, precision=precision), noise(4, 3, 32, 32)
        results = []
        for again in (False, True):
            prompts = some_prompts([0, 1])
            features = backbone.encode_pixels(pixels, prompts, activation_checkpointing=again)
            loss_of(features).backward()
            results.append([features, *(prompt.grad for prompt in prompts.values())])
        for expected, found in zip(*results, strict=True):
            assert expected.norm() > 1e-3
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)

    def test_keeps_the_inputs_of_the_blocks_only(self):
        backbone, pixels = backbone_of("average"), noise(16, 3, 32, 32)
        prompts, tower = some_prompts([0]), backbone.image_tower

        def forward(again):
            return saved_bytes(
                lambda: loss_of(backbone.encode_pixels(pixels, prompts, activation_checkpointing=again)),
                tower.module,
            )

        (_, whole), (loss, inputs) = forward(False), forward(True)
        one_input = 16 * (tower.n_tokens + 2) * tower.width * 4
        assert whole > 2 * inputs
        # Besides the inputs of the blocks, pooling and the first norm keep something.
        assert tower.n_blocks * one_input <= inputs < (tower.n_blocks + 2) * one_input
        loss.backward()
        assert prompts[0].grad.norm() > 1e-3

    def test_each_block_runs_again_in_the_backward_pass(self):
        tower, n_calls = tower_of("OpenAI's"), []
        handles = [
            block.ln_1.register_forward_hook(lambda *_, n=number: n_calls.append(n))
            for number, block in enumerate(tower.module.transformer.resblocks)
        ]
        try:
            features = tower.encode(noise(3, 3, 32, 32), some_prompts([0]), activation_checkpointing=True)
            assert n_calls == [0, 1, 2]
            loss_of(features).backward()
        finally:
            for handle in handles:
                handle.remove()
        assert n_calls == [0, 1, 2, 2, 1, 0]

    def test_without_gradients_nothing_runs_again(self):
        tower, pixels = tower_of("OpenAI's"), noise(3, 3, 32, 32)
        with torch.no_grad():
            features = tower.encode(pixels, some_prompts([0]), activation_checkpointing=True)
        assert not features.requires_grad
        assert_close(features, tower.encode(pixels, some_prompts([0])))
