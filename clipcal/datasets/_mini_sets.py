"""Generated data sets for the embedded CLIP, with the same subsets as published ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcal.datasets._catalog import MINI_PREFIX
from clipcal.datasets._shapes import TASKS, make_shapes

__all__ = ["mini_classes", "mini_subset"]

# Images per class, of which few are drawn for training and validation.
_N_PER_CLASS = {"train": 64, "validation": 16, "test": 50}
_SEED = 0


def mini_classes(name: str) -> list[str]:
    """Return the classes of a generated data set, in the order of the task."""
    return list(TASKS[_parts(name)[0]])


@lru_cache(maxsize=48)
def mini_subset(name: str, subset: str) -> tuple[NDArray[np.uint8], NDArray[Any], list[str]]:
    """Return images (n_images, height, width, 3), classes and paths of a subset of a generated data set."""
    task, domain = _parts(name)
    images, target = make_shapes(
        task,
        domain=domain,
        subset=subset,
        n_per_class=_N_PER_CLASS[subset],
        random_state=_SEED,
        return_X_y=True,
    )
    return images, target, [f"{subset}/{row:05d}" for row in range(len(images))]


def _parts(name: str) -> tuple[str, str]:
    task, _, domain = name.removeprefix(MINI_PREFIX).rpartition("-")
    return task, domain
