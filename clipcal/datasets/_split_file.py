"""Read split files: JSON with lists of [path, label, class name], and the lists of FGVC Aircraft."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipcal._caller import warn_caller
from clipcal.datasets._index import Index, check_relative
from clipcal.exceptions import DatasetError

__all__ = ["prompt_text", "read_aircraft_lists", "read_split_file"]

# Names of the subsets in split files.
_PARTS = {"train": "train", "validation": "val", "test": "test"}


def prompt_text(name: str) -> str:
    """Return the text of a class in prompts: underscores become spaces, as in all published trainers."""
    return name.replace("_", " ")


def read_split_file(path: Path, folder: Path) -> Index:
    """Read a split file in the format of CoOp.

    Parameters
    ----------
    path : Path
        JSON file with the keys ``train``, ``val`` and ``test``, each a list of ``[path, label, class name]``.
    folder : Path
        Folder that the paths are relative to.

    Returns
    -------
    index : Index

    Raises
    ------
    DatasetError
        If the content has another form, labels are not 0, 1, ..., a label has several names, or an image is
        in several subsets.
    """
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise DatasetError(f"{path} is not a JSON file ({error}); download it again.") from error
    if not isinstance(content, dict) or not content.keys() >= {"train", "test"}:
        raise DatasetError(f"{path} must have the keys 'train', 'val' and 'test'.")
    if not all(isinstance(content.get(key, []), list) for key in _PARTS.values()):
        raise DatasetError(f"{path}: 'train', 'val' and 'test' must be lists; download it again.")
    names: dict[int, str] = {}
    paths: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    for subset, key in _PARTS.items():
        paths[subset], labels[subset] = [], []
        for number, item in enumerate(content.get(key, [])):
            relative, label, name = _item(item, f"{path}, {key}[{number}]")
            if names.setdefault(label, name) != name:
                raise DatasetError(f"{path}: label {label} has the names {names[label]!r} and {name!r}.")
            paths[subset].append(relative)
            labels[subset].append(label)
    if len(names) < 2:
        raise DatasetError(f"{path} has {len(names)} classes, but at least two classes are needed.")
    if sorted(names) != list(range(len(names))):
        raise DatasetError(f"{path}: labels must be 0 to {len(names) - 1}, but {_gap(names)} is missing.")
    ids = [names[label] for label in range(len(names))]
    _check_ids(ids, path)
    _check_disjoint(paths, path)
    texts = {name: prompt_text(name) for name in ids}
    _check_trained(labels, ids, path)
    # The same for files of the same content that are written in other ways.
    canonical = json.dumps([content.get(key, []) for key in _PARTS.values()]).encode()
    info: dict[str, object] = {
        "file": str(path),
        "sha256": hashlib.sha256(canonical).hexdigest(),
        "file_sha256": hashlib.sha256(raw).hexdigest(),
    }
    return Index(folder, ids, texts, paths, labels, info)


def read_aircraft_lists(folder: Path, images: Path) -> Index:
    """Read the lists of images by variant of FGVC Aircraft.

    Parameters
    ----------
    folder : Path
        Folder with ``variants.txt`` and ``images_variant_train.txt``, ``..._val.txt`` and ``..._test.txt``.
    images : Path
        Folder of the images.

    Returns
    -------
    index : Index
    """
    names = ["variants.txt", *(f"images_variant_{part}.txt" for part in _PARTS.values())]
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise DatasetError(f"{folder} lacks {', '.join(absent)}.")
    ids = [line.strip() for line in _lines(folder / "variants.txt")]
    _check_ids(ids, folder / "variants.txt")
    label_of = {name: label for label, name in enumerate(ids)}
    digest = hashlib.sha256("\n".join(ids).encode())
    paths: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    for subset, part in _PARTS.items():
        file = folder / f"images_variant_{part}.txt"
        paths[subset], labels[subset] = [], []
        for line in _lines(file):
            digest.update(f"\n{part} {line}".encode())
            number, _, name = line.strip().partition(" ")
            if name not in label_of:
                raise DatasetError(f"{file}: {name!r} is not in variants.txt.")
            paths[subset].append(check_relative(f"{number}.jpg", str(file)))
            labels[subset].append(label_of[name])
    _check_disjoint(paths, folder)
    info: dict[str, object] = {"file": str(folder / "images_variant_*.txt"), "sha256": digest.hexdigest()}
    return Index(images, ids, {name: prompt_text(name) for name in ids}, paths, labels, info)


def _gap(labels: dict[int, str]) -> int:
    return next(label for label in range(len(labels)) if label not in labels)


def _item(item: Any, where: str) -> tuple[str, int, str]:
    if not isinstance(item, list) or len(item) != 3:
        raise DatasetError(f"{where} must be [path, label, class name], got {item!r}.")
    path, label, name = item
    if not isinstance(label, int) or isinstance(label, bool):
        raise DatasetError(f"{where}: the label must be an integer, got {label!r}.")
    if not isinstance(name, str) or not name.strip():
        raise DatasetError(f"{where}: the class name must be a string, got {name!r}.")
    return check_relative(path, where), label, name


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _check_ids(ids: Sequence[str], path: Path) -> None:
    owner: dict[str, int] = {}
    for label, name in enumerate(ids):
        other = owner.setdefault(prompt_text(name).casefold(), label)
        if other != label:
            raise DatasetError(
                f"{path}: the classes {other} and {label} have the same text, {ids[other]!r} and {name!r}."
            )


def _check_trained(labels: dict[str, list[int]], ids: Sequence[str], path: Path) -> None:
    """Raise if classes have test images, but no training images."""
    trained = set(labels["train"])
    absent = [name for label, name in enumerate(ids) if label not in trained]
    if absent:
        raise DatasetError(f"{path}: {len(absent)} classes have no training images, such as {absent[0]!r}.")


def _check_disjoint(paths: dict[str, list[str]], path: Path) -> None:
    owner: dict[str, str] = {}
    n_repeated = 0
    for subset, listed in paths.items():
        for relative in listed:
            other = owner.setdefault(relative, subset)
            if other != subset:
                raise DatasetError(f"{path}: the image {relative!r} is in {other} and in {subset}.")
        n_repeated += len(listed) - len(set(listed))
    if n_repeated:
        warn_caller(f"{path} lists {n_repeated} images more than once.")
