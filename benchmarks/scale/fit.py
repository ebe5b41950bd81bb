"""Time and peak memory of one fit with the architecture of ViT-B-16 and random weights.

    python benchmarks/scale/fit.py embeddings --classes 100
    python benchmarks/scale/fit.py images --classes 100
    python benchmarks/scale/fit.py embeddings --classes 1000 --shots 1 --epochs 1

Random weights cost what trained ones cost. Class names are nouns of WordNet.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import open_clip
import torch

from clipcal import PromptTunedCLIPClassifier
from clipcal.backbones import OpenClipBackbone
from clipcal.text import load_nouns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("route", choices=["embeddings", "images"])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16")
    backbone = OpenClipBackbone(model, open_clip.get_tokenizer("ViT-B-16"), device="auto")
    names = np.asarray(load_nouns()[5000 : 5000 + args.classes])
    y = np.repeat(names, args.shots)
    generator = np.random.default_rng(0)
    if args.route == "embeddings":
        X = generator.standard_normal((len(y), backbone.embedding_dim))
    else:
        X = generator.integers(0, 256, (len(y), 64, 64, 3), dtype=np.uint8)
    clf = PromptTunedCLIPClassifier(
        backbone, max_epochs=args.epochs, batch_size=args.batch_size, random_state=0
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    clf.fit(X, y)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{args.route}: {len(names)} classes x {args.shots} shots, {args.epochs} epochs of batch "
        f"{args.batch_size} on {clf.device_}: {seconds:.0f} s, peak memory {peak / 2**20:.2f} GiB, "
        f"{(peak - before) / 2**20:.2f} GiB above the loaded model"
    )


if __name__ == "__main__":
    main()
