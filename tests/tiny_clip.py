"""A small open_clip model for tests."""

import open_clip
import torch


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
