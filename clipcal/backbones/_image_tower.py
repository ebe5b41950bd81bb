"""The image tower of a CLIP model (ViT), run block by block to insert prompts between the blocks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipcal.backbones._prefix import is_plain_block
from clipcal.backbones._threads import image_product, threads_for
from clipcal.exceptions import BackboneError

__all__ = ["ImageTower"]

# Attributes of open_clip's VisionTransformer that are used below.
_PARTS = (
    "_embeds",
    "_pool",
    "attn_pool",
    "image_size",
    "ln_pre",
    "output_tokens",
    "pool_type",
    "positional_embedding",
    "proj",
    "transformer",
)


class ImageTower:
    """Image tower of a CLIP model, a ViT that takes prompts as additional tokens.

    The modules are called one after another. The model is not modified, as all estimators of a process share
    one copy.

    Parameters
    ----------
    visual : nn.Module
        An open_clip ``VisionTransformer`` in evaluation mode.

    Attributes
    ----------
    module : nn.Module
        The given `visual`.
    embedding_dim : int
        Width of the image embeddings.
    ends_with_class_token : bool
        Whether only the class token is read, so that the last block is computed for it alone.

    Raises
    ------
    BackboneError
        If `visual` is not such a transformer, is in training mode, returns more than one embedding per image,
        or has a different forward pass.

    References
    ----------
    Jia et al., *Visual Prompt Tuning*, ECCV 2022, arXiv:2203.12119. The positions of the prompts follow
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
                f"{', '.join(missing)}. clipcal supports open_clip's VisionTransformer, that is every "
                "open_clip architecture whose vision_cfg has a number as 'layers' and no 'timm_model_name'. "
                "Use such a backbone, such as 'ViT-B-16/openai', or a method that prompts only the text."
            )
        if visual.training:
            raise BackboneError(
                f"The image tower {type(visual).__name__} is in training mode, where it may drop patches. "
                "Call .eval() on the model first."
            )
        # Any, as nn.Module does not declare the submodules.
        self.module: Any = visual
        # Whether the last block is computed for the class token only, the only one that is read.
        self.ends_with_class_token = (
            self.module.pool_type == "tok"
            and self.module.attn_pool is None
            and self.module.transformer.batch_first
            and is_plain_block(self.module.transformer.resblocks[-1])
        )
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

    def embed(self, pixels: Tensor) -> Tensor:
        """Return the input of the first block without prompts: embedded patches with their positions.

        Prompts do not change it, so it can be computed once for an image. All blocks depend on the prompts.

        Parameters
        ----------
        pixels : Tensor, shape (n, 3, height, width)
            Preprocessed images.

        Returns
        -------
        patches : Tensor, shape (n, n_tokens, width)
            In the precision of the model.
        """
        return self.module._embeds(pixels)

    def encode(
        self,
        images: Tensor,
        prompts: Mapping[int, Tensor] | None = None,
        *,
        activation_checkpointing: bool = False,
    ) -> Tensor:
        """Embed images, with or without prompts; differentiable in both.

        Without prompts the result equals ``encode_image`` of the model. Pooling is that of the model, on the
        image tokens only: an average over patches does not include the prompts, and an attentional pooler
        does not attend to them.

        Parameters
        ----------
        images : Tensor, shape (n, 3, height, width) or (n, n_tokens, width)
            Preprocessed images, or the results of :meth:`embed`.
        prompts : mapping of int to Tensor, default=None
            Prompts by block number, each of shape (n_prompts, width), or (n, n_prompts, width) for prompts
            that differ between the images. Those of block 0 are appended after the patches without positional
            embeddings, and pass through the norm before the blocks (``ln_pre``), as in MaPLe, PromptSRC and
            the VPT for CLIP. Those of a later block replace these tokens at the input of that block, without
            positional embeddings and norm. If a block has no prompts, the outputs of the previous block are
            kept.
        activation_checkpointing : bool, default=False
            Whether the backward pass computes the inside of each block again, so that only the inputs of the
            blocks are kept for it.

        Returns
        -------
        features : Tensor, shape (n, embedding_dim)
            Features, not normalized, in the precision of the model.

        Raises
        ------
        ValueError
            If `prompts` has an unknown block, no block 0, or a tensor of another shape.
        """
        prompts = {} if prompts is None else prompts
        self.check_prompts(prompts, len(images))
        visual = self.module
        x = images if images.ndim == 3 else self.embed(images)
        n_own = x.shape[1]
        if prompts:
            # ln_pre acts on each token separately, so it can be applied before the concatenation.
            shallow = visual.ln_pre(prompts[0].to(visual.positional_embedding))
            x = torch.cat([x, _for_each_image(shallow, x)], dim=1)
        for number, block in enumerate(visual.transformer.resblocks):
            if number > 0 and number in prompts:
                x = torch.cat([x[:, :n_own], _for_each_image(prompts[number], x)], dim=1)
            run = block if visual.transformer.batch_first else partial(_tokens_first, block)
            if number == self.n_blocks - 1 and self.ends_with_class_token:
                run = partial(_class_token_of, block)
            if activation_checkpointing:
                # Blocks draw no random numbers in evaluation mode.
                x = checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = run(x)
        pooled = visual._pool(x[:, :n_own])[0]
        return pooled if visual.proj is None else pooled @ visual.proj

    def check_prompts(self, prompts: Mapping[int, Tensor], n_images: int) -> None:
        """Raise ValueError for prompts that :meth:`encode` does not support."""
        if not prompts:
            return
        if 0 not in prompts or not prompts.keys() <= set(range(self.n_blocks)):
            raise ValueError(
                f"prompts has the blocks {list(prompts)}; the image tower has the blocks 0 to "
                f"{self.n_blocks - 1}, and prompts must include block 0: its prompts are appended to the "
                "tokens, the others replace them."
            )
        first = tuple(prompts[0].shape)
        for number, prompt in prompts.items():
            shape = tuple(prompt.shape)
            fits = shape[-2:] == (*first[-2:-1], self.width) and shape[:-2] in ((), (n_images,))
            if prompt.ndim < 2 or not fits:
                raise ValueError(
                    f"prompts[{number}] has the shape {shape} and prompts[0] {first}; expected "
                    f"(n_prompts, {self.width}), or ({n_images}, n_prompts, {self.width}) for separate "
                    f"prompts for {n_images} images, with the same n_prompts in all blocks."
                )

    @torch.no_grad()
    def _try_out(self) -> int:
        """Compare with the forward pass of the model on random pixels; return the embedding dimension."""
        visual, positions = self.module, self.module.positional_embedding
        name = type(visual).__name__
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(1, 3, *visual.image_size, generator=generator).to(positions)
        # In the precision of the model, even if the caller has enabled autocast.
        with threads_for(image_product(visual, 1)), torch.autocast(positions.device.type, enabled=False):
            expected = visual(pixels)
            expected = expected[0] if visual.output_tokens else expected
            actual = self.encode(pixels)
        if expected.ndim != 2:
            raise BackboneError(
                f"The image tower {name} returns an array of the shape {tuple(expected.shape[1:])} per image "
                f"(pool_type={visual.pool_type!r}), but clipcal expects one vector. "
                "Use a backbone whose vision_cfg has the pool_type 'tok' or 'avg'."
            )
        same = actual.shape == expected.shape
        if not (same and (actual - expected).norm() <= 1e-4 * expected.norm()):
            if self.ends_with_class_token:
                # The last block may differ from what its structure suggests.
                self.ends_with_class_token = False
                return self._try_out()
            raise BackboneError(
                f"The image tower {name} has the structure of open_clip's VisionTransformer but different "
                "outputs, so it cannot take prompts. Use an unmodified architecture of open_clip, or a "
                "method that prompts only the text."
            )
        return int(expected.shape[1])


def _for_each_image(prompt: Tensor, x: Tensor) -> Tensor:
    """Expand a prompt to the images of x (n, n_tokens, width), in the precision of x."""
    # Expand before the cast, so that gradients of shared prompts are summed in the precision of the prompts.
    return prompt.expand(len(x), -1, -1).to(x)


def _class_token_of(block: Any, x: Tensor) -> Tensor:
    """Run a standard block on x (n, n_tokens, width), but return the class token only: (n, 1, width)."""
    normed = block.ln_1(x)
    x = x[:, :1] + block.ls_1(block.attn(normed[:, :1], normed, normed, need_weights=False)[0])
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _tokens_first(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block that expects (n_tokens, n, width) on x (n, n_tokens, width)."""
    return block(x.transpose(0, 1).contiguous()).transpose(0, 1)
