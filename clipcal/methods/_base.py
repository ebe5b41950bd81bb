"""What every tuning method offers: learnable parameters in, text features out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from clipcal.backbones import Backbone, Packing, upload

__all__ = ["Prompts", "TextLearner", "TuningMethod"]


@dataclass(frozen=True)
class Prompts:
    """Tokenised prompts with room for a context, one row a name.

    Attributes
    ----------
    tokens : Tensor of int, shape (n_names, length)
        The tokens of the whole prompt; those of the context are placeholders.
    lengths : Tensor of int, shape (n_names,), on the CPU
        Positions that hold text, markers included. On the CPU, since they decide the shapes of what is
        computed: a GPU is never waited for.
    order : Tensor of int, shape (n_names, length), or None
        Which token stands at each position, for layouts that move the name; None for the identity.
    """

    tokens: Tensor
    lengths: Tensor
    order: Tensor | None = None
    _packings: dict[int, Packing] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Tensor | slice) -> Prompts:
        """Return the prompts of the given rows; a tensor of rows is on the CPU."""
        lengths = self.lengths[rows]
        if isinstance(rows, Tensor):
            rows = upload(rows, self.tokens.device)
        return Prompts(self.tokens[rows], lengths, None if self.order is None else self.order[rows])

    def joined(self, other: Prompts) -> Prompts:
        """Return these prompts followed by the other ones, padded to the longer of the two."""
        length = max(self.tokens.shape[1], other.tokens.shape[1])
        tokens = torch.cat([_padded(prompts.tokens, length, fill=0) for prompts in (self, other)])
        lengths = torch.cat([self.lengths, other.lengths])
        if self.order is None or other.order is None:
            return Prompts(tokens, lengths)
        order = torch.cat([_padded(order, length, fill=None) for order in (self.order, other.order)])
        return Prompts(tokens, lengths, order)

    def packing(self, n_shared: int) -> Packing:
        """Return the layout of what follows the first `n_shared` positions, which all prompts share."""
        if n_shared not in self._packings:
            self._packings[n_shared] = Packing(self.lengths - n_shared, n_shared, self.tokens.device)
        return self._packings[n_shared]


def _padded(rows: Tensor, length: int, *, fill: int | None) -> Tensor:
    """Widen rows to a length, with a constant or, for ``fill=None``, with each column's own index."""
    missing = length - rows.shape[1]
    if fill is not None:
        return nn.functional.pad(rows, (0, missing), value=fill)
    more = torch.arange(rows.shape[1], length, device=rows.device).expand(len(rows), missing)
    return torch.cat([rows, more], dim=1)


class TextLearner(nn.Module):
    """The learnable part of a method, bound to one backbone."""

    # False where parameters belong to single classes, so that other names have none.
    supports_new_classes: ClassVar[bool] = True

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Tokenise prompts for names, once; raises ClassNameError for a name that does not fit."""
        raise NotImplementedError

    def forward(self, prompts: Prompts) -> Tensor:
        """Return unit-length text features, shape (n_prompts, embedding_dim), differentiable."""
        raise NotImplementedError

    def work(self, prompts: Prompts) -> float:
        """Return the multiply-adds of the largest product in a pass, by which threads are chosen."""
        return math.inf

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the learned parameters by name."""
        return {
            name: value.detach().to("cpu", torch.float32, copy=True).numpy()
            for name, value in self.named_parameters()
        }

    def load_arrays(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Put learned parameters back."""
        with torch.no_grad():
            for name, value in self.named_parameters():
                value.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


class TuningMethod(BaseEstimator):
    """Hyper-parameters of a tuning method; :meth:`learner` makes its learnable part.

    Attributes
    ----------
    needs_pixels : bool
        Whether prompts enter the image tower, so that precomputed embeddings cannot be used.
    default_regularizer : str or None
        The name of the regularizer that belongs to the method.
    outlier_weight : float
        The weight that dynamic outlier regularization has with this method in its paper.
    """

    needs_pixels: ClassVar[bool] = False
    default_regularizer: ClassVar[str | None] = None
    outlier_weight: ClassVar[float] = 2.0

    def learner(self, backbone: Backbone, n_classes: int, generator: torch.Generator) -> TextLearner:
        """Return freshly initialised learnable parameters, drawn from the generator where random."""
        raise NotImplementedError
