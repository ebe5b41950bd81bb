"""Draws of a few images per class, and halves of the classes."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Sequence
from numbers import Integral
from typing import Any, TypeVar

from clipcal._caller import warn_caller
from clipcal.exceptions import DatasetError

__all__ = ["DRAWS", "base_new_classes", "check_seed", "draw_few_shot", "rank_images"]

DRAWS = ("stable", "dassl")
_VERSION = "clipcal draw 1"
_Class = TypeVar("_Class")


def draw_few_shot(
    labels: Sequence[Hashable],
    n_shots: int,
    *,
    paths: Sequence[str] | None = None,
    random_state: int | random.Random = 0,
    draw: str = "stable",
    name: str = "",
) -> list[int]:
    """Draw a few images of each class.

    Parameters
    ----------
    labels : sequence of hashable, length n_images
        Class of each image.
    n_shots : int
        Number of images per class. Smaller classes are used whole, with a warning.
    paths : sequence of str, length n_images, default=None
        Relative paths with forward slashes, which ``draw="stable"`` needs.
    random_state : int or random.Random, default=0
        Seed. For ``draw="dassl"``, a generator continues its stream, as published for the validation images
        after the training images.
    draw : {"stable", "dassl"}, default="stable"
        ``"stable"`` takes the images with the smallest hashes of seed, data set and path. It does not depend
        on the order of the images or on other classes, and draws of fewer images are part of those of more.
        ``"dassl"`` repeats the draws of CoOp and of the trainers that use Dassl [1]_, for the same order of
        images: classes in the order of their first image, ``random.sample`` in each.
    name : str, default=""
        Name of the data set, for ``draw="stable"``.

    Returns
    -------
    rows : list of int
        Positions of the drawn images, class by class: in sorted order of classes if they are stable, in that
        of their first images otherwise.

    Raises
    ------
    DatasetError
        If `n_shots` is not a positive integer, the draw is unknown, or `paths` is missing.

    References
    ----------
    .. [1] K. Zhou, Y. Yang, Y. Qiao, T. Xiang, "Domain Adaptive Ensemble Learning", IEEE TIP 2021,
       arXiv:2003.07325. Code: https://github.com/KaiyangZhou/Dassl.pytorch.

    Examples
    --------
    >>> from clipcal.datasets import draw_few_shot
    >>> labels = ["cat"] * 60
    >>> draw_few_shot(labels, 4, random_state=1, draw="dassl")
    [8, 36, 54, 51]
    >>> paths = [f"cat/{i}.jpg" for i in range(60)]
    >>> few = draw_few_shot(labels, 2, paths=paths, random_state=1)
    >>> few == draw_few_shot(labels, 4, paths=paths, random_state=1)[:2]
    True
    """
    if draw not in DRAWS:
        raise DatasetError(f"draw={draw!r} is unknown; choose among {', '.join(map(repr, DRAWS))}.")
    if not isinstance(n_shots, Integral) or isinstance(n_shots, bool) or n_shots < 1:
        raise DatasetError(f"n_shots must be a positive integer or None, got {n_shots!r}.")
    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows_of[label].append(row)
    short = {label: len(rows) for label, rows in rows_of.items() if len(rows) < n_shots}
    if short:
        told = ", ".join(f"{label!r} ({n})" for label, n in list(short.items())[:3])
        more = f" and {len(short) - 3} more" if len(short) > 3 else ""
        warn_caller(
            f"{len(short)} classes have fewer than {n_shots} images and are used whole: {told}{more}."
        )
    if draw == "dassl":
        generator = (
            random_state
            if isinstance(random_state, random.Random)
            else random.Random(check_seed(random_state))
        )
        return [
            row
            for rows in rows_of.values()
            # A class that is too small does not advance the stream.
            for row in (generator.sample(rows, n_shots) if len(rows) >= n_shots else rows)
        ]
    if paths is None:
        raise DatasetError("draw='stable' needs the paths of the images; pass paths=.")
    order = sorted(rows_of, key=lambda label: (str(type(label)), label))  # type: ignore[return-value]
    return [
        row
        for label in order
        for row in rank_images(rows_of[label], paths, seed=check_seed(random_state), name=name)[:n_shots]
    ]


def rank_images(rows: Sequence[int], paths: Sequence[str], *, seed: int, name: str) -> list[int]:
    """Return rows in the order of the hashes of their paths.

    Parameters
    ----------
    rows : sequence of int
        Positions of images.
    paths : sequence of str
        Relative paths of all images. Unicode is normalized, as file systems write it in different ways.
    seed : int
        The seed.
    name : str
        Name of the data set.

    Returns
    -------
    rows : list of int
    """

    def score(row: int) -> bytes:
        path = unicodedata.normalize("NFC", paths[row])
        return hashlib.sha256(
            "\0".join([_VERSION, str(seed), name, path]).encode("utf-8", "surrogateescape")
        ).digest()

    return sorted(rows, key=score)


def base_new_classes(classes: Sequence[_Class]) -> tuple[list[_Class], list[_Class]]:
    """Split classes into base and new classes.

    Parameters
    ----------
    classes : sequence, length n_classes
        The classes, in the order of the labels of the data set. Sorting them by name would exchange some.

    Returns
    -------
    base : list
        The first half, with the additional class if their number is odd.
    new : list
        The others.

    Raises
    ------
    DatasetError
        If there are fewer than two classes.

    Examples
    --------
    >>> from clipcal.datasets import base_new_classes
    >>> base_new_classes(["face", "leopard", "motorbike"])
    (['face', 'leopard'], ['motorbike'])
    """
    if len(classes) < 2:
        raise DatasetError(f"Base and new classes need at least two classes, got {list(classes)!r}.")
    n_base = (len(classes) + 1) // 2
    return list(classes[:n_base]), list(classes[n_base:])


def check_seed(random_state: Any) -> int:
    """Return the seed of a draw.

    Raises
    ------
    DatasetError
        If it is not an integer.
    """
    if not isinstance(random_state, Integral) or isinstance(random_state, bool):
        raise DatasetError(
            f"random_state must be an integer, so that the same images are drawn again; got {random_state!r}."
        )
    return int(random_state)
