"""Small open_clip models for tests."""

from functools import cache

import open_clip
import torch

from clipcal.backbones import OpenClipBackbone


def make_tiny_model() -> torch.nn.Module:
    """Build a CLIP model of open_clip with seeded random weights, small enough to run in milliseconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=64,
            vision_cfg={"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 64},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
        )
    open_clip.set_model_preprocess_cfg(
        model,
        {
            "size": 32,
            "mode": "RGB",
            "mean": open_clip.OPENAI_DATASET_MEAN,
            "std": open_clip.OPENAI_DATASET_STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "fill_color": 0,
        },
    )
    return model


@cache
def uneven_backbone() -> OpenClipBackbone:
    """Return a CLIP model whose towers differ in width and number of blocks, with 5 tokens per image.

    Biases and norms are not 0 and 1, where leaving them out would have no effect. The logit scale is 5, so
    that differences of logits by rounding are small.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = {"image_size": 32, "patch_size": 16, "width": 48, "layers": 4, "head_width": 24}
        text = {"width": 32, "heads": 2, "layers": 3}
        model = open_clip.CLIP(24, vision, text, quick_gelu=True)
        for value in model.parameters():
            if value.ndim == 1:
                value.data += 0.1 * torch.randn_like(value)
        model.logit_scale.data = torch.tensor(5.0).log()
    return OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
