"""Find a published data set below a folder, in any of the layouts that are in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from clipcal.datasets._catalog import DatasetFacts
from clipcal.datasets._imagenet import read_imagenet, read_imagenet_variant
from clipcal.datasets._index import SUBSETS, Index, missing_files
from clipcal.datasets._split_file import read_aircraft_lists, read_split_file
from clipcal.exceptions import DatasetError

__all__ = ["ROOT_VARIABLE", "find_root", "locate", "missing_images", "missing_message", "remedy"]

ROOT_VARIABLE = "CLIPCAL_DATA"
_N_SHOWN = 3


def find_root(root: str | os.PathLike[str] | None) -> Path:
    """Return the folder with the data sets: `root`, or that of the environment variable.

    Raises
    ------
    DatasetError
        If neither is given, or the folder does not exist.
    """
    given = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not given:
        raise DatasetError(
            f"The folder with the data sets is not given; pass root='...', or set the environment variable "
            f"{ROOT_VARIABLE}."
        )
    path = Path(given).expanduser()
    if not path.is_dir():
        raise DatasetError(f"root={str(path)!r} is not a folder.")
    return path


def locate(facts: DatasetFacts, root: Path) -> Index:
    """Return the index of a data set in the layout in which it is found.

    Parameters
    ----------
    facts : DatasetFacts
        The data set.
    root : Path
        Folder with the data sets.

    Returns
    -------
    index : Index
        Files may be missing; see :func:`missing_images`.

    Raises
    ------
    DatasetError
        If the folder, the split file or the images are missing.
    """
    folders = [root / name for name in facts.folders if (root / name).is_dir()]
    if not folders:
        tried = ", ".join(str(root / name) for name in facts.folders)
        raise DatasetError(f"{facts.title} was not found; looked for the folders {tried}. {remedy(facts)}")
    if facts.split_file:
        return _with_split_file(facts, root, folders)
    if facts.name == "fgvc_aircraft":
        folder = next((f for f in folders if (f / "variants.txt").is_file()), None)
        if folder is None:
            raise DatasetError(f"{facts.title}: {folders[0] / 'variants.txt'} is missing. {remedy(facts)}")
        return read_aircraft_lists(folder, folder / facts.images[0])
    if facts.name == "imagenet":
        places = [(f, f / name) for f, name in _pairs(facts, folders) if (f / name / "train").is_dir()]
        if not places:
            raise DatasetError(
                f"{facts.title}: {folders[0] / 'images' / 'train'} is missing. {remedy(facts)}"
            )
        return read_imagenet(*places[0])
    places = [(f, f / name) for f, name in _pairs(facts, folders) if (f / name).is_dir()]
    return read_imagenet_variant(*places[0], numbered=facts.name == "imagenetv2")


def missing_images(index: Index) -> dict[str, list[int]]:
    """Return the positions of the images of each subset whose files do not exist."""
    return {subset: missing_files(index.folder, index.paths[subset]) for subset in SUBSETS}


def remedy(facts: DatasetFacts) -> str:
    """Return where the files of a data set can be had."""
    told = [f"Images: {facts.images_url}."] if facts.images_url else []
    if facts.split_file:
        told.append(f"Split file: {facts.split_url}.")
    if facts.advice:
        told.append(facts.advice)
    return " ".join([*told, f"Details: clipcal data check {facts.name}."])


def _pairs(facts: DatasetFacts, folders: list[Path]) -> Iterator[tuple[Path, str]]:
    return ((folder, name) for folder in folders for name in facts.images)


def _with_split_file(facts: DatasetFacts, root: Path, folders: list[Path]) -> Index:
    files = [folder / facts.split_file for folder in [*folders, root]]
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        tried = ", ".join(map(str, dict.fromkeys(files)))
        raise DatasetError(
            f"{facts.title}: the split file is missing; looked for {tried}. It determines the training, "
            f"validation and test images, so it is not made anew. {remedy(facts)}"
        )
    places = [folder / name for folder, name in _pairs(facts, folders)]
    index = read_split_file(file, places[0])
    # The folder in which most of some images exist.
    sample = [listed[0] for subset in SUBSETS if (listed := index.paths[subset])]
    sample += [listed[-1] for subset in SUBSETS if (listed := index.paths[subset])]
    index.folder = min(places, key=lambda place: len(missing_files(place, sample)))
    return index


def missing_message(facts: DatasetFacts, index: Index, missing: dict[str, list[int]]) -> str:
    """Return the message for missing images, with what is known of such layouts."""
    n_missing = sum(map(len, missing.values()))
    n_all = sum(map(len, index.paths.values()))
    first = [index.paths[subset][row] for subset in SUBSETS for row in missing[subset][:_N_SHOWN]][:_N_SHOWN]
    return (
        f"{facts.title}: {n_missing:,} of {n_all:,} images are missing in {index.folder}, such as "
        f"{', '.join(first)}.{_hint(index.folder, first[0])} {remedy(facts)}"
    )


def _hint(folder: Path, path: str) -> str:
    """Return advice if the images are in another place than expected."""
    top, _, rest = path.partition("/")
    if rest and (folder / top / top / rest).is_file():
        return f" They are one folder deeper, in {folder / top / top}; move them up."
    if rest and (folder / top).is_dir() and not (folder / path).exists():
        inner = next((entry for entry in (folder / top).iterdir() if entry.is_dir()), None)
        name = path.rpartition("/")[2]
        if inner is not None and rest == name:
            return f" {folder / top} has folders such as {inner.name}, where the split file expects images."
    parent, name = (folder / path).parent, path.rpartition("/")[2]
    if parent.is_dir():
        same = next((entry for entry in os.listdir(parent) if entry.casefold() == name.casefold()), None)
        if same is not None:
            return f" There is {same!r}, whose letters differ in case; rename it."
    return ""
