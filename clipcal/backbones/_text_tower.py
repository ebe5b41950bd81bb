"""A common interface to the text towers of open_clip, with token embeddings as input."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import torch
from torch import nn

from clipcal.backbones._prefix import PrefixEncoder, supports_shared_prefix
from clipcal.exceptions import BackboneError

POOLS = ("argmax", "eos", "first", "last")


class TextTower:
    """Text tower of a CLIP model, with token embeddings as input.

    Parameters
    ----------
    module : nn.Module
        Module with ``token_embedding``, ``positional_embedding``, ``transformer``, ``ln_final``,
        ``text_projection`` and ``attn_mask``: an open_clip ``CLIP`` or ``TextTransformer``.
    pool : {"argmax", "eos", "first", "last"}
        Position that is pooled: that of the largest token id, of the end marker `eos_id`, the first or the
        last.
    eos_id : int or None, default=None
        Token id of the end marker; required only for ``pool="eos"``.
    pad_id : int, default=0
        Token id of padding.

    Raises
    ------
    BackboneError
        If the pooling is none of these, so that there is no text embedding.
    """

    def __init__(self, module: nn.Module, *, pool: str, eos_id: int | None = None, pad_id: int = 0) -> None:
        if pool not in POOLS:
            raise BackboneError(
                f"The text tower {type(module).__name__} has pool_type={pool!r}; "
                f"clipcal supports {', '.join(map(repr, POOLS))}. Use another backbone."
            )
        # Any, as nn.Module does not declare the submodules.
        self.module: Any = module
        self.pool = pool
        self.eos_id = eos_id
        self.pad_id = pad_id
        self._prefix_encoders: dict[str, PrefixEncoder] = {}

    @property
    def has_cls(self) -> bool:
        """Whether a learned token is appended to the text and pooled instead of `pool` (CoCa)."""
        return getattr(self.module, "cls_emb", None) is not None

    @property
    def masks_padding(self) -> bool:
        """Whether attention masks padding."""
        return self.has_cls or bool(getattr(self.module, "use_pad_mask", False))

    @property
    def width(self) -> int:
        """Width of the token embeddings."""
        return int(self.module.token_embedding.embedding_dim)

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a text."""
        return int(self.module.positional_embedding.shape[0]) - int(self.has_cls)

    @property
    def can_truncate(self) -> bool:
        """Whether positions after the end marker can be removed without changing the embedding."""
        causal = self.module.attn_mask is not None
        return causal and self.pool in ("argmax", "eos") and not self.masks_padding

    @cached_property
    def shares_prefix(self) -> bool:
        """Whether :meth:`prefix_encoder` is exact: checked by structure, then once numerically."""
        if not supports_shared_prefix(self):
            return False
        # In float32, even if the caller has enabled autocast.
        with torch.autocast(self.module.positional_embedding.device.type, enabled=False):
            agrees = PrefixEncoder(self).agrees()
        if not agrees:
            warnings.warn(
                f"The text tower {type(self.module).__name__} has the structure of CLIP's but different "
                "outputs, so each prompt is encoded separately, which is exact but slower.",
                UserWarning,
                stacklevel=2,
            )
        return agrees

    def prefix_encoder(self, precision: str) -> PrefixEncoder:
        """Return the encoder of names behind a shared prefix, with weights in the given precision.

        Raises
        ------
        BackboneError
            If `shares_prefix` is False.
        """
        if not self.shares_prefix:
            raise BackboneError(
                f"The text tower {type(self.module).__name__} does not support a shared prefix "
                "(shares_prefix is False); use encode_text."
            )
        if precision not in self._prefix_encoders:
            # Copies of weights made in inference mode could not be used in a backward pass.
            with torch.inference_mode(False):
                self._prefix_encoders[precision] = PrefixEncoder(self, precision)
        return self._prefix_encoders[precision]

    def __getstate__(self) -> dict[str, Any]:
        # The encoders reference or copy the weights; they are created again on demand.
        state = self.__dict__ | {"_prefix_encoders": {}}
        state.pop("shares_prefix", None)
        return state

    def end_positions(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """Return the position of each end marker (n,), or None if the pooling does not use one."""
        if self.pool == "argmax":
            return tokens.argmax(dim=-1)
        if self.pool == "eos" and self.eos_id is not None:
            return torch.eq(tokens, self.eos_id).int().argmax(dim=-1)
        return None

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look up token embeddings (n, length, width)."""
        return self.module.token_embedding(tokens)

    def encode(self, token_embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Encode token embeddings (n, length, width) to text embeddings (n, d)."""
        module = self.module
        x = token_embeddings.to(module.transformer.get_cast_dtype())
        if self.has_cls:
            x = torch.cat([x, module.cls_emb.to(x.dtype).expand(len(x), 1, -1)], dim=1)
        length = x.shape[1]
        x = x + module.positional_embedding[:length].to(x.dtype)
        x = module.transformer(x, attn_mask=self._mask(tokens, length, x.dtype))
        pooled = module.ln_final(x[:, -1]) if self.has_cls else self._read(module.ln_final(x), tokens)
        projection = module.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection

    def _mask(self, tokens: torch.Tensor, length: int, dtype: torch.dtype) -> torch.Tensor | None:
        causal = self.module.attn_mask
        if causal is not None:
            causal = causal[:length, :length]
        if not self.masks_padding:
            return causal
        # The mask of the tower itself: released CoCa weights were trained with a shifted mask, which it has.
        padding = self.module._build_additive_mask(tokens, length, dtype)
        return padding if causal is None else causal.unsqueeze(0) + padding

    def _read(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        if self.pool == "first":
            return x[:, 0]
        if self.pool == "last":
            return x[:, -1]
        return x[torch.arange(len(x), device=x.device), self.end_positions(tokens)]
