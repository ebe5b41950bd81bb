"""The interface of frozen CLIP models."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class Backbone(Protocol):
    """Interface of a frozen CLIP model, which embeds images and prompts.

    Any object with these members can be passed as ``backbone=``; inheritance is not required. All parameters
    must be frozen and the towers in evaluation mode. Outputs are float32 and *not* normalized.

    A backbone that supports any width may define ``for_width(n_features) -> Backbone``, which
    :func:`open_backbone` calls with the width of the data.

    A backbone whose text tower is causal and read at the end marker only may set ``shares_prefix`` to True
    and define ::

        encode_suffixes(prefix, suffixes, packing, deep=None) -> features

    which embeds many names behind one prefix and computes the prefix once. `prefix` holds the token
    embeddings before the names, shape (n_prefix, token_dim), or (n_prompts, n_prefix, token_dim) for several
    prefixes, each of which is combined with all names; `suffixes` those of the names, packed according to
    :class:`Packing`, shape (n_tokens, token_dim), or (n_prompts, n_tokens, token_dim) if they differ between
    prefixes. ``deep[k]`` replaces the first n positions after the start markers at the input of block k. It
    has the shape (n, token_dim), or (n_prompts, n, token_dim); or (n_prompts, n_names, n, token_dim), where
    n_prompts may be 1, if it differs between names, which then share only the start markers from block k on.
    Features are (n_names, embedding_dim) or (n_prompts, n_names, embedding_dim). ``n_text_blocks``, the
    number of blocks, is needed by methods with deep prompts. The optional ``text_bytes_per_token`` is the
    memory per token for the backward pass, which determines how many prompts are encoded at once.

    A backbone whose image tower is a transformer may define ``image_tower``, an object whose ``width`` and
    ``n_blocks`` are the width of its tokens and its number of blocks, and ::

        encode_pixels(images, prompts=None, *, activation_checkpointing=False) -> features
        embed_pixels(pixels) -> patches

    The first embeds pixels (n, 3, height, width) as (n, embedding_dim) with prompts as additional tokens, and
    is differentiable in both. It also takes the results of the second, which computes the part that does not
    depend on prompts, without gradients, as a tensor with n rows. With ``activation_checkpointing=True`` it
    needs less memory and more time for the backward pass. ``prompts[0]``, shape (n_prompts, width) or
    (n, n_prompts, width) for prompts that differ between the images, is appended after the patches, without
    positional embeddings and before the norm that precedes the blocks; ``prompts[k]`` of the same shape
    replaces these tokens at the input of block k. Without prompts the features equal :meth:`encode_images`.
    Only methods that prompt the image tower need these three. If the tower does not support prompts, they
    raise BackboneError or do not exist.

    Attributes
    ----------
    name : str
        Name that opens the same backbone; empty if there is none.
    embedding_dim : int
        Width of image and text embeddings.
    token_dim : int
        Width of the token embeddings of the text tower.
    context_length : int
        Maximum number of tokens of a prompt, including start and end markers.
    n_start_tokens : int
        Number of markers before the first word: 1 for CLIP, 0 for SigLIP.
    logit_scale : float
        Factor of the cosine similarities, after the exponential.
    device : torch.device
        Device of the towers.
    fingerprint : str
        SHA-256 of weights, structure and preprocessing, in hexadecimal digits.
    """

    name: str
    embedding_dim: int
    token_dim: int
    context_length: int
    n_start_tokens: int
    logit_scale: float
    device: torch.device

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, structure and preprocessing."""
        ...

    def preprocess(self, image: Image) -> torch.Tensor:
        """Apply the evaluation transform to an image; return a tensor (3, height, width)."""
        ...

    def augment(self, image: Image, generator: torch.Generator) -> torch.Tensor:
        """Return a random crop of an image, randomly flipped, of the same shape as `preprocess`.

        `generator`, a generator on the CPU, is the only source of randomness.
        """
        ...

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels (n, 3, height, width) as (n, embedding_dim), without gradients."""
        ...

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokenize texts to token ids (n, length) on the device.

        `length` is that of the longest text if positions after the end marker have no effect, and
        `context_length` otherwise. Texts that are too long raise ClassNameError; none is truncated.
        """
        ...

    def text_lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the number of tokens of each text (n,), including start and end markers."""
        ...

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look up token embeddings (n, length, token_dim), without positional embeddings."""
        ...

    def encode_text(self, token_embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Embed prompts given as token embeddings (n, length, token_dim) as (n, embedding_dim).

        Differentiable in `token_embeddings`. `tokens` (n, length) is used only to find the end of the texts
        and the padding.
        """
        ...


# The names of the members above.
METHODS = tuple(
    name for name, member in vars(Backbone).items() if inspect.isfunction(member) and not name.startswith("_")
)
ATTRIBUTES = (
    *Backbone.__annotations__,
    *(name for name, member in vars(Backbone).items() if isinstance(member, property)),
)
