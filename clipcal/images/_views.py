"""Transform a decoded image to the input of the image encoder."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from PIL import Image

from clipcal.images._reading import pixel_digest

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone

__all__ = ["crops", "views"]


def views(image: Image.Image, backbone: Backbone, n_views: int, seed: int) -> torch.Tensor:
    """Transform an image to pixels (n_views, 3, height, width).

    With one view, apply the evaluation transform of the backbone. With several, draw random crops.
    """
    if n_views == 1:
        return backbone.preprocess(image)[None]
    return crops(image, backbone, range(n_views), seed)


def crops(image: Image.Image, backbone: Backbone, numbers: range | list[int], seed: int) -> torch.Tensor:
    """Return the random crops of an image with the given numbers, (n_crops, 3, height, width).

    A crop depends only on its number, the seed and the pixels, not on other crops or the position of the
    image, so that it can be drawn again.
    """
    import torch

    content = seed.to_bytes(8, "little") + pixel_digest(image)
    found = []
    for number in numbers:
        digest = hashlib.sha256(content + number.to_bytes(8, "little")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        found.append(backbone.augment(image, generator))
    return torch.stack(found)
