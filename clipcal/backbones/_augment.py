"""Random crops drawn from an explicit random number generator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

_SCALE = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10


def random_crop_box(width: int, height: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Sample the box of a random resized crop.

    Parameters
    ----------
    width, height : int
        Size of the image.
    generator : torch.Generator
        Random number generator.

    Returns
    -------
    tuple of int
        top, left, height, width of the box.

    Notes
    -----
    Same distribution as torchvision's ``RandomResizedCrop``, which draws from the global generator of torch
    and so is reproducible only by seeding that.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()

    def below(n: int) -> int:
        return int(torch.randint(0, n, (), generator=generator))

    for _ in range(_ATTEMPTS):
        area = width * height * uniform(*_SCALE)
        ratio = math.exp(uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        box_width = round(math.sqrt(area * ratio))
        box_height = round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return below(height - box_height + 1), below(width - box_width + 1), box_height, box_width
    ratio = width / height
    box_width, box_height = width, height
    if ratio < _RATIO[0]:
        box_height = max(1, round(width / _RATIO[0]))
    elif ratio > _RATIO[1]:
        box_width = max(1, round(height * _RATIO[1]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def random_view(
    image: Image,
    generator: torch.Generator,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> torch.Tensor:
    """Crop, resize, flip horizontally with probability 0.5, and normalize an image.

    Parameters
    ----------
    image : PIL.Image.Image
        The image.
    generator : torch.Generator
        Random number generator.
    size : tuple of int
        Height and width of the result.
    mean, std : sequence of float
        Mean and standard deviation per channel.

    Returns
    -------
    Tensor of shape (3, height, width)
        The normalized view.
    """
    image = image.convert("RGB")
    top, left, height, width = random_crop_box(*image.size, generator)
    view = F.resized_crop(image, top, left, height, width, list(size), InterpolationMode.BICUBIC)
    if torch.rand((), generator=generator).item() < 0.5:
        view = F.hflip(view)
    return F.normalize(F.to_tensor(view), list(mean), list(std))
