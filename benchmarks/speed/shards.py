"""Compare `encode_to` of many small files with the encoding of arrays in memory, and watch its memory.

    python benchmarks/speed/shards.py

The comparison uses a part of the images, alternately in one run: `arrays` are decoded pixels in memory, the
others are files, encoded into an array or into shards on disk. The last record encodes all images in
a process of its own and samples its resident memory: `growth_mib` is the highest value in the second half of
the run above the highest value in the first half.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from paired import compare, in_a_process, report
from PIL import Image

from clipcal.backbones import open_backbone
from clipcal.images import CLIPImageEncoder, encode_images, load_embeddings

_PER_FOLDER = 1000
_SECONDS_BETWEEN_SAMPLES = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--compared", type=int, default=5_000, help="images in the comparison")
    parser.add_argument("--distinct", type=int, default=2_000, help="different images, which are repeated")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--shard-size", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)  # folder with the images
    args = parser.parse_args()
    if args.watch:
        print(json.dumps(watched(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        records = compared(args, Path(folder))
        write_files(Path(folder) / "all", args, "png", args.images)
        chosen = [f"--backbone={args.backbone}", f"--shard-size={args.shard_size}"]
        records.append(in_a_process(f"--watch={folder}/all", *chosen))
    report("shards", [{"backbone": args.backbone, **record} for record in records])


def compared(args: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    backbone = open_backbone(args.backbone)
    encoder = CLIPImageEncoder(args.backbone)
    arrays = pixels(args)[np.arange(args.compared) % args.distinct]

    def shards(paths: list[Path]) -> None:
        shutil.rmtree(folder / "shards", ignore_errors=True)
        encoder.encode_to(paths, folder / "shards", shard_size=args.shard_size)

    contenders = {"arrays": lambda: encode_images(arrays, backbone)}
    for kind in ("png", "jpg"):
        paths = write_files(folder / kind, args, kind, args.compared)
        contenders[f"encode_images, {kind}"] = lambda paths=paths: encode_images(paths, backbone)
        contenders[f"encode_to, {kind}"] = lambda paths=paths: shards(paths)
    shards(sorted((folder / "png").rglob("*.png")))
    np.testing.assert_allclose(
        load_embeddings(folder / "shards").embeddings, encoder.transform(arrays), atol=1e-5
    )
    return [
        {"who": name, "images": args.compared, "images_per_second": args.compared / figures["seconds"]}
        | figures
        for name, figures in compare(contenders, n_rounds=args.rounds).items()
    ]


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def watched(args: argparse.Namespace) -> dict[str, object]:
    """Encode all files in a folder and return the speed and the growth of the resident memory."""
    paths = sorted(args.watch.rglob("*.png"))
    encoder = CLIPImageEncoder(args.backbone)
    encoder.transform(paths[:64])  # loads the backbone
    samples = [_resident_mib()]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_SECONDS_BETWEEN_SAMPLES):
            samples.append(_resident_mib())

    thread = threading.Thread(target=sample)
    thread.start()
    start = time.perf_counter()
    try:
        encoder.encode_to(paths, args.watch.parent / "watched", shard_size=args.shard_size)
    finally:
        seconds = time.perf_counter() - start
        done.set()
        thread.join()
        samples.append(_resident_mib())
    half = len(samples) // 2
    return {
        "who": "encode_to, png, all",
        "images": len(paths),
        "images_per_second": len(paths) / seconds,
        "seconds": seconds,
        "start_mib": samples[0],
        "peak_mib": max(samples),
        "growth_mib": max(samples[half:]) - max(samples[:half]),
    }


def pixels(args: argparse.Namespace) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (args.distinct, 4, 4, 3), dtype=np.uint8)
    resized = [
        Image.fromarray(image).resize((args.size, args.size), Image.Resampling.BICUBIC) for image in coarse
    ]
    return np.stack([np.asarray(image) for image in resized])


def write_files(folder: Path, args: argparse.Namespace, kind: str, n: int) -> list[Path]:
    """Write n files with the repeated images, and return their paths in order."""
    contents = []
    for image in pixels(args):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, {"png": "PNG", "jpg": "JPEG"}[kind])
        contents.append(buffer.getvalue())
    paths = []
    for i in range(n):
        paths.append(folder / f"{i // _PER_FOLDER:04}" / f"{i:07}.{kind}")
        if i % _PER_FOLDER == 0:
            paths[-1].parent.mkdir(parents=True)
        paths[-1].write_bytes(contents[i % args.distinct])
    return paths


if __name__ == "__main__":
    main()
