"""What a method may ask of a frozen CLIP."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class Backbone(Protocol):
    """A frozen CLIP: pictures and prompts in, embeddings out.

    Anything with these members works wherever clipcal takes ``backbone=``; nothing has to be inherited.
    All parameters are frozen and the towers are in evaluation mode. Outputs are float32 and are *not*
    divided by their length.

    A backbone without a width of its own may offer ``for_width(n_features) -> Backbone``;
    :func:`open_backbone` then asks for the width of the data.

    A backbone whose text tower is causal and reads the end of a text alone may set ``shares_prefix`` to True
    and offer ::

        encode_suffixes(prefix, suffixes, packing, deep=None) -> features

    which embeds many names behind one prefix and computes the prefix once. `prefix` holds the token
    embeddings before the names, shape (n_prefix, token_dim), or (n_prompts, n_prefix, token_dim) for several
    prefixes that each meet every name; `suffixes` those of the names, packed as the :class:`Packing`
    says, shape (n_tokens, token_dim), or (n_prompts, n_tokens, token_dim) where they differ from prefix
    to prefix; ``deep[k]``, shape (n, token_dim) or (n_prompts, n, token_dim), takes the place of the
    prefix's last n positions at the input of block k. Features are (n_names, embedding_dim) or
    (n_prompts, n_names, embedding_dim). ``text_bytes_per_token``, if there, is what such a token leaves in
    memory for the backward pass, and decides how many prompts are encoded at once.

    A backbone whose image tower is a transformer may offer ``image_tower``, an object whose ``width`` and
    ``n_blocks`` are the width of the tower's tokens and the number of its blocks, and ::

        encode_pixels(pixels, prompts=None) -> features

    which embeds pixels (n, 3, height, width) as (n, embedding_dim) with prompts as additional tokens, and is
    differentiable in `prompts` and `pixels`. ``prompts[0]``, shape (n_prompts, width) or
    (n, n_prompts, width) for prompts that differ between the images, is appended after the patches, without
    position and before the norm that precedes the blocks; ``prompts[k]`` of the same shape replaces these
    tokens at the input of block k. Without prompts the features are those of :meth:`encode_images`. Only
    methods that prompt the image tower need the two. If the tower cannot take prompts, they raise
    BackboneError or are not there.

    Attributes
    ----------
    name : str
        What opens the same backbone again, empty if nothing does.
    embedding_dim : int
        Width of image and text embeddings.
    token_dim : int
        Width of the token embeddings that the text tower reads.
    context_length : int
        The number of tokens that a prompt may have, start and end markers included.
    n_start_tokens : int
        The number of markers before the first word: 1 for CLIP, 0 for SigLIP.
    logit_scale : float
        What cosines are multiplied by, the exponential already taken.
    device : torch.device
        Where the towers are.
    fingerprint : str
        SHA-256 over weights, structure and preprocessing, in hexadecimal digits.
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
        """SHA-256 over weights, structure and preprocessing."""
        ...

    def preprocess(self, image: Image) -> torch.Tensor:
        """Turn a picture into the tensor (3, height, width) that the image tower was evaluated on."""
        ...

    def augment(self, image: Image, generator: torch.Generator) -> torch.Tensor:
        """Turn a picture into a random crop, perhaps mirrored, of the shape that `preprocess` gives.

        All chance comes from `generator`, a generator on the CPU.
        """
        ...

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels (n, 3, height, width) as (n, embedding_dim), without a graph."""
        ...

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Turn texts into token ids (n, length) on the device.

        `length` is that of the longest text where positions after the end of a text cannot matter, and
        `context_length` otherwise. A text that does not fit raises ClassNameError; none is cut.
        """
        ...

    def text_lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Count the positions that hold text, start and end markers included: (n,)."""
        ...

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look up token embeddings (n, length, token_dim), before positions are added."""
        ...

    def encode_text(self, token_embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Embed prompts given as token embeddings (n, length, token_dim) as (n, embedding_dim).

        Differentiable in `token_embeddings`. `tokens` (n, length) is only read for where the texts end and
        which positions are padding.
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
