"""Measure time and peak memory of one step for growing numbers of classes and outliers.

    python benchmarks/speed/scale.py

Each size runs in a subprocess, as the peak is measured per process. A step encodes all classes and as many
outliers, computes the cross-entropy of 32 embeddings and the penalty, and the backward pass. `padded` is the
same on 77 positions without chunks; its peak grows with the classes, and is extrapolated linearly from the
sizes that fit in memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import class_names, padded_features, random_clip, random_context
from paired import in_a_process, report
from torch.nn import functional as F

from clipcal.backbones import OpenClipBackbone
from clipcal.text import load_nouns
from clipcal.training import torch_generator

FIGURE = Path(__file__).parents[2] / "docs" / "guide" / "performance.svg"
SIZES = [(50, 50), (100, 100), (200, 200), (500, 500), (1000, 0), (1000, 1000), (2000, 2000), (10_000, 0)]
# Number of tokens of ViT-B-16 in the default memory budget.
ONE_PIECE = 2000
PADDED = [(20, 20), (50, 50), (100, 100)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--one", nargs=3, metavar=("WAY", "CLASSES", "OUTLIERS"), help="measure one, print JSON"
    )
    args = parser.parse_args()
    if args.one:
        way, n_classes, n_outliers = args.one
        print(json.dumps(measure(way, int(n_classes), int(n_outliers))))
        return
    records = [in_a_process("--one", "ours", str(c), str(o)) for c, o in SIZES]
    padded = [in_a_process("--one", "padded", str(c), str(o)) for c, o in PADDED]
    slope, start = np.polyfit([r["tokens"] for r in padded], [r["peak GiB"] for r in padded], 1)
    tokens = 77 * 2000
    records += padded
    records.append(
        {
            "way": "padded, extrapolated",
            "classes": 1000,
            "outliers": 1000,
            "tokens": tokens,
            "peak GiB": float(start + slope * tokens),
        }
    )
    report("scale", records)
    draw([record for record in records if record["way"] == "ours"], FIGURE)


def measure(way: str, n_classes: int, n_outliers: int) -> dict[str, Any]:
    backbone = random_clip()
    warm_up, step, n_tokens = steps(way, backbone, n_classes, n_outliers)
    warm_up()  # the first step loads libraries
    before = reset_peak(backbone.device)
    start = time.perf_counter()
    step()
    peak = read_peak(backbone.device) - before  # waits for the device
    seconds = time.perf_counter() - start
    return {
        "way": way,
        "classes": n_classes,
        "outliers": n_outliers,
        "tokens": n_tokens,
        "seconds": seconds,
        "peak GiB": peak / 2**30,
    }


def steps(
    way: str, backbone: OpenClipBackbone, n_classes: int, n_outliers: int
) -> tuple[Callable[[], None], Callable[[], None], int]:
    """Return a step of four classes, a step of all classes and outliers, and the number of its tokens."""
    names = class_names(n_classes)
    learner = random_context(backbone, names)
    nouns = [noun for noun in load_nouns()[3::7] if noun not in set(names)][:n_outliers]
    prompts = learner.prompts([*names, *nouns])
    generator = torch_generator(1)
    images = F.normalize(torch.randn(32, backbone.embedding_dim, generator=generator), dim=-1)
    held = F.normalize(torch.randn(n_outliers, backbone.embedding_dim, generator=generator), dim=-1)
    images, held = images.to(backbone.device), held.to(backbone.device)
    targets = torch.arange(32, device=backbone.device) % n_classes

    def step(part: Any, n: int) -> None:
        if way == "ours":
            features = learner.encode_texts(part, None)
        else:
            features = padded_features(backbone, learner.context, part.tokens)
        loss = F.cross_entropy(100 * images @ features[:n].T, targets % n)
        if len(part) > n:
            loss = loss + 8 * (1 - (features[n:] * held).sum(dim=-1).mean())
        loss.backward()

    n_tokens = 77 * len(prompts) if way == "padded" else int((prompts.lengths - 17).sum()) + 17
    return partial(step, prompts.take(slice(0, 4)), 4), partial(step, prompts, n_classes), n_tokens


def reset_peak(device: torch.device) -> int:
    """Reset the peak; return the bytes in use."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def read_peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return status("VmHWM")


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Plot seconds against tokens, with lines through the origin for sizes without and with chunks."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    tokens = np.array([record["tokens"] for record in records])
    seconds = np.array([record["seconds"] for record in records])
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    whole = tokens <= ONE_PIECE
    for group, style, words in ((whole, "--", "in one piece"), (~whole, "-", "in chunks, encoded twice")):
        slope = float(np.median(seconds[group] / tokens[group]))
        spread = float(np.abs(seconds[group] / tokens[group] / slope - 1).max())
        print(f"{words}: {1e3 * slope:.2f} ms a token, at most {spread:.0%} off")
        label = f"{1e3 * slope:.2f} ms a token, {words}"
        ax.loglog(tokens[group], slope * tokens[group], style, color="0.5", label=label)
    ax.loglog(tokens, seconds, "o", color="tab:blue")
    for record in records:
        words = f"{record['classes']:,}" + (f" + {record['outliers']:,}" if record["outliers"] else "")
        where = (record["tokens"], record["seconds"])
        offset, side = ((7, -9), "left") if record["outliers"] else ((-7, 5), "right")
        ax.annotate(words, where, offset, textcoords="offset points", fontsize=8, ha=side)
    ax.set_xlabel("tokens computed (beside the points: classes + outliers)")
    ax.set_ylabel("seconds a step")
    ax.margins(x=0.15)
    ax.legend(frameon=False)
    with rc_context({"svg.hashsalt": "clipcal"}):
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
