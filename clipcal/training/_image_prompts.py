"""Image features with learned prompts in the image tower."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clipcal.backbones import Backbone, product_size
from clipcal.exceptions import BackboneError
from clipcal.training._data import Batch

__all__ = ["ImagePromptEncoder"]


class ImagePromptEncoder:
    """Encode images with prompts in the image tower, differentiably with respect to the prompts.

    Parameters
    ----------
    backbone : Backbone
        The CLIP whose image tower encodes the images.
    activation_checkpointing : bool, default=False
        Whether the backward pass computes the inside of each block again. It then keeps only the inputs of
        the blocks, and takes about as long as a further forward pass more.

    Raises
    ------
    BackboneError
        If the image tower does not support prompts.

    Examples
    --------
    >>> import torch
    >>> from clipcal.backbones import open_backbone
    >>> from clipcal.training import Batch, ImagePromptEncoder
    >>> backbone = open_backbone("mini", device="cpu")
    >>> encoder = ImagePromptEncoder(backbone)
    >>> prompts = {0: torch.zeros(2, encoder.width), 1: torch.zeros(2, encoder.width)}
    >>> ones = torch.ones(5)
    >>> batch = Batch(torch.ones(5, 128), ones, ones.long(), ones, pixels=torch.zeros(5, 3, 32, 32))
    >>> encoder(batch, prompts).shape
    torch.Size([5, 128])
    """

    def __init__(self, backbone: Backbone, *, activation_checkpointing: bool = False) -> None:
        self.backbone: Any = backbone
        self.activation_checkpointing = activation_checkpointing
        self.tower: Any = getattr(backbone, "image_tower", None)
        if self.tower is None:
            name = backbone.name or type(backbone).__name__
            raise BackboneError(
                f"Prompts in the image tower need a backbone whose image tower is a transformer, which "
                f"backbone {name!r} does not offer; use another backbone, such as 'ViT-B-16/openai', or a "
                "method that prompts only the text."
            )

    @property
    def width(self) -> int:
        """Width of the prompts."""
        return self.tower.width

    @property
    def n_blocks(self) -> int:
        """Number of blocks of the image tower."""
        return self.tower.n_blocks

    def __call__(self, batch: Batch, prompts: Mapping[int, Tensor]) -> Tensor:
        """Encode the images of a batch.

        Parameters
        ----------
        batch : Batch
            Images, with pixels or patches.
        prompts : mapping of int to Tensor
            Prompts by block number, of shape (n_prompts, width). Those of block 0 are appended to the
            patches, those of block k replace them at its input. Block 0 must be present.

        Returns
        -------
        features : Tensor, shape (n, embedding_dim)
            Unnormalized features in float32.
        """
        images = batch.pixels if batch.patches is None else batch.patches
        options = {"activation_checkpointing": True} if self.activation_checkpointing else {}
        return self.backbone.encode_pixels(images, prompts, **options)

    def work(self, n_images: int, n_prompts: int) -> float:
        """Return the multiply-adds of the largest matrix product, used to set the number of threads."""
        n_tokens = getattr(self.tower, "n_tokens", math.inf)
        return n_images * (n_tokens + n_prompts) * product_size(1, self.width)
