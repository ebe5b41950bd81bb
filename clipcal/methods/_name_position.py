"""Move the class name of tokenized prompts forward, into or before the context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipcal.backbones import Backbone

__all__ = ["moved_forward", "name_lengths"]


def name_lengths(backbone: Backbone, names: Sequence[str]) -> Tensor:
    """Return the number of tokens of each name in a prompt that ends in a full stop.

    The last token of a name that ends in punctuation may include the full stop.

    Parameters
    ----------
    backbone : Backbone
    names : sequence of str, length n_names

    Returns
    -------
    lengths : Tensor of int, shape (n_names,)
    """
    start = backbone.n_start_tokens
    n_marks = int(backbone.text_lengths(backbone.tokenize([""]))[0])
    stop = backbone.tokenize(["."])[0, start]
    sentences = backbone.tokenize([f"{name}." for name in names])
    lengths = backbone.text_lengths(sentences) - n_marks
    last = sentences.gather(1, (start + lengths - 1)[:, None])[:, 0]
    return lengths - (last == stop).to(lengths.dtype)


def moved_forward(n_name: Tensor, length: int, *, first: int, n_passed: int) -> Tensor:
    """Return the index of the token at each position after moving names to an earlier position.

    Parameters
    ----------
    n_name : Tensor of int, shape (n_names,)
        Number of tokens of each name.
    length : int
        Length of the prompts.
    first : int
        New position of the first token of the names.
    n_passed : int
        Number of tokens between the new and the old position, which then follow the name.

    Returns
    -------
    order : Tensor of int, shape (n_names, length)

    Examples
    --------
    >>> import torch
    >>> from clipcal.methods._name_position import moved_forward
    >>> moved_forward(torch.tensor([2]), 7, first=1, n_passed=3).tolist()
    [[0, 4, 5, 1, 2, 3, 6]]
    """
    position = torch.arange(length, device=n_name.device).expand(len(n_name), length)
    after_name = first + n_name[:, None]
    order = torch.where(position < after_name, position + n_passed, position - n_name[:, None])
    return torch.where((position < first) | (position >= after_name + n_passed), position, order)
