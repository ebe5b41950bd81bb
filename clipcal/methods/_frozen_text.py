"""Learners that start from zero-shot text features and do not encode prompts in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from clipcal.text import fill, find_templates
from clipcal.training import Learner, Prompts, TuningProblem, tokenize_prompts

__all__ = ["FrozenTextLearner"]


class FrozenTextLearner(Learner):
    """Learner whose text features are the zero-shot features, which are encoded once.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem.
    template : str or sequence of str
        Template of the zero-shot features; see :func:`clipcal.text.find_templates`.
    normalize : bool, default=True
        Whether the zero-shot features are normalized.
    """

    def __init__(
        self, problem: TuningProblem, template: str | Sequence[str], *, normalize: bool = True
    ) -> None:
        super().__init__(problem.backbone.logit_scale)
        self.embedding_dim = problem.backbone.embedding_dim
        self.first_template = find_templates(template)[0]
        # The backbone must not be an attribute, since a backbone that is a module would be learned too.
        self.tokenize = partial(tokenize_prompts, problem.backbone)
        self.zero_shot = partial(problem.zero_shot, template=template, normalize=normalize)

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Return the tokenized names with their zero-shot features."""
        prompts = self.tokenize(fill(self.first_template, names), 0)
        return replace(prompts, extra={"zero_shot": self.zero_shot(names)})

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Return the zero-shot features."""
        return prompts.extra["zero_shot"]

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the logits."""
        return float(batch_size * len(prompts) * self.embedding_dim)
