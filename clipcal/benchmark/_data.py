"""The data of a fit and its embeddings, loaded once per process."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcal._whole_file import remove_stale, write_whole
from clipcal.benchmark._components import backbone_of
from clipcal.benchmark._plan import Plan
from clipcal.datasets import load_benchmark
from clipcal.images import ImagePaths, encode_images, image_digest

__all__ = ["digest_of", "embedded", "forget_data", "load_part", "part_facts"]


def load_part(plan: Plan, name: str, classes: str, n_shots: int, seed: int) -> Any:
    """Return some classes of a data set, with drawn training images.

    Parameters
    ----------
    plan : Plan
        The plan, for the folder of data sets and the kind of draw.
    name : str
        Data set; see :func:`clipcal.datasets.load_benchmark`.
    classes : {"all", "base", "new"}
        The classes.
    n_shots : int
        Number of training images per class; 0 for all.
    seed : int
        Seed of the draw.

    Returns
    -------
    data : Bunch
    """
    return _load(name, plan.root, classes, n_shots, seed, plan.draw, plan.templates.get(name))


@lru_cache(maxsize=16)
def _load(
    name: str, root: str | None, classes: str, n_shots: int, seed: int, draw: str, template: str | None
) -> Any:
    data = load_benchmark(
        name, root=root, classes=classes, n_shots=n_shots or None, random_state=seed, draw=draw
    )
    if template is not None:
        data.template = template
    return data


def part_facts(plan: Plan, name: str, classes: str, n_shots: int, seed: int) -> dict[str, Any]:
    """Return what identifies the data that :func:`load_part` returns.

    Returns
    -------
    facts : dict
        For each subset, a dict of ``n`` (number of images) and ``digest``; ``template``, ``class_names`` (a
        hash), ``notes`` and ``n_classes``.
    """
    return _part_facts(name, plan.root, classes, n_shots, seed, plan.draw, plan.templates.get(name))


# Unlike the data, they are small.
@cache
def _part_facts(
    name: str, root: str | None, classes: str, n_shots: int, seed: int, draw: str, template: str | None
) -> dict[str, Any]:
    data = _load(name, root, classes, n_shots, seed, draw, template)
    parts = {
        subset: {"n": len(data[subset].target), "digest": digest}
        for subset, digest in data.split_info["digest"].items()
    }
    return {
        **parts,
        "template": data.template,
        "class_names": digest_of([list(pair) for pair in data.class_names.items()]),
        "notes": list(data.split_info["notes"]),
        "n_classes": len(data.class_ids),
    }


def forget_data() -> None:
    """Read data sets again when they are needed, as their files may have changed."""
    _load.cache_clear()
    _part_facts.cache_clear()


def digest_of(content: Any) -> str:
    """Return the SHA-256 of content in JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def embedded(
    plan: Plan, name: str, subset: str, *, n_shots: int = 0, seed: int = 0, memory: str, verbose: int = 0
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Return the embeddings of all images of a subset, and the row of each relative path.

    They are stored in one file, and always computed in the same batches, so that they do not depend on what
    was computed before: embeddings in other batches differ by rounding errors.

    Parameters
    ----------
    plan : Plan
        The plan.
    name : str
        Data set.
    subset : {"train", "validation", "test"}
        The subset.
    n_shots, seed : int, default=0
        The draw of the training and validation images.
    memory : str
        Folder of the cache.
    verbose : int, default=0
        If at least 1, a progress bar is shown while images are encoded.

    Returns
    -------
    embeddings : ndarray of float32, shape (n_images, embedding_dim)
    rows : dict of str to int
    """
    # Test images are not drawn.
    drawn = (n_shots, seed) if subset != "test" else (0, 0)
    part = load_part(plan, name, "all", *drawn)[subset]
    return _embedded(plan, _signature(part.images), part, memory, verbose)


_kept: dict[Path, NDArray[np.float32]] = {}
_MAX_KEPT = 8


def _embedded(
    plan: Plan, signature: str, part: Any, memory: str, verbose: int
) -> tuple[NDArray[np.float32], dict[str, int]]:
    from clipcal.backbones import precision_of

    backbone = backbone_of(plan)
    facts = f"{signature} {backbone.fingerprint} {precision_of(backbone)}"
    path = Path(memory, "embeddings", f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.npy")
    if path not in _kept:
        while len(_kept) >= _MAX_KEPT:
            del _kept[next(iter(_kept))]
        if not path.is_file():
            encoded = encode_images(part.images, backbone, verbose=verbose)
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(path.parent)
            write_whole(path, lambda file: np.save(file, encoded))
        _kept[path] = np.load(path)
    return _kept[path], {relative: row for row, relative in enumerate(part.paths)}


def _signature(images: Any) -> str:
    """Return a hash of the images, or of names, sizes and times of their files."""
    digest = hashlib.sha256()
    if isinstance(images, np.ndarray):
        digest.update(np.ascontiguousarray(images).tobytes())
    elif isinstance(images, ImagePaths):
        for path in images:
            status = os.stat(path)
            digest.update(
                f"{path} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
            )
    else:
        for position in range(len(images)):
            digest.update(image_digest(images, position))
    return digest.hexdigest()
