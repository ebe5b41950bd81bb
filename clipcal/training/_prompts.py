"""Tokenized prompts with placeholders for learned vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from clipcal.backbones import Backbone, Packing, upload

__all__ = ["Prompts", "tokenize_prompts"]


@dataclass(frozen=True)
class Prompts:
    """Tokenized prompts with placeholders for a context, one row per name.

    Attributes
    ----------
    tokens : Tensor of int, shape (n_names, length)
        Tokens of the prompts, with placeholders in the positions of the context.
    lengths : Tensor of int, shape (n_names,), on the CPU
        Number of tokens of each prompt, including start and end markers. They are kept on the CPU because
        they determine the shapes of a step, and reading them from a GPU would stall it.
    n_shared : int
        Number of leading positions that are the same in all prompts if their context is the same.
    order : Tensor of int, shape (n_names, length), or None
        Index of the token at each position, for layouts that move the name. None is the identity.
    extra : mapping of str to Tensor, first dimension n_names
        Other tensors of a method with one row per name, such as frozen text features.
    """

    tokens: Tensor
    lengths: Tensor
    n_shared: int
    order: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    _packings: dict[int, Packing] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Tensor | slice) -> Prompts:
        """Return the prompts of the given rows, a slice or a tensor on the CPU."""
        lengths = self.lengths[rows]
        if isinstance(rows, Tensor):
            rows = upload(rows, self.tokens.device)
        order = None if self.order is None else self.order[rows]
        extra = {name: values[rows] for name, values in self.extra.items()}
        return Prompts(self.tokens[rows], lengths, self.n_shared, order, extra)

    def joined(self, other: Prompts) -> Prompts:
        """Return these prompts followed by those of `other`, padded to the same length."""
        length = max(self.tokens.shape[1], other.tokens.shape[1])
        tokens = torch.cat([_padded(prompts.tokens, length, fill=0) for prompts in (self, other)])
        lengths = torch.cat([self.lengths, other.lengths])
        n_shared = min(self.n_shared, other.n_shared)
        extra = {name: torch.cat([values, other.extra[name]]) for name, values in self.extra.items()}
        if self.order is None and other.order is None:
            return Prompts(tokens, lengths, n_shared, extra=extra)
        order = torch.cat([_padded(prompts._full_order(), length, fill=None) for prompts in (self, other)])
        return Prompts(tokens, lengths, n_shared, order, extra)

    def _full_order(self) -> Tensor:
        if self.order is not None:
            return self.order
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand(self.tokens.shape)

    def packing(self, n_shared: int) -> Packing:
        """Return the packing of the tokens after the first `n_shared` positions. It is cached."""
        if n_shared not in self._packings:
            self._packings[n_shared] = Packing(self.lengths - n_shared, n_shared, self.tokens.device)
        return self._packings[n_shared]


def _padded(rows: Tensor, length: int, *, fill: int | None) -> Tensor:
    """Pad rows to a length with a constant or, for ``fill=None``, with the column index."""
    missing = length - rows.shape[1]
    if fill is not None:
        return pad(rows, (0, missing), value=fill)
    more = torch.arange(rows.shape[1], length, device=rows.device).expand(len(rows), missing)
    return torch.cat([rows, more], dim=1)


def tokenize_prompts(backbone: Backbone, texts: Sequence[str], n_context: int) -> Prompts:
    """Tokenize prompts that begin with the same words.

    Parameters
    ----------
    backbone : Backbone
    texts : sequence of str
        Prompts that begin with a placeholder for the context, such as ``"X X dog."``. They are tokenized as
        a whole because a token may contain the end of a name and the punctuation after it.
    n_context : int
        Number of tokens of the common words, which follow the start marker.

    Returns
    -------
    prompts : Prompts

    Raises
    ------
    ClassNameError
        If a prompt has more tokens than the text tower has positions.

    Examples
    --------
    >>> from clipcal.backbones import open_backbone
    >>> from clipcal.training import tokenize_prompts
    >>> prompts = tokenize_prompts(open_backbone("mini"), ["X X dog.", "X X polar bear."], n_context=2)
    >>> len(prompts)
    2
    """
    tokens = backbone.tokenize(texts)
    return Prompts(tokens, backbone.text_lengths(tokens).cpu(), backbone.n_start_tokens + n_context)
