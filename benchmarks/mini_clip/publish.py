"""Write weights, configuration and model card of the embedded CLIP model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from open_clip.model import CLIP
from safetensors.torch import save_file
from towers import MODEL, PREPROCESS

CARD = """# The embedded CLIP (`backbone="mini"`)

A small CLIP model for examples, tests and demonstrations of clipcal without a download. It is not suitable
for real images. Version 2: the image tower is that of version 1, the text tower was trained further on nouns.

- **Architecture**: open_clip's `CLIP`; ViT image tower for 32 x 32 images in patches of 8, causal
  text tower with 77 positions; both 4 layers, width 128, 2 heads of 64; embeddings of 128.
  {n_parameters:,} parameters, {megabytes:.1f} MB in float16. Tokenizer and state-dict names are
  open_clip's.
- **Training data**: images rendered by `clipcal.datasets` (coloured, textured shapes in many lights
  and media) with generated captions, {imprecise:.0%} of the colour names in them imprecise (a
  neighbouring colour's name or a coarser word; shapes and textures less often); and, for words that no
  image shows, prompts of WordNet 3.0 nouns with their glosses and hypernyms.
- **Training, stage 1**, both towers: contrastive with a fixed logit scale of 100, {steps} steps of AdamW,
  batch size {batch_size}, learning rate {lr:g} with a cosine schedule, seed {seed}, {n_glosses} noun-gloss
  pairs in every second step.
- **Training, stage 2**, text tower only: {word_steps} steps of AdamW, learning rate {word_lr:g} with a cosine
  schedule, {n_nouns} nouns in each step. Nouns are contrasted with their glosses (logit scale 100), and with
  other nouns (logit scale {family_scale:g}), of which those that share a hypernym at most two steps above are
  positives. {n_anchors} captions and prompts of colours, shapes and textures in each step keep their
  features of stage 1 (squared distance, weight {anchor_weight:g}).
- **Command**: `python benchmarks/mini_clip/train.py --out clipcal/backbones/mini`. Stage 1 is that of version
  1, whose weights were read with `--start`.
- **Licence**: the weights are under clipcal's licence; WordNet's notice is in
  `clipcal/text/WORDNET_LICENSE.txt`.

All results below are written by the training script.

## Zero-shot results

Template "a photo of a {{}}.", 40 test images per class, `random_state=0`; in parentheses after stage 1.

| task | domain | classes | accuracy | mean confidence | ECE |
|---|---|---|---|---|---|
{zero_shot}

## Nearest nouns

The share of related nouns among the {n_nearest} nouns of the packaged lexicon that are nearest to a word by
the cosine similarity of "a photo of a {{}}.". Two nouns are related if senses of them share a hypernym at
most two steps above each. The words are the names of colours, shapes and textures that are nouns, and other
nouns, drawn at random. Chance is the share among all nouns. The second pair of columns also counts nouns that
name a colour, shape or texture, of which many are unrelated in WordNet ("ocean", "teal").

| words | number | related, after stage 1 | after stage 2 | chance | or named, after stage 1 | after stage 2 |
|---|---|---|---|---|---|---|
{neighbours}

The same share among the 5000 nouns in the pool of dynamic outlier regularization, whose features are most
similar to those of the first half of the classes; related to any noun in the names of these classes:

| task | after stage 1 | after stage 2 | chance |
|---|---|---|---|
{pools}

The nearest nouns of some words:

{examples}

The mean contrastive loss of 64 random nouns and their glosses is {gloss_before:.2f} after stage 1 and
{gloss_after:.2f} after stage 2.

The features of {n_moved:,} captions of other random scenes have a cosine similarity of {moved_mean:.4f} on
average with those after stage 1, and of at least {moved_low:.4f} in 99% of cases. For the {n_classes} class
names it is {class_mean:.4f} on average and at least {class_low:.4f}.
"""


def zero_shot_rows(before: list[dict], after: list[dict]) -> str:
    line = "| {task} | {domain} | {n_classes} | {} | {} | {} |"
    return "\n".join(
        line.format(*(f"{new[key]:.1%} ({old[key]:.1%})" for key in ("accuracy", "confidence", "ece")), **new)
        for old, new in zip(before, after, strict=True)
    )


def neighbour_rows(before: list[dict], after: list[dict]) -> str:
    line = (
        "| {group} | {n_words} | {0:.1%} | {related:.1%} | {chance:.1%} | {1:.1%} | {related_or_named:.1%} |"
    )
    return "\n".join(
        line.format(old["related"], old["related_or_named"], **new)
        for old, new in zip(before, after, strict=True)
    )


def pool_rows(before: list[dict], after: list[dict]) -> str:
    line = "| {task} | {0:.1%} | {related:.1%} | {chance:.1%} |"
    return "\n".join(line.format(old["related"], **new) for old, new in zip(before, after, strict=True))


def publish(model: CLIP, args: argparse.Namespace, before: dict, after: dict) -> None:
    """Write the three files of the packaged model into ``args.out``.

    `before` and `after` are the measurements after stage 1 and after stage 2.
    """
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, out / "weights.safetensors")
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    kept = {kind: (before[kind] * after[kind]).sum(dim=1) for kind in ("captions", "classes")}
    card = CARD.format(
        **vars(args),
        n_parameters=sum(value.numel() for value in model.parameters()),
        megabytes=(out / "weights.safetensors").stat().st_size / 1e6,
        zero_shot=zero_shot_rows(before["zero_shot"], after["zero_shot"]),
        n_nearest=after["n_nearest"],
        neighbours=neighbour_rows(before["neighbours"], after["neighbours"]),
        pools=pool_rows(before["pools"], after["pools"]),
        examples="\n".join(f"- *{word}*: {', '.join(nouns)}" for word, nouns in after["examples"]),
        gloss_before=before["gloss_loss"],
        gloss_after=after["gloss_loss"],
        n_moved=len(kept["captions"]),
        moved_mean=kept["captions"].mean().item(),
        moved_low=kept["captions"].quantile(0.01).item(),
        n_classes=len(kept["classes"]),
        class_mean=kept["classes"].mean().item(),
        class_low=kept["classes"].min().item(),
    )
    (out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
