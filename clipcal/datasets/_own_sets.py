"""A user's own images in the form of a published data set."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from clipcal._caller import warn_caller
from clipcal.datasets._catalog import OWN_PREFIX
from clipcal.datasets._few_shot import rank_images
from clipcal.datasets._index import SUBSETS, Index
from clipcal.datasets._load_images import load_images
from clipcal.exceptions import DatasetError

__all__ = ["own_index"]

# As in the splits that CoOp made of data sets without one.
_TRAIN, _VALIDATION = 0.5, 0.2


def own_index(name: str, root: Path | None) -> tuple[Index, dict[str, Any]]:
    """Return the index and the images of a source of labeled images.

    Parameters
    ----------
    name : str
        ``"own:"`` and the path of a source of :func:`load_images`.
    root : Path or None
        Folder to which a relative path is relative; if None, the working directory.

    Returns
    -------
    index : Index
    images : dict
        The images of each subset.

    Raises
    ------
    DatasetError
        If there are no test images.
    """
    path = Path(name.removeprefix(OWN_PREFIX)).expanduser()
    place = path if root is None else root / path
    loaded = load_images(place)
    ids = [str(label) for label in loaded.class_ids]
    if len(set(ids)) < len(ids):
        raise DatasetError(f"{name}: several labels are the same as text, such as 1 and '1'.")
    label_of = {label: number for number, label in enumerate(loaded.class_ids)}
    parts = {"train": loaded} if "images" in loaded else {subset: loaded[subset] for subset in SUBSETS}
    images = {subset: part.images for subset, part in parts.items()}
    paths = {subset: list(part.paths) for subset, part in parts.items()}
    labels = {subset: [label_of[label] for label in part.target.tolist()] for subset, part in parts.items()}
    names = {
        identifier: loaded.class_names[label] for identifier, label in zip(ids, loaded.class_ids, strict=True)
    }
    index = Index(Path(), ids, names, paths, labels, {"file": str(place), "sha256": ""})
    if "images" in loaded:
        _split(index, images, name)
    elif not index.paths["test"]:
        if not index.paths["validation"]:
            raise DatasetError(
                f"{name} has no test images; add a folder 'test', or remove the folder 'train'."
            )
        index.paths["test"], index.labels["test"] = index.paths["validation"], index.labels["validation"]
        index.paths["validation"], index.labels["validation"] = [], []
        images["test"] = images["validation"]
        index.note("There are no test images; the validation images are used as such.")
    return index, images


def _split(index: Index, images: dict[str, Any], name: str) -> None:
    """Split all images into training, validation and test images, class by class."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(index.labels["train"]):
        rows_of[label].append(row)
    chosen: dict[str, list[int]] = {subset: [] for subset in SUBSETS}
    for label in sorted(rows_of):
        ranked = rank_images(rows_of[label], index.paths["train"], seed=0, name="split")
        n_train = max(1, round(_TRAIN * len(ranked)))
        n_validation = round(_VALIDATION * len(ranked))
        chosen["train"] += ranked[:n_train]
        chosen["validation"] += ranked[n_train : n_train + n_validation]
        chosen["test"] += ranked[n_train + n_validation :]
    everything, paths, labels = images["train"], index.paths["train"], index.labels["train"]
    for subset, rows in chosen.items():
        images[subset] = everything[sorted(rows)]
        index.paths[subset] = [paths[row] for row in sorted(rows)]
        index.labels[subset] = [labels[row] for row in sorted(rows)]
    if not index.paths["test"]:
        raise DatasetError(f"{name} has too few images per class for a test.")
    tested = set(index.labels["test"])
    untested = [index.class_ids[label] for label in sorted(rows_of) if label not in tested]
    if untested:
        told = f"{len(untested)} classes have too few images for a test, such as {untested[0]!r}."
        warn_caller(f"{name}: {told}")
        index.note(told)
    index.note("Of the images of each class, 50 % are training, 20 % validation and 30 % test images.")
