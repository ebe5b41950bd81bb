"""Load published data sets, with their splits, class names and few-shot draws."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from clipcal._caller import warn_caller
from clipcal.datasets._catalog import CATALOG, MINI_PREFIX, OWN_PREFIX, DatasetFacts, resolve_name
from clipcal.datasets._few_shot import DRAWS, base_new_classes, check_seed, draw_few_shot, rank_images
from clipcal.datasets._index import SUBSETS, Index
from clipcal.datasets._locate import differences, find_root, locate, missing_images, missing_message
from clipcal.datasets._mini_sets import mini_classes, mini_subset
from clipcal.datasets._own_sets import own_index
from clipcal.exceptions import DatasetError
from clipcal.images import ImagePaths
from clipcal.text import DEFAULT_TEMPLATE, TEMPLATES

__all__ = ["load_benchmark", "published_digest"]

# Published few-shot settings use at most this number of validation images per class.
_MAX_VALIDATION_SHOTS = 4
# Validation images per class that are taken from the training images, if there are no others.
_N_HELD_OUT, _MAX_HELD_OUT = 20, 0.2
_CLASSES = ("all", "base", "new")
_MISSING = ("raise", "drop")
_DRAWN_SHOTS, _DRAWN_SEEDS = 16, (1, 2, 3)


def load_benchmark(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    classes: str = "all",
    n_shots: int | None = None,
    draw: str = "stable",
    random_state: int = 0,
    missing: str = "raise",
) -> Any:
    """Load a published data set from disk, or a generated one.

    Images are read when they are used. Nothing is downloaded or written; see :func:`fetch_benchmark`.

    Parameters
    ----------
    name : str
        Name of the data set; see :func:`list_benchmarks`. Names in papers and in other libraries are known,
        too. Names that start with ``"mini/"`` are tasks of :func:`make_shapes`, such as
        ``"mini/colors-street"``, which need no files. ``"own:"`` and the path of a source of
        :func:`load_images` stand for the user's own images, as in ``"own:pets"``. If they have no splits, 50
        % of the images of each class are training images, 20 % validation images and 30 % test images.
    root : str or Path, default=None
        Folder with the data sets. If None, the environment variable ``CLIPCAL_DATA``.
    classes : {"all", "base", "new"}, default="all"
        Classes to load; see :func:`base_new_classes`. Images are drawn before, from all classes.
    n_shots : int or None, default=None
        Number of training images per class. At most 4 validation images per class are drawn with it. If
        None, all images are used.
    draw : {"stable", "dassl"}, default="stable"
        Kind of draw; see :func:`draw_few_shot`. With ``"dassl"``, the images are those of publications that
        use CoOp's split files, except for ImageNet, whose draws depend on the file system.
    random_state : int, default=0
        Seed of the draw.
    missing : {"raise", "drop"}, default="raise"
        What happens if files are missing. ``"drop"`` leaves them out, with a warning.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        train, validation, test : Bunch
            Each with ``images`` (:class:`~clipcal.ImagePaths`, or an array of uint8 for generated data sets),
            ``target`` (ndarray of str, a class identifier for each image) and ``paths`` (tuple of str,
            relative, with forward slashes).
        class_ids : list of str
            Identifiers of the classes, in the order of the labels of the data set. For ImageNet and its
            variants they are WordNet ids.
        class_names : dict of str to str
            Text of each class for prompts. In ImageNet, two pairs of classes have the same text; pass
            ``allow_duplicate_names=True`` to classifiers.
        template : str
            Prompt template of the data set.
        n_base : int
            Number of base classes among all classes.
        name : str
            Name of the data set.
        split_info : dict
            ``file`` of the split, ``sha256`` of its content, ``draw``, ``seed``, ``n_shots``, ``digest`` (a
            SHA-256 of paths and classes of each subset), ``published_draw`` (whether the drawn images are
            those of publications; None if it is not known), and ``notes``.
        DESCR : str
            Description.

    Raises
    ------
    DatasetError
        If the data set is unknown, a parameter is invalid, or files are missing or damaged. The message says
        where files are expected and where they can be had.

    See Also
    --------
    check_benchmark : Check the files of a data set.
    fetch_benchmark : Download the files of a data set.
    load_images : Load images of other data sets.

    Notes
    -----
    ImageNet and its variants are tested on the official validation images. Validation images for calibration
    are taken from the training images, and are not used for training: 20 images per class, or a fifth of
    smaller classes, if `n_shots` is None. The variants have no training images.

    References
    ----------
    .. [1] K. Zhou, J. Yang, C. C. Loy, Z. Liu, "Learning to Prompt for Vision-Language Models",
       IJCV 2022, arXiv:2109.01134. Splits: https://github.com/KaiyangZhou/CoOp.

    Examples
    --------
    >>> from clipcal.datasets import load_benchmark
    >>> data = load_benchmark("mini/shapes-studio", classes="base", n_shots=4, random_state=1)
    >>> len(data.train.images), len(data.validation.images), len(data.test.images)
    (48, 48, 600)
    >>> data.class_ids[:3]
    ['circle', 'square', 'triangle']
    """
    own = isinstance(name, str) and name.startswith(OWN_PREFIX)
    name = name if own else resolve_name(name)
    _check_choices(classes=(classes, _CLASSES), missing=(missing, _MISSING), draw=(draw, DRAWS))
    seed = check_seed(random_state)
    arrays: dict[str, Any] | None = None
    if own:
        index, arrays = own_index(name, None if root is None else find_root(root))
    elif name.startswith(MINI_PREFIX):
        index, arrays = _mini_index(name)
    else:
        index = _read(CATALOG[name], find_root(root), missing)
    positions = _draw(index, arrays, name, n_shots, draw, seed)
    info = {
        **index.info,
        "draw": None if n_shots is None else draw,
        "seed": seed,
        "n_shots": n_shots,
        "published_draw": _is_published(index, name, n_shots, draw, seed, positions),
    }
    labels, n_base = _labels_of(index.class_ids, classes)
    parts = {}
    for subset, rows in positions.items():
        kept = [row for row in rows if index.labels[subset][row] in labels]
        parts[subset] = _part(index, subset, kept, arrays)
    info["digest"] = {subset: _digest(part) for subset, part in parts.items()}
    ids = [index.class_ids[label] for label in sorted(labels)]
    return Bunch(
        **parts,
        name=name,
        class_ids=ids,
        class_names={identifier: index.class_names[identifier] for identifier in ids},
        template=TEMPLATES[name][0] if name in TEMPLATES else DEFAULT_TEMPLATE,
        n_base=n_base,
        split_info=info,
        DESCR=_description(name, classes, parts, len(ids), info),
    )


def _check_choices(**choices: tuple[str, tuple[str, ...]]) -> None:
    for parameter, (value, options) in choices.items():
        if value not in options:
            raise DatasetError(
                f"{parameter}={value!r} is not supported; choose one of {', '.join(map(repr, options))}."
            )


def _mini_index(name: str) -> tuple[Index, dict[str, Any]]:
    ids = mini_classes(name)
    label_of = {identifier: label for label, identifier in enumerate(ids)}
    arrays, paths, labels = {}, {}, {}
    for subset in SUBSETS:
        arrays[subset], target, paths[subset] = mini_subset(name, subset)
        labels[subset] = [label_of[identifier] for identifier in target.tolist()]
    info: dict[str, object] = {"file": "", "sha256": hashlib.sha256(name.encode()).hexdigest()}
    return Index(Path(), ids, {i: i for i in ids}, paths, labels, info), arrays


def _read(facts: DatasetFacts, root: Path, missing: str) -> Index:
    index = locate(facts, root)
    told = differences(facts, index)
    if told:
        text = f"{facts.title} differs from the published data set: {', '.join(told)}."
        warn_caller(text)
        index.note(text)
    absent = missing_images(facts, index)
    n_absent = sum(map(len, absent.values()))
    if not n_absent:
        return index
    message = missing_message(facts, index, absent, root)
    if missing == "raise":
        raise DatasetError(f'{message} To load the others, pass missing="drop".')
    counts = Counter(
        index.class_ids[index.labels[subset][row]] for subset in SUBSETS for row in absent[subset]
    )
    of_classes = ", ".join(f"{name} ({n})" for name, n in counts.most_common(5))
    more = f" and {len(counts) - 5} more classes" if len(counts) > 5 else ""
    warn_caller(
        f"{message} They are left out, of the classes {of_classes}{more}; results are not comparable with "
        "published ones."
    )
    index.note(f"{n_absent:,} missing images were left out; results are not comparable with published ones.")
    for subset, rows in absent.items():
        index.keep(subset, sorted(set(range(len(index.paths[subset]))) - set(rows)))
    without = set(range(len(index.class_ids))) - set(index.labels["train"])
    if without:
        names = [index.class_ids[label] for label in sorted(without)]
        raise DatasetError(
            f"{facts.title}: {len(names)} classes have no training images left, such as {names[0]!r}."
        )
    return index


def _draw(
    index: Index,
    arrays: dict[str, Any] | None,
    name: str,
    n_shots: int | None,
    draw: str,
    random_state: int,
) -> dict[str, list[int]]:
    """Return the drawn rows of each subset, from all classes; for validation, moves training images there."""
    rows = {subset: list(range(len(index.paths[subset]))) for subset in SUBSETS}
    # ImageNet has no validation images besides the test images; one's own images may have none.
    published = CATALOG[name].sizes if name in CATALOG else {}
    apart = bool(index.paths["train"]) and not index.paths["validation"] and "validation" not in published
    if n_shots is not None:
        stream: Any = random.Random(random_state) if draw == "dassl" else random_state
        settings = {"random_state": stream, "draw": draw, "name": name}
        for subset, n in (("train", n_shots), ("validation", min(n_shots, _MAX_VALIDATION_SHOTS))):
            if index.paths[subset]:
                names = [index.class_ids[label] for label in index.labels[subset]]
                rows[subset] = draw_few_shot(names, n, paths=index.paths[subset], **settings)
    if apart:
        n_held_out = _N_HELD_OUT if n_shots is None else min(n_shots, _MAX_VALIDATION_SHOTS)
        taken = set() if n_shots is None else set(rows["train"])
        fraction = _MAX_HELD_OUT if n_shots is None else 1.0
        held_out = _held_out(index, name, taken, n_held_out, fraction, random_state)
        if n_shots is None:
            rows["train"] = sorted(set(rows["train"]) - set(held_out))
        rows["validation"] = list(range(len(held_out)))
        index.paths["validation"] = [index.paths["train"][row] for row in held_out]
        index.labels["validation"] = [index.labels["train"][row] for row in held_out]
        if arrays is not None:
            arrays["validation"] = arrays["train"][held_out]
        index.note(f"Validation images are at most {n_held_out} of the other training images per class.")
        if draw == "dassl" and n_shots is not None and published:
            index.note("The images are drawn from sorted names; publications drew from unsorted listings.")
    return rows


def _held_out(
    index: Index, name: str, taken: set[int], n: int, fraction: float, random_state: int
) -> list[int]:
    """Return rows of training images of each class that are not taken, at most a fraction of them."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(index.labels["train"]):
        if row not in taken:
            rows_of[label].append(row)
    paths = index.paths["train"]
    return [
        row
        for label in sorted(rows_of)
        for row in rank_images(rows_of[label], paths, seed=random_state, name=name)[
            : min(n, int(fraction * len(rows_of[label])))
        ]
    ]


def _is_published(
    index: Index,
    name: str,
    n_shots: int | None,
    draw: str,
    random_state: int,
    positions: dict[str, list[int]],
) -> bool | None:
    """Return whether the drawn images are those of publications; None if that is not known."""
    draws = CATALOG[name].draws if name in CATALOG else ()
    if draw != "dassl" or n_shots != _DRAWN_SHOTS or random_state not in _DRAWN_SEEDS or not draws:
        return None
    train, validation = (
        [index.paths[subset][row] for row in positions[subset]] for subset in ("train", "validation")
    )
    same = published_digest(train, validation) == draws[_DRAWN_SEEDS.index(random_state)]
    if not same:
        index.note("The drawn images are not the published ones: the split file or the images are others.")
    return same


def published_digest(train: Sequence[str], validation: Sequence[str]) -> str:
    """Return the first 12 digits of the hash of drawn paths, as in the table of published draws."""
    text = "\n".join(train) + "\n--\n" + "\n".join(validation)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _labels_of(class_ids: Sequence[str], classes: str) -> tuple[set[int], int]:
    base, new = base_new_classes(list(range(len(class_ids))))
    return set({"all": [*base, *new], "base": base, "new": new}[classes]), len(base)


def _part(index: Index, subset: str, rows: list[int], arrays: dict[str, Any] | None) -> Bunch:
    paths = [index.paths[subset][row] for row in rows]
    images: Any = ImagePaths(paths, root=index.folder) if arrays is None else arrays[subset][rows]
    ids = np.asarray(index.class_ids)
    return Bunch(images=images, target=ids[[index.labels[subset][row] for row in rows]], paths=tuple(paths))


def _digest(part: Bunch) -> str:
    lines = [f"{path}\t{identifier}" for path, identifier in zip(part.paths, part.target, strict=True)]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _description(
    name: str, classes: str, parts: dict[str, Bunch], n_classes: int, info: dict[str, Any]
) -> str:
    sizes = ", ".join(f"{len(part.paths):,} {subset}" for subset, part in parts.items())
    lines = [f"{name}, {classes} classes: {n_classes} classes, {sizes} images.", *map(str, info["notes"])]
    return "\n".join(lines)
