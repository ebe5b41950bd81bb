"""OpenClipBackbone equals open_clip for every layout of the text tower."""

import copy
import pickle
from functools import lru_cache

import joblib
import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from tiny_clip import make_tiny_model
from torch import nn

from clipcal.backbones import Backbone, OpenClipBackbone
from clipcal.exceptions import BackboneError, ClassNameError

TEXTS = ["a photo of a dog.", "a centered satellite photo of permanent crop land.", "cat"]
VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
TEXT = {"width": 64, "heads": 2, "layers": 2}
SIGLIP_TEXT = {
    "context_length": 16,
    "vocab_size": 300,
    "pool_type": "last",
    "no_causal_mask": True,
    "proj_bias": True,
    "norm_kwargs": {"eps": 1e-6},
}


class BytesTokenizer:
    """Like a SentencePiece tokenizer: no start marker, and one id for end marker and padding."""

    class tokenizer:  # noqa: N801 (the attribute of open_clip's wrapper)
        pad_token_id = 1
        eos_token_id = 1

    def __call__(self, texts, context_length=16):
        """Return one token per byte, then the marker, then padding."""
        out = torch.ones(len(texts), context_length, dtype=torch.long)
        for row, text in zip(out, texts, strict=True):
            ids = [3 + byte for byte in text.encode()] + [1]
            row[: len(ids)] = torch.tensor(ids[:context_length])
        return out


class EosTokenizer:
    """Tokenizer whose end marker, 2, is not the largest id; padding is 0."""

    def __call__(self, texts, context_length=77):
        """Return one token per byte between markers 1 and 2."""
        out = torch.zeros(len(texts), context_length, dtype=torch.long)
        for row, text in zip(out, texts, strict=True):
            ids = [1, *(3 + byte for byte in text.encode()), 2][:context_length]
            row[: len(ids)] = torch.tensor(ids)
        return out


def small_model(layout):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        if layout == "clip":
            return open_clip.CLIP(32, VISION, TEXT, quick_gelu=True)
        if layout == "custom":
            return open_clip.CustomTextCLIP(32, VISION, TEXT)
        if layout == "bidirectional":
            return open_clip.CustomTextCLIP(32, VISION, TEXT | {"no_causal_mask": True})
        if layout == "eos":
            return open_clip.CLIP(32, VISION, TEXT | {"pool_type": "eos", "eos_id": 2, "vocab_size": 300})
        if layout == "first":
            return open_clip.CustomTextCLIP(32, VISION, TEXT | {"pool_type": "first", "no_causal_mask": True})
        if layout == "siglip":
            model = open_clip.CustomTextCLIP(32, VISION, TEXT | SIGLIP_TEXT, init_logit_bias=-10.0)
            nn.init.normal_(model.text.text_projection.bias)
            return model
        assert layout == "coca"
        return open_clip.CoCa(
            32,
            multimodal_cfg={"context_length": 76, "width": 64, "heads": 2, "layers": 1},
            text_cfg=TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
            vision_cfg=VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        )


TOKENIZERS = {"siglip": BytesTokenizer, "eos": EosTokenizer}
LAYOUTS = ["clip", "custom", "bidirectional", "eos", "first", "siglip", "coca"]


@lru_cache
def small_backbone(layout):
    tokenizer = TOKENIZERS.get(layout, SimpleTokenizer)()
    return OpenClipBackbone(small_model(layout), tokenizer, device="cpu")


def texts_for(layout):
    return ["dog", "a cat", "permanent crop"] if layout == "siglip" else TEXTS


def full_tokens(backbone, texts):
    return backbone._tokenizer.tokenizer(texts, context_length=backbone.context_length)


def noise_image(width=45, height=37, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def assert_same_text(backbone, texts):
    """Compare with the text encoder of the model, on the full context length."""
    with torch.no_grad():
        expected = backbone.model.encode_text(full_tokens(backbone, texts), normalize=False)
        tokens = backbone.tokenize(texts)
        actual = backbone.encode_text(backbone.embed_tokens(tokens), tokens)
    assert actual.dtype == torch.float32
    assert actual.shape == (len(texts), backbone.embedding_dim)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)


def assert_gradient(backbone, texts):
    tokens = backbone.tokenize(texts)
    embedded = backbone.embed_tokens(tokens).requires_grad_(True)
    backbone.encode_text(embedded, tokens).square().sum().backward()
    assert embedded.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())
    assert not any(module.training for module in backbone.model.modules())


@pytest.mark.parametrize("layout", LAYOUTS)
class TestLayouts:
    def test_text_features_equal_open_clip(self, layout):
        assert_same_text(small_backbone(layout), texts_for(layout))

    def test_only_prompts_get_gradients(self, layout):
        assert_gradient(small_backbone(layout), texts_for(layout))

    def test_image_embeddings_equal_open_clip(self, layout):
        backbone = small_backbone(layout)
        pixels = torch.stack([backbone.preprocess(noise_image(seed=seed)) for seed in range(2)])
        with torch.no_grad():
            expected = backbone.model.encode_image(pixels, normalize=False)
        actual = backbone.encode_images(pixels)
        assert torch.equal(actual, expected)
        assert not actual.requires_grad
        assert actual.shape == (2, backbone.embedding_dim)

    def test_implements_the_protocol(self, layout):
        backbone = small_backbone(layout)
        assert isinstance(backbone, Backbone)
        assert backbone.token_dim == 64
        assert backbone.context_length == {"siglip": 16, "coca": 76}.get(layout, 77)
        assert backbone.n_start_tokens == (0 if layout == "siglip" else 1)
        expected = backbone.model.logit_scale.exp().item()
        assert backbone.logit_scale == pytest.approx(expected, rel=1e-6)

    def test_tokens_are_truncated_only_if_exact(self, layout):
        backbone = small_backbone(layout)
        tokens = backbone.tokenize(texts_for(layout))
        longest = int(backbone.text_lengths(tokens).max())
        causal = layout in ("clip", "custom", "eos")
        assert tokens.shape[1] == (longest if causal else backbone.context_length)

    def test_text_lengths_include_the_markers(self, layout):
        backbone = small_backbone(layout)
        n_words = {"siglip": 4, "eos": 5}.get(layout, 3)  # bytes and markers
        assert backbone.text_lengths(backbone.tokenize(["cat"])).tolist() == [n_words]

    def test_one_token_more_than_the_context_length_raises(self, layout):
        backbone = small_backbone(layout)
        unit = "x" if layout in ("siglip", "eos") else "x "
        room = backbone.context_length - (1 if layout == "siglip" else 2)
        assert backbone.text_lengths(backbone.tokenize([unit * room])).item() == backbone.context_length
        assert_same_text(backbone, [unit * room])
        with pytest.raises(ClassNameError, match=f"{room + 3 - (layout == 'siglip')} tokens"):
            backbone.tokenize(["dog", unit * (room + 1)])

    def test_empty_list_of_texts(self, layout):
        backbone = small_backbone(layout)
        assert len(backbone.tokenize([])) == 0


@pytest.mark.slow
class TestRealArchitectures:
    @pytest.mark.parametrize(
        "architecture", ["ViT-B-16-quickgelu", "RN50", "coca_ViT-B-32", "PE-Core-T-16-384"]
    )
    def test_simple_tokenizer(self, architecture):
        model = open_clip.create_model(architecture, load_weights=False)
        length = open_clip.get_model_config(architecture)["text_cfg"]["context_length"]
        backbone = OpenClipBackbone(model, SimpleTokenizer(context_length=length), device="cpu")
        self.check(backbone, TEXTS)

    def test_siglip(self):
        model = open_clip.create_model("ViT-B-16-SigLIP", load_weights=False)
        backbone = OpenClipBackbone(model, BytesTokenizer(), device="cpu")
        assert backbone.n_start_tokens == 0
        self.check(backbone, ["dog", "a cat", "permanent crop land"])

    @staticmethod
    def check(backbone, texts):
        assert_same_text(backbone, texts)
        assert_gradient(backbone, texts)
        image = noise_image()
        own = open_clip.image_transform(
            is_train=False, **transform_arguments(backbone.model.visual.preprocess_cfg)
        )
        assert torch.equal(backbone.preprocess(image), own(image))
        pixels = backbone.preprocess(image)[None]
        with torch.no_grad():
            expected = backbone.model.encode_image(pixels, normalize=False)
        assert torch.equal(backbone.encode_images(pixels), expected)


def transform_arguments(preprocess_cfg):
    arguments = {key: value for key, value in preprocess_cfg.items() if key not in ("mode", "size")}
    return arguments | {"image_size": preprocess_cfg["size"]}


class TestImages:
    def test_preprocess_equals_open_clip_bitwise(self, tiny_backbone):
        arguments = transform_arguments(tiny_backbone.model.visual.preprocess_cfg)
        own = open_clip.image_transform(is_train=False, **arguments)
        for width, height in [(45, 37), (32, 32), (1, 1), (3, 200)]:
            image = noise_image(width, height)
            assert torch.equal(tiny_backbone.preprocess(image), own(image))

    def test_user_defined_preprocess(self):
        backbone = OpenClipBackbone(make_tiny_model(), SimpleTokenizer(), lambda image: torch.ones(3, 32, 32))
        assert torch.equal(backbone.preprocess(noise_image()), torch.ones(3, 32, 32))

    @pytest.mark.parametrize(("width", "height"), [(45, 37), (1, 1), (3, 200), (300, 4)])
    def test_augment_has_the_shape_of_preprocess(self, tiny_backbone, width, height):
        image = noise_image(width, height)
        view = tiny_backbone.augment(image, torch.Generator().manual_seed(0))
        assert view.shape == tiny_backbone.preprocess(image).shape
        assert view.isfinite().all()

    def test_augment_depends_on_its_generator_only(self, tiny_backbone):
        image = noise_image()
        before = torch.get_rng_state()
        first = tiny_backbone.augment(image, torch.Generator().manual_seed(1))
        torch.manual_seed(99)
        again = tiny_backbone.augment(image, torch.Generator().manual_seed(1))
        other = tiny_backbone.augment(image, torch.Generator().manual_seed(2))
        torch.set_rng_state(before)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_augment_crops_and_flips(self, tiny_backbone):
        gradient = np.tile(np.arange(64, dtype=np.uint8)[:, None] * 4, (1, 64))
        image = Image.fromarray(gradient.T.copy())
        generator = torch.Generator().manual_seed(0)
        views = [tiny_backbone.augment(image, generator) for _ in range(200)]
        rising = [bool(view[0, 0, -1] > view[0, 0, 0]) for view in views]
        spread = [float(view[0].max() - view[0].min()) for view in views]
        assert 0.35 < np.mean(rising) < 0.65
        assert min(spread) < 0.6 * max(spread)


class TestObject:
    def test_quick_gelu_changes_the_fingerprint(self):
        cfg = (32, VISION, TEXT)
        plain, quick = open_clip.CLIP(*cfg), open_clip.CLIP(*cfg, quick_gelu=True)
        quick.load_state_dict(plain.state_dict())
        prints = [OpenClipBackbone(m, SimpleTokenizer(), device="cpu").fingerprint for m in (plain, quick)]
        assert prints[0] != prints[1]

    def test_fingerprint_depends_on_weights_transform_and_tokenizer(self, tiny_backbone):
        assert len(tiny_backbone.fingerprint) == 64
        same = OpenClipBackbone(make_tiny_model(), SimpleTokenizer(), device="cpu")
        assert same.fingerprint == tiny_backbone.fingerprint
        changed = make_tiny_model()
        with torch.no_grad():
            changed.visual.conv1.weight[0, 0, 0, 0] += 1e-3
        assert OpenClipBackbone(changed, SimpleTokenizer(), device="cpu").fingerprint != same.fingerprint
        transformed = OpenClipBackbone(
            make_tiny_model(),
            SimpleTokenizer(),
            lambda image: 2 * same.preprocess(image),
            device="cpu",
        )
        assert transformed.fingerprint != same.fingerprint
        upper = OpenClipBackbone(make_tiny_model(), SimpleTokenizer(clean="whitespace"), device="cpu")
        assert upper.fingerprint != same.fingerprint
        resized = make_tiny_model()
        resized.visual.preprocess_cfg["resize_mode"] = "squash"
        assert OpenClipBackbone(resized, SimpleTokenizer(), device="cpu").fingerprint != same.fingerprint

    def test_copies_are_the_same_object(self, tiny_backbone):
        assert copy.copy(tiny_backbone) is tiny_backbone
        assert copy.deepcopy([tiny_backbone])[0] is tiny_backbone
        assert tiny_backbone.__sklearn_clone__() is tiny_backbone

    def test_backbone_without_a_name_is_pickled_with_its_weights(self, tiny_backbone):
        again = pickle.loads(pickle.dumps(tiny_backbone))
        assert again is not tiny_backbone
        assert again.fingerprint == tiny_backbone.fingerprint
        assert_same_text(again, TEXTS)

    def test_use_does_not_change_the_joblib_hash(self):
        backbone = OpenClipBackbone(make_tiny_model(), SimpleTokenizer(), device="cpu")
        before = joblib.hash(backbone)
        tokens = backbone.tokenize(["antidisestablishmentarianism"])
        backbone.encode_text(backbone.embed_tokens(tokens), tokens)
        assert backbone.fingerprint
        assert joblib.hash(backbone) == before

    def test_bf16_returns_float32(self):
        backbone = OpenClipBackbone(make_tiny_model(), SimpleTokenizer(), device="cpu", precision="bf16")
        exact = OpenClipBackbone(make_tiny_model(), SimpleTokenizer(), device="cpu", precision="fp32")
        tokens = backbone.tokenize(TEXTS)
        rounded = backbone.encode_text(backbone.embed_tokens(tokens), tokens)
        expected = exact.encode_text(exact.embed_tokens(tokens), tokens)
        assert rounded.dtype == torch.float32
        assert not torch.equal(rounded, expected)
        torch.testing.assert_close(rounded, expected, atol=0.05, rtol=0.05)

    def test_fp32_disables_autocast_of_the_caller(self, tiny_backbone):
        tokens = tiny_backbone.tokenize(TEXTS)
        embedded = tiny_backbone.embed_tokens(tokens)
        expected = tiny_backbone.encode_text(embedded, tokens)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(tiny_backbone.encode_text(embedded, tokens), expected)


class TestErrors:
    def test_unsupported_text_tower_raises(self):
        class HFTextEncoder(nn.Module):
            """Has the name of open_clip's wrapper, which requires a package that is not installed."""

        model = open_clip.CustomTextCLIP(32, VISION, TEXT)
        model.text = HFTextEncoder()
        with pytest.raises(BackboneError, match=r"HFTextEncoder.*does not support prompts"):
            OpenClipBackbone(model, SimpleTokenizer(), device="cpu")

    def test_unsupported_pooling_raises(self):
        model = open_clip.CustomTextCLIP(32, VISION, TEXT | {"pool_type": "none"})
        with pytest.raises(BackboneError, match="pool_type='none'"):
            OpenClipBackbone(model, SimpleTokenizer(), device="cpu")

    def test_tokenizer_with_class_token_after_padding_raises(self):
        tokenizer = SimpleTokenizer()
        tokenizer.tokenizer_mode = "clips"
        with pytest.raises(BackboneError, match="clips"):
            OpenClipBackbone(make_tiny_model(), tokenizer, device="cpu")

    def test_error_for_a_long_text_gives_text_count_and_limit(self, tiny_backbone):
        text = "very " * 80 + "long"
        with pytest.raises(ClassNameError, match=r"very very.*83 tokens.*limit is 77"):
            tiny_backbone.tokenize(["dog", text])

    def test_error_for_a_very_long_text(self, tiny_backbone):
        with pytest.raises(ClassNameError, match="at least 308 tokens"):
            tiny_backbone.tokenize(["very " * 1000])

    def test_single_string_raises(self, tiny_backbone):
        with pytest.raises(TypeError, match=r"\['dog'\]"):
            tiny_backbone.tokenize("dog")
