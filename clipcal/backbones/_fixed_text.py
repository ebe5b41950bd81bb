"""Encode texts without learned vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipcal.backbones._capabilities import shares_prefix
from clipcal.backbones._packing import Packing

if TYPE_CHECKING:
    from clipcal.backbones._protocol import Backbone

__all__ = ["encode_fixed"]


def encode_fixed(backbone: Backbone, tokens: torch.Tensor) -> torch.Tensor:
    """Embed texts (n, length) as (n, embedding_dim); leading tokens common to all are computed once."""
    if not shares_prefix(backbone):
        return backbone.encode_text(backbone.embed_tokens(tokens), tokens)
    lengths = backbone.text_lengths(tokens).cpu()
    same = torch.eq(tokens, tokens[:1]).all(dim=0).cumprod(dim=0)
    # The prefix must not include the end marker, even if all texts are equal.
    n_prefix = min(int(same.sum()), int(lengths.min()) - 1)
    packing = Packing(lengths - n_prefix, n_prefix, tokens.device)
    prefix = backbone.embed_tokens(tokens[:1, : packing.n_prefix])[0]
    suffixes = backbone.embed_tokens(tokens[packing.names, packing.positions][None])[0]
    return backbone.encode_suffixes(prefix, suffixes, packing)  # type: ignore[attr-defined]
