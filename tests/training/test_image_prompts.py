"""Encoding images with prompts in the image tower: inputs, errors and size of the computation."""

import open_clip
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from toy_backbone import AnyWidthBackbone

from clipcal.backbones import OpenClipBackbone
from clipcal.exceptions import BackboneError
from clipcal.training import Batch, ImagePromptEncoder, torch_generator

TEXT = {"width": 64, "heads": 2, "layers": 1}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch_generator(seed))


def batch_of(pixels=None, patches=None):
    n = len(pixels if patches is None else patches)
    ones = torch.ones(n)
    return Batch(torch.ones(n, 64), ones, ones.long(), ones, pixels=pixels, patches=patches)


def some_prompts():
    return {0: noise(2, 64, seed=1).requires_grad_(), 1: noise(2, 64, seed=2).requires_grad_()}


class TestEncoding:
    @pytest.mark.parametrize("again", [False, True])
    def test_pixels_and_patches(self, tiny_backbone, again):
        encoder = ImagePromptEncoder(tiny_backbone, activation_checkpointing=again)
        pixels, prompts = noise(3, 3, 32, 32), some_prompts()
        expected = tiny_backbone.encode_pixels(pixels, prompts)
        patches = tiny_backbone.embed_pixels(pixels)
        for batch in (batch_of(pixels), batch_of(patches=patches)):
            features = encoder(batch, prompts)
            torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
            features.square().sum().backward()
            assert all(prompt.grad.norm() > 1e-3 for prompt in prompts.values())

    def test_patches_are_preferred(self, tiny_backbone):
        pixels, prompts = noise(3, 3, 32, 32), some_prompts()
        both = batch_of(torch.full_like(pixels, torch.nan), tiny_backbone.embed_pixels(pixels))
        features = ImagePromptEncoder(tiny_backbone)(both, prompts)
        torch.testing.assert_close(features, tiny_backbone.encode_pixels(pixels, prompts))

    @pytest.mark.parametrize("again", [False, True])
    def test_blocks_run_again_only_on_request(self, tiny_backbone, again, monkeypatch):
        """A backbone of a user may lack the option, so it is passed only if it is used."""
        seen = []
        encode = OpenClipBackbone.encode_pixels

        def spied(self, images, prompts=None, **options):
            seen.append(options)
            return encode(self, images, prompts, **options)

        monkeypatch.setattr(OpenClipBackbone, "encode_pixels", spied)
        encoder = ImagePromptEncoder(tiny_backbone, activation_checkpointing=again)
        encoder(batch_of(noise(3, 3, 32, 32)), some_prompts())
        assert seen == [{"activation_checkpointing": True} if again else {}]


class TestSize:
    def test_of_the_tower(self, tiny_backbone):
        encoder = ImagePromptEncoder(tiny_backbone)
        assert (encoder.width, encoder.n_blocks) == (64, 2)

    def test_work(self, tiny_backbone):
        # 16 patches, the class token and two prompts; the MLP of a block multiplies 64 by 256 values.
        assert ImagePromptEncoder(tiny_backbone).work(3, 2) == 3 * (16 + 1 + 2) * 64 * 256

    def test_work_of_an_unknown_tower_uses_all_threads(self):
        class Tower:
            width, n_blocks = 8, 2

        class Backbone(AnyWidthBackbone):
            image_tower = Tower()

        assert ImagePromptEncoder(Backbone()).work(1, 2) == float("inf")


class TestErrors:
    def test_backbone_without_image_tower(self):
        with pytest.raises(BackboneError, match=r"image tower is a transformer.*'AnyWidthBackbone' does not"):
            ImagePromptEncoder(AnyWidthBackbone())

    def test_resnet(self):
        vision = {"image_size": 32, "layers": (1, 1, 1, 1), "width": 8}
        model = open_clip.CLIP(32, vision, TEXT)
        assert isinstance(model.visual, ModifiedResNet)
        backbone = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
        with pytest.raises(BackboneError, match=r"ModifiedResNet cannot take prompts.*prompts only the text"):
            ImagePromptEncoder(backbone)

    def test_timm(self):
        pytest.importorskip("timm")
        vision = {"image_size": 32, "timm_model_name": "resnet10t", "timm_proj": "linear"}
        backbone = OpenClipBackbone(
            open_clip.CLIP(32, vision, TEXT), open_clip.SimpleTokenizer(), device="cpu"
        )
        with pytest.raises(BackboneError, match=r"TimmModel cannot take prompts.*prompts only the text"):
            ImagePromptEncoder(backbone)

    def test_wrong_prompts(self, tiny_backbone):
        encoder, batch = ImagePromptEncoder(tiny_backbone), batch_of(noise(3, 3, 32, 32))
        with pytest.raises(ValueError, match="block 0"):
            encoder(batch, {1: noise(2, 64)})
        with pytest.raises(ValueError, match=r"n_prompts, 64"):
            encoder(batch, {0: noise(2, 32)})
