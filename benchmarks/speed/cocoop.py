"""Time and memory of a step of CoCoOp, whose text features depend on the image.

    python benchmarks/speed/cocoop.py

`ours` encodes the prompts of a batch of 8 images as `fit` does, forward and backward. `padded` encodes each
prompt of each image separately on all 77 positions, with the tower of open_clip. The published loop does so
with one image per step; `--padded` sets the numbers of images that are measured. `floor` is the matrix
products of `ours`, see text.py. Times are per image. The peak is the memory in addition to the model, in a
process of its own; that of padded prompts for 8 images is extrapolated from one and two images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from models import class_names, padded_features, random_clip, tuning_problem
from paired import compare, in_a_process, report
from scale import read_peak, reset_peak
from text import floor
from torch.nn import functional as F

from clipcal.backbones import OpenClipBackbone
from clipcal.methods import CoCoOp
from clipcal.training import Batch, EmbeddedData, seeded, torch_generator

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--padded", type=int, nargs="*", default=[4], help="images per padded step, besides 1"
    )
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "IMAGES"), help="measure a peak, print JSON")
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(peak(args.peak[0], int(args.peak[1]), args.classes)))
        return
    records = times(args.classes, args.padded, args.rounds)
    peaks = {
        (way, n): in_a_process("--peak", way, str(n), "--classes", str(args.classes))["peak GiB"]
        for way, n in (("padded", 1), ("padded", 2), ("ours", BATCH))
    }
    slope = peaks["padded", 2] - peaks["padded", 1]
    records = [{**record, "peak GiB": peaks.get((record["way"], record["images"]))} for record in records]
    whole = {"way": "padded, extrapolated", "images": BATCH, "classes": args.classes}
    records.append({**whole, "peak GiB": peaks["padded", 1] + (BATCH - 1) * slope})
    report("cocoop", records)


def times(n_classes: int, n_padded: list[int], n_rounds: int) -> list[dict[str, Any]]:
    """Return seconds per image, and the relative difference of the gradients of one image."""
    backbone = random_clip()
    batch, learner = problem(backbone, n_classes)
    prompts = learner.prompts(class_names(n_classes))
    n_tokens = prompts.n_shared + int((prompts.lengths - prompts.n_shared).sum())
    steps = {
        **{
            ("padded", n): partial(step, padded(backbone, learner, prompts), learner, batch_of(batch, n))
            for n in (1, *n_padded)
        },
        ("ours", BATCH): partial(step, ours(learner, prompts), learner, batch),
        ("floor", BATCH): floor(backbone, BATCH * n_tokens, BATCH * n_classes),
    }
    expected = step(padded(backbone, learner, prompts), learner, batch_of(batch, 1))
    found = step(ours(learner, prompts), learner, batch_of(batch, 1))
    difference = float((found - expected).norm() / expected.norm())
    synchronize = torch.cuda.synchronize if backbone.device.type == "cuda" else lambda: None
    contenders = {f"{way} {n}": run for (way, n), run in steps.items()}
    measured = compare(contenders, n_rounds=n_rounds, synchronize=synchronize)
    each = {key: measured[f"{key[0]} {key[1]}"]["seconds"] / key[1] for key in steps}
    return [
        {
            "way": way,
            "images": n,
            "classes": n_classes,
            "tokens per image": 77 * n_classes if way == "padded" else n_tokens,
            "seconds per image": each[way, n],
            "times padded, 1 image": each["padded", 1] / each[way, n],
            "gradient off by": difference if way == "ours" else None,
        }
        for way, n in steps
    ]


def peak(way: str, n_images: int, n_classes: int) -> dict[str, Any]:
    """Return the peak memory of a step in addition to the model."""
    backbone = random_clip()
    batch, learner = problem(backbone, n_classes)
    encode = padded if way == "padded" else lambda backbone, *rest: ours(*rest)
    few = learner.prompts(class_names(2))
    step(encode(backbone, learner, few), learner, batch_of(batch, 1, n_classes=2))  # loads libraries
    prompts = learner.prompts(class_names(n_classes))
    before = reset_peak(backbone.device)
    step(encode(backbone, learner, prompts), learner, batch_of(batch, n_images))
    return {"peak GiB": (read_peak(backbone.device) - before) / 2**30}


def problem(backbone: OpenClipBackbone, n_classes: int) -> tuple[Batch, Any]:
    """Return random embeddings and a learner of CoCoOp, as a fit makes them."""
    raw = torch.randn(BATCH, 1, backbone.embedding_dim, generator=torch_generator(1))
    targets = (torch.arange(BATCH) % n_classes).to(backbone.device)
    data = EmbeddedData.from_raw(raw, targets, torch.ones(BATCH, device=backbone.device))
    tuning = tuning_problem(backbone, class_names(n_classes), data)
    with seeded(tuning.generator):
        learner = CoCoOp().learner(tuning).to(backbone.device)
    return next(data.in_order(BATCH)), learner


def batch_of(batch: Batch, n: int, n_classes: int | None = None) -> Batch:
    """Return the first images of a batch."""
    targets = batch.targets[:n] if n_classes is None else batch.targets[:n] % n_classes
    return Batch(batch.embeddings[:n], batch.norms[:n], targets, batch.weights[:n])


def ours(learner: Any, prompts: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: learner.encode_texts(prompts, images)


def padded(backbone: OpenClipBackbone, learner: Any, prompts: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def encode(images: torch.Tensor) -> torch.Tensor:
        shifts = learner.meta_net(images)
        contexts = learner.context + shifts[:, None, :]
        return torch.stack([padded_features(backbone, context, prompts.tokens) for context in contexts])

    return encode


def step(encode: Callable[[torch.Tensor], torch.Tensor], learner: Any, batch: Batch) -> torch.Tensor:
    """Compute loss and gradients; return the gradient of the context."""
    learner.zero_grad(set_to_none=True)
    texts = encode(batch.embeddings)
    logits = learner.logit_scale * torch.einsum("nd,ncd->nc", batch.embeddings, texts)
    F.cross_entropy(logits, batch.targets).backward()
    return learner.context.grad


if __name__ == "__main__":
    main()
