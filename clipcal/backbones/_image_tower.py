"""The ViT of a CLIP, walked block by block, so that prompts can enter between the blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clipcal.backbones._threads import image_product, threads_for
from clipcal.exceptions import BackboneError

__all__ = ["ImageTower"]

# What the walk uses of an open_clip VisionTransformer.
_PARTS = (
    "_embeds",
    "_pool",
    "image_size",
    "ln_pre",
    "output_tokens",
    "pool_type",
    "positional_embedding",
    "proj",
    "transformer",
)


class ImageTower:
    """The image half of a CLIP, a ViT that takes prompts as additional tokens.

    The parts of the model are called one after another. Nothing is registered on the model or changed in it,
    because a process shares one copy among all estimators.

    Parameters
    ----------
    visual : nn.Module
        An open_clip ``VisionTransformer`` in evaluation mode.

    Attributes
    ----------
    module : nn.Module
        The `visual` that was given.
    embedding_dim : int
        Width of the image embeddings.

    Raises
    ------
    BackboneError
        If `visual` is not such a transformer, is in training mode, gives more than one embedding per image,
        or computes something else than the walk.

    References
    ----------
    Jia et al., *Visual Prompt Tuning*, ECCV 2022, arXiv:2203.12119. Where prompts enter a CLIP is taken from
    Khattak et al., *MaPLe: Multi-modal Prompt Learning*, CVPR 2023, arXiv:2210.03117.

    Examples
    --------
    >>> import torch
    >>> from clipcal.backbones import open_backbone
    >>> tower = open_backbone("mini", device="cpu").image_tower
    >>> tower.width, tower.n_blocks, tower.n_tokens
    (128, 4, 17)
    >>> shallow, deep = torch.zeros(2, 128), torch.zeros(2, 128)
    >>> tower.encode(torch.zeros(5, 3, 32, 32), {0: shallow, 1: deep}).shape
    torch.Size([5, 128])
    """

    def __init__(self, visual: nn.Module) -> None:
        missing = [part for part in _PARTS if not hasattr(visual, part)]
        if missing:
            raise BackboneError(
                f"The image tower {type(visual).__name__} cannot take prompts: it has no "
                f"{', '.join(missing)}. clipcal can prompt open_clip's VisionTransformer, which is every "
                "open_clip architecture whose vision_cfg has a number as 'layers' and no 'timm_model_name'. "
                "Use such a backbone, for instance 'ViT-B-16/openai', or a method that prompts only the text."
            )
        if visual.training:
            raise BackboneError(
                f"The image tower {type(visual).__name__} is in training mode, where it may drop patches. "
                "Call .eval() on the model first."
            )
        # Any, because nn.Module does not declare the parts.
        self.module: Any = visual
        self.embedding_dim = self._try_out()

    @property
    def width(self) -> int:
        """Width of the tokens, and of the prompts."""
        return int(self.module.positional_embedding.shape[1])

    @property
    def n_blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self.module.transformer.resblocks)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of an image without prompts: the class token and the patches."""
        return int(self.module.positional_embedding.shape[0])

    def encode(self, pixels: Tensor, prompts: Mapping[int, Tensor] | None = None) -> Tensor:
        """Embed images, with or without prompts; differentiable in both.

        Without prompts this is the model's own ``encode_image``. The result is read as the model does it,
        from its own tokens alone: an average over patches does not include the prompts, and an attentional
        pooler does not see them.

        Parameters
        ----------
        pixels : Tensor, shape (n, 3, height, width)
            Images as the model's preprocessing gives them.
        prompts : mapping of int to Tensor, default=None
            Prompts by the number of the block that they enter, each of shape (n_prompts, width), or
            (n, n_prompts, width) for prompts that differ between the images. Those of block 0 are appended
            after the patches, once positions have been added: they get no position, but pass through the
            norm before the blocks (``ln_pre``), as in MaPLe, PromptSRC and the VPT for CLIP. Those of a later
            block replace these tokens at the input of that block, without position and norm. Where a block
            has none, the outputs of the previous block go on.

        Returns
        -------
        features : Tensor, shape (n, embedding_dim)
            Not normalised; in the precision of the model.

        Raises
        ------
        ValueError
            If `prompts` names a block that is not there, lacks block 0, or has a tensor of another shape.
        """
        prompts = {} if prompts is None else prompts
        self.check_prompts(prompts, len(pixels))
        visual = self.module
        x = visual._embeds(pixels)
        n_own = x.shape[1]
        if prompts:
            # ln_pre treats each token alone, so it can be applied before the tokens are joined.
            shallow = visual.ln_pre(prompts[0].to(visual.positional_embedding))
            x = torch.cat([x, _for_each_image(shallow, x)], dim=1)
        for number, block in enumerate(visual.transformer.resblocks):
            if number > 0 and number in prompts:
                x = torch.cat([x[:, :n_own], _for_each_image(prompts[number], x)], dim=1)
            x = block(x) if visual.transformer.batch_first else _tokens_first(block, x)
        pooled = visual._pool(x[:, :n_own])[0]
        return pooled if visual.proj is None else pooled @ visual.proj

    def check_prompts(self, prompts: Mapping[int, Tensor], n_images: int) -> None:
        """Raise ValueError, with what was expected, for prompts that :meth:`encode` cannot take."""
        if not prompts:
            return
        if 0 not in prompts or not prompts.keys() <= set(range(self.n_blocks)):
            raise ValueError(
                f"prompts is for the blocks {list(prompts)}; the image tower has the blocks 0 to "
                f"{self.n_blocks - 1}, and block 0 must be among those of prompts: its prompts are appended "
                "to the tokens, the others replace them."
            )
        first = tuple(prompts[0].shape)
        for number, prompt in prompts.items():
            shape = tuple(prompt.shape)
            fits = shape[-2:] == (*first[-2:-1], self.width) and shape[:-2] in ((), (n_images,))
            if prompt.ndim < 2 or not fits:
                raise ValueError(
                    f"prompts[{number}] has the shape {shape} and prompts[0] {first}; expected "
                    f"(n_prompts, {self.width}), or ({n_images}, n_prompts, {self.width}) for {n_images} "
                    "images with prompts of their own, with the same n_prompts in all blocks."
                )

    @torch.no_grad()
    def _try_out(self) -> int:
        """Compare with the model's own forward pass on made-up pixels, and return the embedding's width."""
        visual, positions = self.module, self.module.positional_embedding
        name = type(visual).__name__
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(1, 3, *visual.image_size, generator=generator).to(positions)
        # In the model's own precision, whatever arithmetic the caller has open.
        with threads_for(image_product(visual, 1)), torch.autocast(positions.device.type, enabled=False):
            expected = visual(pixels)
            expected = expected[0] if visual.output_tokens else expected
            actual = self.encode(pixels)
        if expected.ndim != 2:
            raise BackboneError(
                f"The image tower {name} gives an array of the shape {tuple(expected.shape[1:])} per image "
                f"(pool_type={visual.pool_type!r}), where clipcal expects one vector. "
                "Use a backbone whose vision_cfg has the pool_type 'tok' or 'avg'."
            )
        same = actual.shape == expected.shape
        if not (same and (actual - expected).norm() <= 1e-4 * expected.norm()):
            raise BackboneError(
                f"The image tower {name} looks like open_clip's VisionTransformer but computes something "
                "else, so it cannot take prompts. Use an architecture of open_clip without changes, or a "
                "method that prompts only the text."
            )
        return int(expected.shape[1])


def _for_each_image(prompt: Tensor, x: Tensor) -> Tensor:
    """Repeat a prompt for the images of x (n, n_tokens, width), in the precision of x."""
    # Repeated before it is rounded: so gradients of shared prompts are summed in the prompts' own precision.
    return prompt.expand(len(x), -1, -1).to(x)


def _tokens_first(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block that expects (n_tokens, n, width) on x (n, n_tokens, width)."""
    return block(x.transpose(0, 1).contiguous()).transpose(0, 1)
