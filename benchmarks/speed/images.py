"""Time the encoding of images: serial, with parallel decoding, and with a cache.

    python benchmarks/speed/images.py

`serial` decodes a batch in one thread and then encodes it. `ours` decodes the next batches in threads.
`ours, writing` also writes to an empty cache, `hit` reads all embeddings from the cache, and `np.load` reads
the same numbers from one file, which is a lower bound without a check that the images are unchanged.
`hashing` is the minimal cost of that check.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import random_clip
from paired import compare, report
from PIL import Image

from clipcal.backbones import Backbone, open_backbone
from clipcal.images import encode_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="ViT-B-16", help="'ViT-B-16' (random weights) or a name")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--found", type=int, default=2000, help="number of images for cache hits")
    parser.add_argument("--size", type=int, default=500, help="of the longer side, as in ImageNet")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    backbone = random_clip() if args.backbone == "ViT-B-16" else open_backbone(args.backbone)
    synchronize = torch.cuda.synchronize if backbone.device.type == "cuda" else lambda: None
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder) / "jpegs", max(args.images, args.found), args.size)
        records = []
        for task, n_images, contenders in (
            ("encode", args.images, encoders(backbone, paths[: args.images], args.batch, Path(folder))),
            ("find", args.found, finders(backbone, paths[: args.found], Path(folder))),
        ):
            times = compare(contenders, n_rounds=args.rounds, synchronize=synchronize)
            for name, figures in times.items():
                rate = {"images_per_second": n_images / figures["seconds"]}
                records.append({"task": task, "who": name, "images": n_images, **figures, **rate})
        report("images", [{"backbone": args.backbone, **record} for record in records])


def encoders(
    backbone: Backbone, paths: list[Path], batch_size: int, folder: Path
) -> dict[str, Callable[[], Any]]:
    """Return ways to encode new images, and to read the same images from the cache."""

    def serial() -> np.ndarray:
        rows = []
        for start in range(0, len(paths), batch_size):
            pixels = []
            for path in paths[start : start + batch_size]:
                with Image.open(path) as image:
                    pixels.append(backbone.preprocess(image.convert("RGB")))
            rows.append(backbone.encode_images(torch.stack(pixels)).cpu().numpy())
        return np.concatenate(rows)

    def ours(memory: Path | None = None) -> np.ndarray:
        return encode_images(paths, backbone, batch_size=batch_size, memory=memory)

    def writing() -> np.ndarray:
        shutil.rmtree(folder / "new", ignore_errors=True)
        return ours(folder / "new")

    np.testing.assert_allclose(serial(), ours(folder / "kept"), atol=1e-4)
    return {"serial": serial, "ours": ours, "ours, writing": writing, "hit": lambda: ours(folder / "kept")}


def finders(backbone: Backbone, paths: list[Path], folder: Path) -> dict[str, Callable[[], Any]]:
    """Return ways to read embeddings that were computed before."""

    class Random:
        """A backbone with random embeddings, whose values do not matter here."""

        def __getattr__(self, name: str) -> Any:
            return getattr(backbone, name)

        def preprocess(self, image: Image.Image) -> torch.Tensor:
            return torch.zeros(1)

        def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(pixels), backbone.embedding_dim)

    kept = encode_images(paths, Random(), memory=folder / "found")
    np.save(folder / "kept.npy", kept)

    def hit() -> np.ndarray:
        return encode_images(paths, backbone, memory=folder / "found")

    np.testing.assert_array_equal(hit(), kept)
    return {
        "hit": hit,
        "hashing": lambda: [hashlib.sha256(path.read_bytes()).digest() for path in paths],
        "np.load": lambda: np.load(folder / "kept.npy"),
    }


def write_jpegs(folder: Path, n: int, size: int) -> list[Path]:
    """Write images that compress about as well as photographs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (40, 53, 3), dtype=np.uint8))
        paths.append(folder / f"{i:05}.jpg")
        coarse.resize((size, size * 3 // 4), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


if __name__ == "__main__":
    main()
