"""Load the pixels of selected images, without a cache."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from clipcal.images._inputs import as_images
from clipcal.images._items import is_opened
from clipcal.images._reading import check_header, read_image
from clipcal.images._views import crops

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone

__all__ = ["PixelLoader"]

# Decoding releases the GIL; more threads bring no gain.
_MAX_THREADS = 8


class PixelLoader:
    """Read images and apply a transform of the backbone, in several threads.

    Parameters
    ----------
    images : images
        See :func:`encode_images`.
    backbone : Backbone
        Backbone with the transforms.
    seed : int or None
        Seed of random crops. If None, the evaluation transform is applied.
    """

    def __init__(self, images: Any, backbone: Backbone, *, seed: int | None) -> None:
        self.images = as_images(images)
        self.backbone = backbone
        self.seed = seed

    def check_headers(self) -> None:
        """Raise ImageReadError if a file is missing or is not an image, without decoding it."""
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            for _ in pool.map(partial(check_header, self.images), range(len(self.images))):
                pass

    def load(self, rows: list[int], numbers: list[int]) -> torch.Tensor:
        """Return pixels (n, 3, height, width) on the CPU.

        Parameters
        ----------
        rows : list of int, length n
            Indices of the images.
        numbers : list of int, length n
            Number of the random crop of each image; ignored without a seed.

        Raises
        ------
        ImageReadError
            If an image cannot be read; the message gives its position and its path or type.
        """
        import torch

        from clipcal.backbones import single_threaded

        # Opened PIL images may share one file object, so they are read by a single thread.
        shared = is_opened(self.images)
        n_threads = 1 if shared else min(_MAX_THREADS, len(rows), os.cpu_count() or 1)
        with ThreadPoolExecutor(n_threads, initializer=single_threaded) as pool:
            return torch.stack(list(pool.map(self._view, rows, numbers)))

    def _view(self, row: int, number: int) -> torch.Tensor:
        image = read_image(self.images, row)
        if self.seed is None:
            return self.backbone.preprocess(image)
        return crops(image, self.backbone, [number], self.seed)[0]
