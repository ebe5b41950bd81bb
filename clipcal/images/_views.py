"""Transform a decoded image to the input of the image encoder."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from PIL import Image

from clipcal.images._reading import pixel_digest

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone


def views(image: Image.Image, backbone: Backbone, n_views: int, seed: int) -> torch.Tensor:
    """Transform an image to pixels (n_views, 3, height, width).

    With one view, apply the evaluation transform of the backbone. With several, draw random crops that
    depend only on the seed and the pixels, not on the position of the image.
    """
    import torch

    if n_views == 1:
        return backbone.preprocess(image)[None]
    digest = hashlib.sha256(seed.to_bytes(8, "little") + pixel_digest(image)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.stack([backbone.augment(image, generator) for _ in range(n_views)])
