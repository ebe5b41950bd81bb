"""Texts to token ids, refusing what would be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from clipcal.backbones._text_tower import TextTower
from clipcal.exceptions import BackboneError, ClassNameError

# A tokenizer cuts silently at the length it is asked for, so it is asked for more and the surplus is counted.
_ROOM = 4


class PromptTokenizer:
    """A tokenizer that knows the limits of the text tower it feeds.

    Parameters
    ----------
    tokenizer : callable
        ``tokenizer(texts, context_length=n)`` gives token ids (n_texts, n), padded on the right.
    tower : TextTower
        The tower that reads the ids.
    """

    def __init__(self, tokenizer: Callable[..., torch.Tensor], tower: TextTower) -> None:
        if getattr(tokenizer, "tokenizer_mode", "") == "clips":
            raise BackboneError(
                "The tokenizer puts a class token after the padding (tokenizer_mode='clips'); "
                "clipcal cannot put prompts into such texts."
            )
        self.tokenizer = tokenizer
        self.tower = tower
        inner: Any = getattr(tokenizer, "tokenizer", None)
        pad_id = getattr(inner, "pad_token_id", None)
        self.pad_id = tower.pad_id if pad_id is None else int(pad_id)
        # T5's vocabulary for SigLIP ends and pads a text with the same id: one of them belongs to the text.
        self.end_is_pad = inner is not None and getattr(inner, "eos_token_id", None) == self.pad_id

    @property
    def n_start_tokens(self) -> int:
        """Number of markers before the first word: what texts without a common word have in common."""
        tokens = self._call(["dog", "a photo of a cat", "red"], self.tower.context_length)
        same = torch.eq(tokens, tokens[:1]).all(dim=0).int()
        return int(same.cumprod(dim=0).sum())

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Turn texts into token ids (n, length) on the CPU.

        Raises
        ------
        ClassNameError
            If a text has more tokens than the tower has positions.
        """
        if isinstance(texts, str):
            raise TypeError(f"Expected a sequence of texts, got one string: [{texts!r}] is such a sequence.")
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
                f"A text does not fit into the text tower: {texts[longest]!r} has {at_least}{n_tokens} "
                f"tokens, start and end markers included, and the limit is {limit}. "
                "Shorten the class name (class_names={label: text}) or the template."
            )
        return wide[:, : n_tokens if self.tower.ignores_the_rest else limit].contiguous()

    def lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Count the positions that hold text (n,), markers included."""
        ends = self.tower.end_positions(tokens)
        if ends is not None:
            return ends + 1
        positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        last = (positions * (tokens != self.pad_id)).amax(dim=1)
        return (last + int(self.end_is_pad)).clamp(max=tokens.shape[1])

    def _call(self, texts: list[str], context_length: int) -> torch.Tensor:
        return torch.as_tensor(self.tokenizer(texts, context_length=context_length), dtype=torch.long)
