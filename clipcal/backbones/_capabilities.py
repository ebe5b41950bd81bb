"""Optional members of backbones, with their defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipcal.backbones._protocol import Backbone

__all__ = ["n_text_blocks", "precision_of", "shares_prefix", "text_bytes_per_token"]


def shares_prefix(backbone: Backbone) -> bool:
    """Whether the backbone has ``encode_suffixes``."""
    return bool(getattr(backbone, "shares_prefix", False))


def text_bytes_per_token(backbone: Backbone) -> int | None:
    """Return the memory in bytes per token of a prompt for the backward pass; None if unknown."""
    return getattr(backbone, "text_bytes_per_token", None)


def n_text_blocks(backbone: Backbone) -> int | None:
    """Return the number of blocks of the text tower; None if unknown."""
    return getattr(backbone, "n_text_blocks", None)


def precision_of(backbone: Backbone) -> str:
    """Return the precision of the towers, by default ``"fp32"``."""
    return getattr(backbone, "precision", "fp32")
