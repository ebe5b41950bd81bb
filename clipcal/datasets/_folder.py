"""Labeled images in folders: one folder per class, possibly inside one folder per split."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from clipcal._caller import warn_caller
from clipcal.datasets._listing import list_folder
from clipcal.datasets._loaded import SPLITS, WHOLE, Labeled, Part, split_name
from clipcal.images import ImagePaths

__all__ = ["read_folder"]


def read_folder(root: Path, *, labeled: bool) -> Labeled:
    """List the images of a folder.

    Parameters
    ----------
    root : Path
        The folder.
    labeled : bool
        If True, images are in one folder per class. If False, all images in and below the folder.

    Raises
    ------
    ValueError
        If the folder has no images, or no class folders.
    """
    what = repr(str(root))
    if not labeled:
        paths = _all_below(root)
        if not paths:
            raise ValueError(_no_images(root))
        return Labeled.of({WHOLE: Part(ImagePaths(paths, root), None, tuple(paths))}, what)
    folders, images = list_folder(root)
    splits = _splits(root, folders)
    if not splits:
        return Labeled.of({WHOLE: _read_classes(root, "", folders, images)}, what)
    parts = {}
    for name in sorted(splits, key=lambda name: SPLITS.index(splits[name])):
        parts[splits[name]] = _read_classes(root, f"{name}/", *list_folder(root / name))
    return Labeled.of(parts, what)


def _all_below(root: Path, inside: frozenset[str] = frozenset()) -> list[str]:
    """Return the relative paths of all images in and below a folder, sorted as plain strings."""
    inside = inside | {os.path.realpath(root)}
    folders, images = list_folder(root)
    for name in folders:
        # A link to a folder that it is in has no end.
        if os.path.realpath(root / name) not in inside:
            images += [f"{name}/{path}" for path in _all_below(root / name, inside)]
    return sorted(images)


def _splits(root: Path, folders: list[str]) -> dict[str, str]:
    """Return the split of each folder that is one: it is named after a split and holds class folders."""
    named = {name: split_name(name) for name in folders if split_name(name) in SPLITS}
    inside = {name: list_folder(root / name) for name in named}
    splits = {name: split for name, split in named.items() if inside[name][0] and not inside[name][1]}
    for name, split in splits.items():
        alike = [other for other in splits if splits[other] == split]
        if len(alike) > 1:
            raise ValueError(f"{str(root)!r} has several folders for the split {split!r}: {alike}; keep one.")
        for other in folders:
            if other in splits or not list_folder(root / other)[1]:
                continue
            if other in named:
                raise ValueError(
                    f"{str(root / other)!r} holds images without class folders, but {str(root / name)!r} has "
                    f"class folders. Write load_images({str(root / name)!r}), and load_images("
                    f"{str(root / other)!r}, labeled=False) for images without labels."
                )
            raise ValueError(
                f"{str(root)!r} holds split folders ({name!r}) and class folders ({other!r}); move the class "
                "folders into splits, or load one split: "
                f"load_images({str(root / name)!r})."
            )
    return splits


def _read_classes(root: Path, prefix: str, folders: list[str], loose: list[str]) -> Part:
    """List the images of the class folders in the folder `prefix` of the root."""
    here = root / prefix
    labels: list[str] = []
    paths: list[str] = []
    empty, deeper = [], []
    for name in folders:
        below, images = list_folder(here / name)
        # File systems differ in how they store accents; typed labels have the composed form.
        labels += [unicodedata.normalize("NFC", name)] * len(images)
        paths += [f"{prefix}{name}/{image}" for image in images]
        if not images:
            empty.append(name)
        else:
            deeper += [f"{name}/{inner}" for inner in below if list_folder(here / name / inner)[1]]
    if not paths:
        raise ValueError(_no_class_folders(here, len(loose)))
    if loose:
        warn_caller(
            f"{len(loose)} images directly in {str(here)!r}, such as {loose[0]!r}, are in no class folder "
            "and are ignored."
        )
    if empty:
        warn_caller(f"{len(empty)} folders in {str(here)!r} have no images and are ignored: {empty[:5]}.")
    if deeper:
        warn_caller(
            f"{len(deeper)} folders inside class folders in {str(here)!r}, such as {deeper[0]!r}, have "
            "images, which are ignored; move them into the class folders."
        )
    return Part(ImagePaths(paths, root), labels, tuple(paths))


def _no_class_folders(folder: Path, n_images: int) -> str:
    if n_images:
        return (
            f"{str(folder)!r} holds {n_images} images, but no class folders. Move the images of each class "
            "to a folder named after the class; for images without labels, write "
            f"load_images({str(folder)!r}, labeled=False)."
        )
    below = _all_below(folder)
    if not below:
        return _no_images(folder)
    classes = (folder / below[0]).parent.parent
    return (
        f"{str(folder)!r} has no class folders with images; the first image is {below[0]!r}. Pass the folder "
        f"that holds the class folders: load_images({str(classes)!r})."
    )


def _no_images(folder: Path) -> str:
    names = [entry.name for entry in os.scandir(folder)][:3]
    found = f"it has {names} and so on" if names else "it is empty"
    return f"There are no images in {str(folder)!r}: {found}. Images are recognized by their suffix."
