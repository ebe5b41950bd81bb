"""What a regularizer may see, and what it gives the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from clipcal.methods import Prompts, TextLearner

__all__ = ["Penalty", "Regularizer", "TuningProblem"]


@dataclass(frozen=True)
class TuningProblem:
    """What is being tuned, as far as a regularizer may know it.

    Attributes
    ----------
    learner : TextLearner
        The learnable part.
    names : sequence of str, length n_classes
        The names of the base classes.
    zero_shot : callable
        ``zero_shot(names, template)`` gives zero-shot text features of unit length, shape
        (n_names, embedding_dim).
    zero_shot_table : callable
        The same for long lists, computed once; names too long for the backbone get zeros.
    outlier_weight : float
        The weight of dynamic outlier regularization where the user left it open.
    generator : torch.Generator
        Source of random choices.
    """

    learner: TextLearner
    names: Sequence[str]
    zero_shot: Callable[[Sequence[str], str], Tensor]
    zero_shot_table: Callable[[Sequence[str], str], Tensor]
    outlier_weight: float
    generator: torch.Generator


class Penalty:
    """A loss term at work. It may ask for more prompts to be encoded in the class prompts' pass."""

    name: ClassVar[str]

    def draw(self, generator: torch.Generator) -> Prompts | None:
        """Return further prompts to encode in this step, or None."""
        return None

    def __call__(self, class_features: Tensor, drawn_features: Tensor | None) -> Tensor:
        """Return the weighted penalty, a scalar, from unit-length features."""
        raise NotImplementedError


class Regularizer(BaseEstimator):
    """Hyper-parameters of a loss term; :meth:`prepare` does what is needed once per fit."""

    name: ClassVar[str]

    def prepare(self, problem: TuningProblem) -> Penalty:
        """Return the loss term for one tuning problem."""
        raise NotImplementedError
