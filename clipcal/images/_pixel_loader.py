"""Pixels of chosen images, read again each time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from PIL import Image

from clipcal.images._inputs import as_images
from clipcal.images._reading import read_image

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone

__all__ = ["PixelLoader"]

# Decoding releases the interpreter lock; more threads do not pay.
_MAX_THREADS = 8


class PixelLoader:
    """Reads images and applies a transform of the backbone to them, several at once.

    Parameters
    ----------
    images : images
        See :func:`encode_images`.
    backbone : Backbone
        Its transforms are applied.
    augment : bool
        Whether to draw random crops; otherwise images get the evaluation transform.
    """

    def __init__(self, images: Any, backbone: Backbone, *, augment: bool) -> None:
        self.images = as_images(images)
        self.backbone = backbone
        self.augment = augment

    def load(self, rows: list[int], seeds: list[int]) -> torch.Tensor:
        """Return pixels (n, 3, height, width) on the CPU.

        Parameters
        ----------
        rows : list of int, length n
            Positions of the images.
        seeds : list of int, length n
            What the random crops are drawn from; ignored without augmentation.

        Raises
        ------
        ImageReadError
            If an image cannot be read; the message names it and its position.
        """
        import torch

        from clipcal.backbones import single_threaded

        # Opened PIL images may share a file, so they are read one after the other.
        shared = isinstance(self.images[0], Image.Image)
        n_threads = 1 if shared else min(_MAX_THREADS, len(rows), os.cpu_count() or 1)
        with ThreadPoolExecutor(n_threads, initializer=single_threaded) as pool:
            return torch.stack(list(pool.map(self._view, rows, seeds)))

    def _view(self, row: int, seed: int) -> torch.Tensor:
        import torch

        image = read_image(self.images, row)
        if not self.augment:
            return self.backbone.preprocess(image)
        return self.backbone.augment(image, torch.Generator().manual_seed(seed))
