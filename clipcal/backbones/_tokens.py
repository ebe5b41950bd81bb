"""Tokenize texts, raising an error instead of truncating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipcal.backbones._text_tower import TextTower
from clipcal.exceptions import BackboneError, ClassNameError

# Tokenizers truncate silently, so texts are tokenized to this multiple of the context length and checked.
_ROOM = 4
# Number of texts whose tokens are kept, about 20 MB with 77 positions each: the outliers of several fits.
_MAX_KEPT = 2**15


class PromptTokenizer:
    """Tokenizer that checks the context length of a text tower, and keeps the tokens of recent texts.

    Cleaning a text takes much longer than looking up its tokens, and a training run tokenizes the same
    thousands of nouns as the one before.

    Parameters
    ----------
    tokenizer : callable
        ``tokenizer(texts, context_length=n)`` returns token ids (n_texts, n), padded on the right.
    tower : TextTower
        The text tower.
    """

    def __init__(self, tokenizer: Callable[..., torch.Tensor], tower: TextTower) -> None:
        if getattr(tokenizer, "tokenizer_mode", "") == "clips":
            raise BackboneError(
                "The tokenizer puts a class token after the padding (tokenizer_mode='clips'), which clipcal "
                "does not support. Use a backbone with another tokenizer."
            )
        self.tokenizer = tokenizer
        self.tower = tower
        inner: Any = getattr(tokenizer, "tokenizer", None)
        pad_id = getattr(inner, "pad_token_id", None)
        self.pad_id = tower.pad_id if pad_id is None else int(pad_id)
        # SigLIP's T5 vocabulary uses one id as end marker and padding; the first of them belongs to the text.
        self.end_is_pad = inner is not None and getattr(inner, "eos_token_id", None) == self.pad_id
        self._kept: dict[str, NDArray[np.int32]] = {}

    @property
    def n_start_tokens(self) -> int:
        """Number of markers before the first word: the common prefix of texts without a common word."""
        tokens = self._call(["dog", "a photo of a cat", "red"], self.tower.context_length)
        same = torch.eq(tokens, tokens[:1]).all(dim=0).int()
        return int(same.cumprod(dim=0).sum())

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokenize texts to token ids (n, length) on the CPU.

        Raises
        ------
        ClassNameError
            If a text has more tokens than the tower has positions.
        """
        if isinstance(texts, str):
            raise TypeError(f"Expected a sequence of texts, got a single string; pass [{texts!r}].")
        texts = list(texts)
        limit = self.tower.context_length
        if not texts:
            return torch.zeros((0, limit), dtype=torch.long)
        rows = self._rows(texts)
        tokens = torch.from_numpy(np.stack([rows[text] for text in texts])).long()
        n_tokens = int(self.lengths(tokens).max()) if self.tower.can_truncate else limit
        return tokens[:, :n_tokens].contiguous()

    def _rows(self, texts: list[str]) -> dict[str, NDArray[np.int32]]:
        """Return the tokens of at least the given texts, padded to the context length."""
        rows = self._kept
        new = [text for text in dict.fromkeys(texts) if text not in rows]
        if not new:
            return rows
        limit = self.tower.context_length
        wide = self._call(new, _ROOM * limit)
        lengths = self.lengths(wide)
        if len(rows) + len(new) > _MAX_KEPT:
            # Replaced and never emptied, because another thread may be reading it. Rows are copied, because
            # each of them is part of the tokens of a whole call.
            rows = {text: rows[text].copy() for text in texts if text in rows}
            if len(rows) + len(new) <= _MAX_KEPT:
                self._kept = rows
        fitting = (lengths <= limit).tolist()
        short = wide[:, :limit].to(torch.int32).numpy()
        rows.update((text, row) for text, row, fits in zip(new, short, fitting, strict=True) if fits)
        if not all(fitting):
            longest = int(lengths.argmax())
            n_tokens = int(lengths[longest])
            at_least = "at least " if n_tokens >= wide.shape[1] else ""
            raise ClassNameError(
                f"A text is too long for the text tower: {new[longest]!r} has {at_least}{n_tokens} "
                f"tokens, including start and end markers, and the limit is {limit}. "
                "Shorten the class name (class_names={label: text}) or the template."
            )
        return rows

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the number of tokens of each text (n,), including markers, without padding."""
        ends = self.tower.end_positions(tokens)
        if ends is not None:
            return ends + 1
        positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        last = (positions * (tokens != self.pad_id)).amax(dim=1)
        return (last + int(self.end_is_pad)).clamp(max=tokens.shape[1])

    def _call(self, texts: list[str], context_length: int) -> torch.Tensor:
        return torch.as_tensor(self.tokenizer(texts, context_length=context_length), dtype=torch.long)
