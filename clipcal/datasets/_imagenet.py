"""Read ImageNet and its variants from folders by class."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from clipcal.datasets._index import Index, files_of, folders_of
from clipcal.exceptions import DatasetError

__all__ = ["imagenet_classes", "read_imagenet", "read_imagenet_variant"]


@cache
def imagenet_classes() -> dict[str, str]:
    """Return the published names of the ImageNet classes.

    Returns
    -------
    classes : dict of str to str
        Name of each WordNet id, in the standard order. Two pairs of classes have the same name.
    """
    text = files("clipcal.datasets").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return dict(line.split(" ", 1) for line in text.splitlines())


def read_imagenet(folder: Path, images: Path) -> Index:
    """Read the training images, and the official validation images as test images.

    Parameters
    ----------
    folder : Path
        Folder that may have ``classnames.txt``, whose names are then used.
    images : Path
        Folder with ``train`` and ``val``, each with one folder per class.

    Returns
    -------
    index : Index
        Without validation images: the labels of the official test images are not public, so that all
        publications test on the official validation images.

    Raises
    ------
    DatasetError
        If images are not in folders by class.
    """
    classes = _named_classes(folder)
    paths: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    for subset, part in (("train", "train"), ("test", "val")):
        place = images / part
        if not place.is_dir():
            raise DatasetError(f"The folder {place} is missing.")
        n_loose = len(files_of(place))
        if n_loose and not folders_of(place):
            raise DatasetError(
                f"{place} has {n_loose:,} images that are not in folders by class. Sort them into folders "
                "such as n01440764, for example with the script valprep.sh of the ImageNet tutorials."
            )
        paths[subset], labels[subset] = _by_class(place, classes, prefix=f"{part}/")
    index = Index(images, list(classes), classes, paths, labels, _info(paths))
    index.note("The official validation images are the test images, as in publications.")
    return index


def read_imagenet_variant(folder: Path, images: Path, *, numbered: bool) -> Index:
    """Read a variant of ImageNet, which has only test images.

    Parameters
    ----------
    folder : Path
        Folder that may have ``classnames.txt``.
    images : Path
        Folder with one folder per class; other files are ignored.
    numbered : bool
        Whether the folders are named by positions of the classes, as in ImageNetV2. Sorting such names as
        text would exchange most classes.

    Returns
    -------
    index : Index
        With the classes that have a folder.
    """
    classes = _named_classes(folder)
    ids = list(classes)
    folders = folders_of(images)
    if numbered:
        wrong = [name for name in folders if not name.isdigit() or int(name) >= len(ids)]
        owner = {name: ids[int(name)] for name in folders if name not in wrong}
    else:
        wrong = [name for name in folders if name not in classes]
        owner = {name: name for name in folders if name not in wrong}
    if wrong or not owner:
        expected = "0, 1, ..., 999" if numbered else "WordNet ids, such as n01440764"
        got = f"got {wrong[0]!r}" if wrong else "there are none"
        raise DatasetError(f"The folders in {images} must be named by {expected}; {got}.")
    present = [wnid for wnid in ids if wnid in set(owner.values())]
    label_of = {wnid: label for label, wnid in enumerate(present)}
    paths, labels = [], []
    for name in sorted(owner, key=lambda name: label_of[owner[name]]):
        found = files_of(images / name)
        paths += [f"{name}/{file}" for file in found]
        labels += [label_of[owner[name]]] * len(found)
    parts = {"test": paths}
    names = {wnid: classes[wnid] for wnid in present}
    return Index(images, present, names, parts, {"test": labels}, _info(parts))


def _named_classes(folder: Path) -> dict[str, str]:
    path = folder / "classnames.txt"
    if not path.is_file():
        return imagenet_classes()
    lines = path.read_text(encoding="utf-8").splitlines()
    classes = dict(line.strip().split(" ", 1) for line in lines if line.strip().count(" "))
    if sorted(classes) != sorted(imagenet_classes()):
        raise DatasetError(
            f"{path} must have one line for each of the 1,000 classes, such as 'n01440764 tench'; it has "
            f"{len(classes)}. Without this file, the published names are used."
        )
    return {wnid: classes[wnid].strip() for wnid in sorted(classes)}


def _by_class(place: Path, classes: dict[str, str], prefix: str) -> tuple[list[str], list[int]]:
    paths: list[str] = []
    labels: list[int] = []
    present = set(folders_of(place))
    absent = [wnid for wnid in classes if wnid not in present]
    if absent:
        raise DatasetError(
            f"{place} has no folder for {len(absent)} of the {len(classes)} classes, such as {absent[0]!r}."
        )
    for label, wnid in enumerate(classes):
        found = files_of(place / wnid)
        paths += [f"{prefix}{wnid}/{name}" for name in found]
        labels += [label] * len(found)
    return paths, labels


def _info(paths: dict[str, list[str]]) -> dict[str, object]:
    text = "\n".join(path for listed in paths.values() for path in listed)
    return {"file": "", "sha256": hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()}
