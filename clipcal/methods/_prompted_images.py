"""Image features with prompts in the image tower, for learners of several methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipcal.backbones import Backbone
from clipcal.exceptions import BackboneError
from clipcal.training import Batch, ImagePromptEncoder, Learner, Prompts

__all__ = ["PromptedImagesMixin", "depth_of", "draw_prompts", "image_encoder"]

# The published number of blocks with prompts of MaPLe and PromptSRC.
_DEPTH = 9


class PromptedImagesMixin(Learner):
    """Mixin for learners whose image features depend on prompts in the image tower.

    A subclass has the attribute ``image_encoder``, and either learns ``visual_prompts`` of shape
    (n_blocks, n_prompts, width) or computes its prompts in :meth:`image_prompts`.
    """

    image_encoder: ImagePromptEncoder
    visual_prompts: Tensor

    def image_prompts(self) -> dict[int, Tensor]:
        """Return the prompts of the image tower by block, of shape (n_prompts, width)."""
        return dict(enumerate(self.visual_prompts))

    def raw_images(self, batch: Batch) -> Tensor:
        """Encode images with the current prompts, without normalization of the features."""
        return self.image_encoder(batch, self.image_prompts())

    def encode_images(self, batch: Batch) -> Tensor:
        """Encode images with the current prompts and normalize the features to unit length."""
        return nn.functional.normalize(self.raw_images(batch), dim=-1)

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in a step."""
        n_prompts = len(self.image_prompts()[0])
        return max(super().work(prompts, batch_size), self.image_encoder.work(batch_size, n_prompts))


def image_encoder(backbone: Backbone, method: str, *, activation_checkpointing: bool) -> ImagePromptEncoder:
    """Return the encoder of images with prompts; raises BackboneError, with the method, if there is none."""
    try:
        return ImagePromptEncoder(backbone, activation_checkpointing=activation_checkpointing)
    except BackboneError as error:
        raise BackboneError(f"method={method!r} prompts the image tower. {error}") from error


def depth_of(
    given: int | None, n_blocks: int, *, parameter: str, tower: str, default: int | None = None
) -> int:
    """Return the number of blocks with prompts of their own.

    Parameters
    ----------
    given : int or None
        Value of the parameter.
    n_blocks : int
        Number of blocks of the tower, or the smaller one of two towers.
    parameter, tower : str
        Name of the parameter and of the tower, for the error message.
    default : int or None, default=None
        Value for None. If it is None itself, it is 9, as in the published code of several methods, or three
        quarters of the blocks of a tower with fewer than 12 blocks.

    Raises
    ------
    ValueError
        If there are fewer blocks.
    """
    if given is None:
        return default or max(1, min(_DEPTH, 3 * n_blocks // 4))
    if given > n_blocks:
        raise ValueError(
            f"{parameter}={given}, but the {tower} has only {n_blocks} blocks; use a smaller number, or None."
        )
    return given


def draw_prompts(*shape: int, backbone: Backbone, generator: torch.Generator) -> Tensor:
    """Draw prompts from a normal distribution with standard deviation 0.02."""
    # Drawn on the CPU, so that a seed gives the same prompts on every device.
    return (0.02 * torch.randn(shape, generator=generator)).to(backbone.device)
