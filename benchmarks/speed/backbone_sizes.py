"""Sizes of open_clip architectures, and what clipcal can do with them, without any weights.

python benchmarks/speed/backbone_sizes.py [--architectures ViT-B-16 ViT-L-14 ...]
"""

from __future__ import annotations

import argparse
from typing import Any

import open_clip
import torch

from clipcal.backbones import OpenClipBackbone
from clipcal.exceptions import BackboneError

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


def tokenize(texts: list[str], context_length: int) -> torch.Tensor:
    """Return token ids that all vocabularies have; tokenizers of Hugging Face would need a download."""
    ids = open_clip.tokenize(texts, context_length)
    return torch.where(ids > 0, ids % 1000 + 1, ids)


def build(architecture: str) -> Any:
    """Build a model with random weights."""
    cfg = open_clip.get_model_config(architecture)
    if "timm_model_name" in cfg["vision_cfg"]:
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    model_class = open_clip.CLIP
    if cfg.pop("custom_text", False):
        model_class = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP
    return model_class(**cfg)


def takes_image_prompts(backbone: OpenClipBackbone) -> bool:
    """Whether the image tower takes prompts."""
    try:
        backbone.image_tower  # noqa: B018
    except BackboneError:
        return False
    return True


def describe(architecture: str) -> dict[str, Any]:
    """Return the columns of the table for one architecture."""
    model, cfg = build(architecture), open_clip.get_model_config(architecture)
    named = cfg["text_cfg"].get("hf_tokenizer_name")
    length = cfg["text_cfg"].get("context_length", 77)
    tokenizer = tokenize if named else open_clip.SimpleTokenizer(context_length=length)
    backbone = OpenClipBackbone(model, tokenizer, device="cpu")
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    size = model.visual.image_size
    return {
        "architecture": architecture,
        "parameters, millions": round(n_parameters / 1e6),
        "float32, GiB": round(n_parameters * 4 / 2**30, 1),
        "pixels": size if isinstance(size, int) else size[0],
        "width": backbone.embedding_dim,
        "shared prefix": backbone.shares_prefix,
        "prompts in the image tower": takes_image_prompts(backbone),
        "tokenizer of transformers": bool(named),
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
