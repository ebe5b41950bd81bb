"""Text features of prompts with learned context vectors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clipcal.backbones import Backbone, n_text_blocks, product_size, shares_prefix, text_bytes_per_token
from clipcal.exceptions import BackboneError
from clipcal.training._chunks import chunks_of, encode_in_chunks, memory_budget
from clipcal.training._prompts import Prompts

__all__ = ["PromptEncoder"]


class PromptEncoder:
    """Encode prompts that contain learned vectors, differentiably with respect to these vectors.

    The context has one of these shapes:

    - (n_context, token_dim): the same context for all prompts;
    - (n_prompts, n_context, token_dim): one context per prompt;
    - (n_images, 1, n_context, token_dim): one context per image, the same for all prompts. The text features
      then differ between images.

    Positions that are the same in all prompts are computed once if the backbone supports it, and prompts
    are encoded in chunks if the memory does not suffice for all of them.

    Parameters
    ----------
    backbone : Backbone
        The CLIP whose text tower encodes the prompts.
    chunk_size : int or "auto", default="auto"
        Number of prompts encoded at once. ``"auto"`` limits the memory kept for the backward pass to half a
        GiB or, if larger on CUDA, to a quarter of the free memory.

    Examples
    --------
    >>> import torch
    >>> from clipcal.backbones import open_backbone
    >>> from clipcal.training import PromptEncoder, tokenize_prompts
    >>> backbone = open_backbone("mini", device="cpu")
    >>> prompts = tokenize_prompts(backbone, ["X X circle.", "X X star."], n_context=2)
    >>> context = torch.zeros(2, backbone.token_dim, requires_grad=True)
    >>> PromptEncoder(backbone)(prompts, context).shape == (2, backbone.embedding_dim)
    True
    >>> per_image = torch.zeros(5, 1, 2, backbone.token_dim)
    >>> PromptEncoder(backbone)(prompts, per_image).shape == (5, 2, backbone.embedding_dim)
    True
    """

    def __init__(self, backbone: Backbone, chunk_size: int | str = "auto") -> None:
        self.backbone = backbone
        self.chunk_size = chunk_size
        self.shares_prefix = shares_prefix(backbone)
        # Read once, because memory allocated in the first step must not reduce the chunks of later steps.
        self.memory_budget = memory_budget(backbone.device)

    @property
    def n_blocks(self) -> int:
        """Number of blocks of the text tower; BackboneError if the backbone does not support deep prompts."""
        n_blocks = n_text_blocks(self.backbone)
        if n_blocks is None or not self.shares_prefix:
            name = self.backbone.name or type(self.backbone).__name__
            raise BackboneError(
                "Deep prompts need a text tower that shares prefixes and has a known number of blocks, which "
                f"backbone {name!r} does not offer; use a method without deep prompts, or another backbone."
            )
        return n_blocks

    def __call__(self, prompts: Prompts, context: Tensor, deep: Mapping[int, Tensor] | None = None) -> Tensor:
        """Encode prompts.

        Parameters
        ----------
        prompts : Prompts
            Prompts with placeholders for the context.
        context : Tensor
            Context vectors; see the class for the shapes.
        deep : mapping of int to Tensor, default=None
            ``deep[k]`` replaces the first n of the shared positions after the start marker at the input of
            block k. It has one of the shapes of the context, with n instead of n_context. Prompts that have
            their own deep prompts, shape (n_prompts, n, token_dim), share these positions before block k
            only.

        Returns
        -------
        features : Tensor, shape (n_prompts, embedding_dim) or (n_images, n_prompts, embedding_dim)
            Unnormalized features in float32.

        Raises
        ------
        BackboneError
            If `deep` is given, but the backbone does not support deep prompts.
        ValueError
            If a block does not exist, or a deep prompt has a wrong shape.
        """
        deep = deep or {}
        self._check_deep(prompts, context, deep)
        n_images = len(context) if context.ndim == 4 else 1
        lengths = n_images * self._computed(prompts, context, deep)
        cost = text_bytes_per_token(self.backbone)
        chunks = chunks_of(lengths, self.chunk_size, cost=cost, budget=self.memory_budget)

        def encode(rows: slice, *learned: Tensor) -> Tensor:
            part = prompts if len(chunks) == 1 else prompts.take(rows)
            context, *deeper = (values[rows] if values.ndim == 3 else values for values in learned)
            if not self.shares_prefix:
                return self._padded(part, context)
            return self._packed(part, context, dict(zip(deep, deeper, strict=True)))

        return encode_in_chunks(encode, chunks, [context, *deep.values()])

    def work(self, prompts: Prompts, context: Tensor, deep: Mapping[int, Tensor] | None = None) -> float:
        """Return the multiply-adds of the largest matrix product, used to set the number of threads."""
        n_images = len(context) if context.ndim == 4 else 1
        n_rows = self._n_shared(prompts, context) + int(self._computed(prompts, context, deep or {}).sum())
        return product_size(n_images * n_rows, self.backbone.token_dim)

    def _n_shared(self, prompts: Prompts, context: Tensor) -> int:
        """Return the number of leading positions that are the same in all prompts."""
        return self.backbone.n_start_tokens if context.ndim == 3 else prompts.n_shared

    def _check_deep(self, prompts: Prompts, context: Tensor, deep: Mapping[int, Tensor]) -> None:
        """Raise a ValueError for deep prompts that the text tower cannot take."""
        width = self.backbone.token_dim
        room = self._n_shared(prompts, context) - self.backbone.n_start_tokens
        leading = {(), (len(prompts),)} | ({(len(context), 1)} if context.ndim == 4 else set())
        for number, prompt in deep.items():
            if number not in range(self.n_blocks):
                last = self.n_blocks - 1
                raise ValueError(
                    f"deep has prompts for block {number}; the text tower has the blocks 0 to {last}."
                )
            shape = tuple(prompt.shape)
            fits = prompt.ndim > 1 and shape[:-2] in leading and shape[-2] <= room and shape[-1] == width
            if not fits:
                raise ValueError(
                    f"deep[{number}] has the shape {shape}; expected (n, {width}), or "
                    f"({len(prompts)}, n, {width}) if it differs between prompts, where n is at most "
                    f"{room}, the number of shared positions after the start marker."
                )

    def _computed(self, prompts: Prompts, context: Tensor, deep: Mapping[int, Tensor]) -> Tensor:
        """Return the number of tokens computed for each prompt and image, at most."""
        if self.shares_prefix:
            n_shared = self._n_shared(prompts, context)
            if any(prompt.ndim == 3 for prompt in deep.values()):
                n_shared = self.backbone.n_start_tokens
            return prompts.lengths - n_shared
        return torch.full((len(prompts),), prompts.tokens.shape[1])

    def _packed(self, prompts: Prompts, context: Tensor, deep: Mapping[int, Tensor]) -> Tensor:
        """Encode the shared positions once, and the rest of each prompt without padding."""
        packing = prompts.packing(self._n_shared(prompts, context))
        n_start = self.backbone.n_start_tokens
        n_end = n_start + context.shape[-2]
        if prompts.order is None and packing.n_prefix >= n_end:
            # The whole context is part of the prefix, so the suffixes need no graph.
            fixed = self.backbone.embed_tokens(prompts.tokens[:1, : packing.n_prefix])[0]
            if context.ndim == 4:
                context, fixed = context[:, 0], fixed.expand(len(context), -1, -1)
            prefix = torch.cat([fixed[..., :n_start, :], context, fixed[..., n_end:, :]], dim=-2)
            rest = prompts.tokens[packing.names, packing.positions]
            suffixes = self.backbone.embed_tokens(rest[None])[0]
        else:
            embeddings = self._embeddings(prompts, context)
            prefix = embeddings[..., 0, : packing.n_prefix, :]
            suffixes = embeddings[..., packing.names, packing.positions, :]
        # The backbone expects one deep prompt per prefix, or one per prefix and name.
        deep = {k: v[None] if v.ndim == 3 else v[:, 0] if v.ndim == 4 else v for k, v in deep.items()}
        return self.backbone.encode_suffixes(prefix, suffixes, packing, deep or None)  # type: ignore[attr-defined]

    def _padded(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Encode each prompt separately, padded to the length of the longest."""
        embeddings = self._embeddings(prompts, context)
        n_images = embeddings.shape[:-3].numel()
        features = self.backbone.encode_text(embeddings.flatten(0, -3), prompts.tokens.repeat(n_images, 1))
        return features.unflatten(0, embeddings.shape[:-2])

    def _embeddings(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Return the token embeddings of prompts with the context: (..., n_prompts, length, token_dim)."""
        start = self.backbone.n_start_tokens
        end = start + context.shape[-2]
        embeddings = self.backbone.embed_tokens(prompts.tokens)
        embeddings = embeddings.expand(*context.shape[:-3], *(-1,) * 3) if context.ndim == 4 else embeddings
        context = context.expand(*embeddings.shape[:-2], -1, -1)
        embeddings = torch.cat([embeddings[..., :start, :], context, embeddings[..., end:, :]], dim=-2)
        if prompts.order is not None:
            order = prompts.order[..., None].expand_as(embeddings)
            embeddings = embeddings.gather(-2, order)
        return embeddings
