"""Tokenize texts, raising an error instead of truncating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from clipcal.backbones._text_tower import TextTower
from clipcal.exceptions import BackboneError, ClassNameError

# Tokenizers truncate silently, so texts are tokenized to this multiple of the context length and checked.
_ROOM = 4


class PromptTokenizer:
    """Tokenizer that checks the context length of a text tower.

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
        wide = self._call(texts, _ROOM * limit)
        lengths = self.lengths(wide)
        longest = int(lengths.argmax())
        n_tokens = int(lengths[longest])
        if n_tokens > limit:
            at_least = "at least " if n_tokens >= wide.shape[1] else ""
            raise ClassNameError(
                f"A text is too long for the text tower: {texts[longest]!r} has {at_least}{n_tokens} "
                f"tokens, including start and end markers, and the limit is {limit}. "
                "Shorten the class name (class_names={label: text}) or the template."
            )
        return wide[:, : n_tokens if self.tower.can_truncate else limit].contiguous()

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
