"""Read ImageNet and its variants from folders by class."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from clipcal.datasets._index import Index
from clipcal.datasets._listing import list_folder
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


def read_imagenet(images: Path) -> Index:
    """Read the training images, and the official validation images as test images.

    Parameters
    ----------
    images : Path
        Folder with ``train`` and ``val``, each with one folder per class. ``classnames.txt`` in it, or in the
        folder that contains it, has names to use instead of the published ones.

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
    classes = _named_classes(images)
    parts = {"train": "train", "test": "val"}
    faults = [fault for part in parts.values() if (fault := _fault(images / part, classes))]
    if faults:
        raise DatasetError(" ".join(faults))
    paths: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    for subset, part in parts.items():
        folders = [(label, f"{part}/{wnid}") for label, wnid in enumerate(classes)]
        paths[subset], labels[subset] = _list_folders(images, folders)
    index = Index(images, list(classes), classes, paths, labels, _info(paths))
    index.note("The official validation images are the test images, as in publications.")
    return index


def _fault(place: Path, classes: dict[str, str]) -> str:
    """Return what is wrong with a folder that must have one folder per class; empty if nothing."""
    if not place.is_dir():
        return f"the folder {place} is missing."
    folders, loose = list_folder(place)
    absent = sorted(classes.keys() - set(folders))
    if not absent:
        return ""
    if loose:
        return (
            f"{place} has {len(loose):,} images that are not in folders by class. Move them to folders such "
            f"as {place / absent[0]}, for example with the script valprep.sh that ImageNet tutorials use."
        )
    return (
        f"{place} has no folder for {len(absent):,} of the {len(classes):,} classes, such as {absent[0]!r}."
    )


def read_imagenet_variant(images: Path, *, numbered: bool) -> Index:
    """Read a variant of ImageNet, which has only test images.

    Parameters
    ----------
    images : Path
        Folder with one folder per class; other files are ignored. For ``classnames.txt``, see
        :func:`read_imagenet`.
    numbered : bool
        Whether the folders are named by positions of the classes, as in ImageNetV2. Sorting such names as
        text would exchange most classes.

    Returns
    -------
    index : Index
        With the classes that have a folder.

    Raises
    ------
    DatasetError
        If there are no folders, or folders with other names.
    """
    classes = _named_classes(images)
    ids = list(classes)
    if numbered:
        known = {str(position): wnid for position, wnid in enumerate(ids)}
    else:
        known = {wnid: wnid for wnid in ids}
    folders, _ = list_folder(images)
    wrong = [name for name in folders if name not in known]
    if wrong or not folders:
        expected = "0, 1, ..., 999" if numbered else "WordNet ids, such as n01440764"
        got = f"got {wrong[0]!r}" if wrong else "there are none"
        raise DatasetError(f"the folders in {images} must be named by {expected}; {got}.")
    owners = {known[name]: name for name in folders}
    present = [wnid for wnid in ids if wnid in owners]
    paths, labels = _list_folders(images, [(i, owners[wnid]) for i, wnid in enumerate(present)])
    names = {wnid: classes[wnid] for wnid in present}
    return Index(images, present, names, {"test": paths}, {"test": labels}, _info({"test": paths}))


def _list_folders(images: Path, folders: list[tuple[int, str]]) -> tuple[list[str], list[int]]:
    """Return the paths of the images in folders, and their labels."""
    paths: list[str] = []
    labels: list[int] = []
    for label, folder in folders:
        found = list_folder(images / folder)[1]
        paths += [f"{folder}/{name}" for name in found]
        labels += [label] * len(found)
    return paths, labels


def _named_classes(images: Path) -> dict[str, str]:
    places = [folder / "classnames.txt" for folder in (images, images.parent)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return imagenet_classes()
    lines = path.read_text(encoding="utf-8").splitlines()
    classes = dict(line.strip().split(" ", 1) for line in lines if line.strip().count(" "))
    if sorted(classes) != sorted(imagenet_classes()):
        raise DatasetError(
            f"{path} must have one line for each of the 1,000 classes, such as 'n01440764 tench'; it has "
            f"{len(classes):,}. Without this file, the published names are used."
        )
    return {wnid: classes[wnid].strip() for wnid in sorted(classes)}


def _info(paths: dict[str, list[str]]) -> dict[str, object]:
    text = "\n".join(path for listed in paths.values() for path in listed)
    return {"file": "", "sha256": hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()}
