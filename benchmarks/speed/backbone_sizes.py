"""Sizes of open_clip architectures, and what clipcal can do with them, without any weights.

python benchmarks/speed/backbone_sizes.py [--architectures ViT-B-16 ViT-L-14 ...]
"""

from __future__ import annotations

import argparse
from typing import Any

import open_clip
import torch
from open_clip.transformer import VisionTransformer

from clipcal.backbones._open_clip import _text_tower
from clipcal.backbones._prefix import supports_shared_prefix

ARCHITECTURES = [
    "RN50",
    "ViT-B-32",
    "ViT-B-16",
    "ViT-L-14",
    "ViT-L-14-336",
    "ViT-H-14",
    "convnext_base",
    "coca_ViT-B-32",
    "MobileCLIP-S1",
    "ViT-B-16-SigLIP",
    "ViT-B-16-SigLIP2",
]


def build(architecture: str) -> Any:
    """Build a model without memory for its weights."""
    cfg = open_clip.get_model_config(architecture)
    if "timm_model_name" in cfg["vision_cfg"]:
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    model_class = open_clip.CLIP
    if cfg.pop("custom_text", False):
        model_class = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP
    with torch.device("meta"):
        return model_class(**cfg)


def describe(architecture: str) -> dict[str, Any]:
    """Return the columns of the table for one architecture."""
    model = build(architecture)
    cfg = open_clip.get_model_config(architecture)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    size = model.visual.image_size
    return {
        "architecture": architecture,
        "parameters, millions": round(n_parameters / 1e6),
        "float32, GiB": round(n_parameters * 4 / 2**30, 1),
        "pixels": size if isinstance(size, int) else size[0],
        "width": cfg["embed_dim"],
        "shared prefix": supports_shared_prefix(_text_tower(model)),
        "prompts in the image tower": isinstance(model.visual, VisionTransformer),
        "tokenizer of transformers": "hf_tokenizer_name" in cfg["text_cfg"],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES)
    rows = [describe(architecture) for architecture in parser.parse_args().architectures]
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        cells = ["yes" if v is True else "no" if v is False else str(v) for v in row.values()]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
