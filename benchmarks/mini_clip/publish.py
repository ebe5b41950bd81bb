"""Write weights, configuration and model card of the embedded CLIP model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

CARD = """# The embedded CLIP (`backbone="mini"`)

A small CLIP model for examples, tests and demonstrations of clipcal without a download. It is not suitable
for real images.

- **Architecture**: open_clip's `CLIP`; ViT image tower for 32 x 32 images in patches of 8, causal
  text tower with 77 positions; both 4 layers, width 128, 2 heads of 64; embeddings of 128.
  {n_parameters:,} parameters, {megabytes:.1f} MB in float16. Tokenizer and state-dict names are
  open_clip's.
- **Training data**: images rendered by `clipcal.datasets` (coloured, textured shapes in many lights
  and media) with generated captions, {imprecise:.0%} of the colour names in them imprecise (a
  neighbouring colour's name or a coarser word; shapes and textures less often); and, for words that no
  image shows, prompts of WordNet 3.0 nouns with their glosses.
- **Training**: contrastive with a fixed logit scale of 100, {steps} steps of AdamW, batch size {batch_size},
  learning rate {lr} with a cosine schedule, seed {seed}, {n_glosses} noun-gloss pairs in every second step:
  `python benchmarks/mini_clip/train.py --out clipcal/backbones/mini`.
- **Licence**: the weights are under clipcal's licence; WordNet's notice is in
  `clipcal/text/WORDNET_LICENSE.txt`.

## Zero-shot results

Template "a photo of a {{}}.", 40 test images per class, `random_state=0`; written by the training script.

| task | domain | classes | accuracy | mean confidence | ECE |
|---|---|---|---|---|---|
"""


def publish(
    model: torch.nn.Module,
    model_cfg: dict,
    preprocess_cfg: dict,
    table: Iterable[dict],
    args: argparse.Namespace,
) -> None:
    """Write the three files of the packaged model into ``args.out``."""
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, out / "weights.safetensors")
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    card = CARD.format(
        n_parameters=sum(value.numel() for value in model.parameters()),
        megabytes=(out / "weights.safetensors").stat().st_size / 1e6,
        **vars(args),
    )
    rows = [
        "| {task} | {domain} | {n_classes} | {accuracy:.1%} | {confidence:.1%} | {ece:.1%} |".format(**row)
        for row in table
    ]
    (out / "MODEL_CARD.md").write_text(card + "\n".join(rows) + "\n", encoding="utf-8")
