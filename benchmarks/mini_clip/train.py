"""Train the embedded CLIP model from scratch on generated images and WordNet.

    python benchmarks/mini_clip/train.py --out clipcal/backbones/mini

Stage 1 trains both towers on images with captions. Stage 2 trains the text tower on nouns and keeps the
features of captions; ``--start FOLDER`` skips stage 1 and reads its weights from a folder.

Requires a WordNet 3.0 database folder (Debian: ``apt-get install wordnet-base``). Writes
``weights.safetensors`` (float16), ``config.json`` and ``MODEL_CARD.md`` to the output folder, and the
training curve to ``curve.jsonl`` next to this script.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from captions import PLAIN, random_captions
from curve import Curve
from evaluate import ZeroShotTasks
from images import train_on_images
from neighbours import N_NEAREST, Neighbours
from open_clip.model import CLIP
from publish import publish
from torch.nn.attention import SDPBackend, sdpa_kernel
from towers import encode_by_length, load_model, round_to_half
from wordnet import Synset, read_nouns
from words import gloss_loss, train_on_words

from clipcal.datasets import TASKS


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder with the weights of stage 1")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--imprecise", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check-every", type=int, default=400)
    images = parser.add_argument_group("stage 1")
    images.add_argument("--steps", type=int, default=3600)
    images.add_argument("--batch-size", type=int, default=256)
    images.add_argument("--lr", type=float, default=1e-3)
    images.add_argument("--n-glosses", type=int, default=64)
    images.add_argument("--gloss-weight", type=float, default=0.5)
    words = parser.add_argument_group("stage 2")
    words.add_argument("--word-steps", type=int, default=1500)
    words.add_argument("--word-lr", type=float, default=2e-3)
    words.add_argument("--n-nouns", type=int, default=256)
    words.add_argument("--n-anchors", type=int, default=96)
    words.add_argument("--anchor-weight", type=float, default=1000.0)
    words.add_argument("--family-scale", type=float, default=50.0)
    return parser.parse_args()


@torch.no_grad()
def measure(
    model: CLIP, tasks: ZeroShotTasks, neighbours: Neighbours, synsets: list[Synset], imprecise: float
) -> dict:
    """Return what the model card states of the model after one of the stages."""
    nouns = neighbours.encode(model)
    captions = random_captions(np.random.default_rng(1), 4000, imprecise)
    classes = dict.fromkeys(name for names in TASKS.values() for name in names)
    return {
        "zero_shot": list(tasks.table(model)),
        "neighbours": list(neighbours.table(nouns)),
        "pools": list(neighbours.pools(model, nouns)),
        "examples": list(neighbours.examples(nouns)),
        "n_nearest": N_NEAREST,
        "gloss_loss": gloss_loss(model, synsets),
        "captions": encode_by_length(model, captions),
        "classes": encode_by_length(model, [PLAIN.format(name) for name in classes]),
    }


def main() -> None:
    args = parse()
    synsets, senses = read_nouns(args.wordnet)
    neighbours = Neighbours(synsets, senses)
    curve = Curve(Path(__file__).parent / "curve.jsonl")
    # On CPUs, plain attention is several times faster than the flash kernels at these lengths.
    with sdpa_kernel(SDPBackend.MATH):
        model = load_model(args.start) if args.start else train_on_images(args, synsets, curve)
        round_to_half(model).eval()
        tasks = ZeroShotTasks(model, "test")  # stage 2 does not change the image tower
        before = measure(model, tasks, neighbours, synsets, args.imprecise)
        round_to_half(train_on_words(model, args, synsets, senses, curve)).eval()
        after = measure(model, tasks, neighbours, synsets, args.imprecise)
    publish(model, args, before, after)


if __name__ == "__main__":
    main()
