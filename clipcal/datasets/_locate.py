"""Find a published data set below a folder, in any of the layouts that are in use."""

from __future__ import annotations

import os
from pathlib import Path

from clipcal.datasets._catalog import DatasetFacts
from clipcal.datasets._imagenet import read_imagenet, read_imagenet_variant
from clipcal.datasets._index import SUBSETS, Index, missing_files
from clipcal.datasets._listing import list_folder
from clipcal.datasets._misplaced import misplacement
from clipcal.datasets._split_file import read_aircraft_lists, read_split_file
from clipcal.exceptions import DatasetError

__all__ = ["ROOT_VARIABLE", "differences", "find_root", "locate", "missing_images", "missing_message"]

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
        source = "root" if root is not None else ROOT_VARIABLE
        raise DatasetError(f"{source}={str(path)!r} is not a folder; pass the folder with the data sets.")
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
        If the folder, the split file or the folder of the images are missing, or their content is invalid.
        One message names all that is missing.
    """
    folders = [root / name for name in facts.folders if (root / name).is_dir()]
    if not folders:
        expected = "".join(f"\n  {path}" for path in _expected(facts, root / facts.folders[0]))
        tried = ", ".join(str(root / name) for name in facts.folders)
        raise DatasetError(
            f"{facts.title} was not found; looked for the folders {tried}. Expected:{expected}\n"
            f"{_remedy(facts)}"
        )
    try:
        if facts.split_file:
            return _with_split_file(facts, root, folders)
        return _from_folders(facts, folders)
    except DatasetError as error:
        raise DatasetError(f"{facts.title}: {error} {_remedy(facts)}") from error


def missing_images(facts: DatasetFacts, index: Index) -> dict[str, list[int]]:
    """Return the positions of the images of each subset whose files do not exist."""
    if not facts.split_file and not facts.lists:
        return {subset: [] for subset in SUBSETS}  # the images are those in the folders
    return {subset: missing_files(index.folder, index.paths[subset]) for subset in SUBSETS}


def missing_message(facts: DatasetFacts, index: Index, missing: dict[str, list[int]], root: Path) -> str:
    """Return the message for missing images, with what is known of such layouts."""
    n_missing = sum(map(len, missing.values()))
    n_all = sum(map(len, index.paths.values()))
    first = [index.paths[subset][row] for subset in SUBSETS for row in missing[subset][:_N_SHOWN]][:_N_SHOWN]
    places = _places(facts, [root / name for name in facts.folders if (root / name).is_dir()])
    others = [str(place) for place in places if place != index.folder]
    tried = f" (also tried: {', '.join(others)})" if others and n_missing == n_all else ""
    return (
        f"{facts.title}: {n_missing:,} of {n_all:,} images are missing in {index.folder}{tried}, such as "
        f"{', '.join(first)}.{misplacement(index.folder, first[0])} {_remedy(facts)}"
    )


def differences(facts: DatasetFacts, index: Index) -> list[str]:
    """Return in what a data set differs from the published one: numbers of classes and images, split file."""
    found = {"classes": len(index.class_ids), **{subset: len(index.paths[subset]) for subset in SUBSETS}}
    told = []
    for part, number in {"classes": facts.n_classes, **facts.sizes}.items():
        if found[part] != number:
            what = part if part == "classes" else f"{part} images"
            told.append(f"{found[part]:,} {what} (published: {number:,})")
    file_hash = str(index.info.get("file_sha256", ""))
    if facts.file_sha256 and not file_hash.startswith(facts.file_sha256):
        told.append(f"a split file with SHA-256 {file_hash[:16]} (known: {facts.file_sha256})")
    return told


def _expected(facts: DatasetFacts, folder: Path) -> list[str]:
    """Return the files and folders of the usual layout."""
    images = folder / facts.images[0]
    if facts.split_file:
        return [str(folder / facts.split_file), f"{images}{os.sep}"]
    if facts.lists:
        return [*(str(folder / name) for name in facts.lists), f"{images}{os.sep}"]
    if "train" in facts.sizes:
        return [f"{images / part / 'n01440764'}{os.sep}..." for part in ("train", "val")]
    name = "0" if facts.name == "imagenetv2" else "n01498041"
    return [f"{images / name}{os.sep}..."]


def _remedy(facts: DatasetFacts) -> str:
    """Return where the files of a data set can be had."""
    told = [f"Images: {facts.images_url}."] if facts.images_url else []
    if facts.split_file:
        told.append(f"Split file: {facts.split_url}.")
    return " ".join([*told, *([facts.advice] if facts.advice else [])])


def _places(facts: DatasetFacts, folders: list[Path]) -> list[Path]:
    return [folder / name for folder in folders for name in facts.images]


def _from_folders(facts: DatasetFacts, folders: list[Path]) -> Index:
    if facts.lists:
        folder = next((place for place in folders if (place / facts.lists[0]).is_file()), folders[0])
        return read_aircraft_lists(folder, folder / facts.images[0])
    places = [place for place in _places(facts, folders) if place.is_dir()]
    if "train" not in facts.sizes:
        return read_imagenet_variant(places[0], numbered=facts.name == "imagenetv2")
    with_parts = [place for place in places if (place / "train").is_dir() or (place / "val").is_dir()]
    return read_imagenet(with_parts[0] if with_parts else folders[0] / facts.images[0])


def _with_split_file(facts: DatasetFacts, root: Path, folders: list[Path]) -> Index:
    places = _places(facts, folders)
    files = list(dict.fromkeys(folder / facts.split_file for folder in [*folders, root]))
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        images = ", ".join(map(str, places))
        no_images = "" if any(map(_has_entries, places)) else f" There are no images, either, in {images}."
        raise DatasetError(
            f"the split file is missing; looked for {', '.join(map(str, files))}. It determines which images "
            f"are for training, validation and test, so it is not made anew.{no_images}"
        )
    index = read_split_file(file, places[0])
    # The folder in which most of some images exist.
    listed = [index.paths[subset] for subset in SUBSETS if index.paths[subset]]
    sample = [path for paths in listed for path in (paths[0], paths[len(paths) // 2], paths[-1])]
    index.folder = min(places, key=lambda place: len(missing_files(place, sample)))
    return index


def _has_entries(folder: Path) -> bool:
    """Whether a folder has other folders, or images; files such as archives and lists do not count."""
    return folder.is_dir() and any(list_folder(folder))
