"""Context vectors before the class name, and prompts inside the text tower in their positions."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from torch import Tensor, nn

from clipcal._compat import Interval, StrOptions
from clipcal.backbones import Backbone
from clipcal.methods._coop import ContextLearner, CoOp
from clipcal.methods._prompted_images import draw_prompts
from clipcal.training import Prompts, TuningProblem

__all__ = ["DEEP_CONTEXT_CONSTRAINTS", "DeepContextLearner", "deep_context_layout"]

# Of the parameters of a method from which :func:`deep_context_layout` computes the layout.
DEEP_CONTEXT_CONSTRAINTS: dict[str, list[Any]] = {
    "context_init": [str, None],
    "n_context": [Interval(Integral, 1, None, closed="left")],
    "depth": [Interval(Integral, 1, None, closed="left"), None],
    "template": [str],
    "text_chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
}


class DeepContextLearner(ContextLearner):
    """Learner of a context, and of prompts that replace it at the inputs of further blocks.

    Parameters
    ----------
    backbone : Backbone
        The frozen CLIP.
    context : Tensor, shape (n_context, token_dim)
        Initial context.
    deep_context : Tensor, shape (depth - 1, n_context, token_dim)
        Initial prompts at the inputs of the blocks from 1 to ``depth - 1``.
    **layout
        Other parameters of :class:`ContextLearner`.
    """

    def __init__(self, backbone: Backbone, context: Tensor, deep_context: Tensor, **layout: Any) -> None:
        super().__init__(backbone, context, **layout)
        self.deep_context = nn.Parameter(deep_context.detach().float().clone())

    def raw_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Encode prompts with the current context, without normalization of the features."""
        return self.encoder(prompts, self.context, self._deep_prompts())

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in the text tower."""
        return self.encoder.work(prompts, self.context, self._deep_prompts())

    def _deep_prompts(self) -> dict[int, Tensor]:
        return dict(enumerate(self.deep_context, start=1))


def deep_context_layout(
    problem: TuningProblem,
    context_init: str | None,
    n_context: int,
    *,
    depth: int,
    template: str,
    text_chunk_size: int | str,
) -> dict[str, Any]:
    """Return the parameters of a :class:`DeepContextLearner` with initial values.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem. Its generator draws random values.
    context_init : str or None
        Text whose first `n_context` tokens initialize the context; its other tokens are not learned. If None,
        the context is drawn at random.
    n_context : int
        Number of context vectors.
    depth : int
        Number of blocks with prompts, including the context.
    template : str
        Template of the class name, which follows the context.
    text_chunk_size : int or "auto"
        See :class:`~clipcal.training.PromptEncoder`.

    Raises
    ------
    ClassNameError
        If the context is too long to be followed by a class name.
    ValueError
        If `context_init` has fewer than `n_context` tokens.
    """
    n_words = None if context_init is not None else n_context
    start = CoOp(context_init, n_context=n_words, template=template, text_chunk_size=text_chunk_size)
    whole = start.learner(problem)
    n_words = whole.context.shape[-2]
    if n_words < n_context:
        raise ValueError(
            f"context_init={context_init!r} has {n_words} tokens, but n_context={n_context}; use a smaller "
            "n_context, a longer text, or context_init=None for a random context."
        )
    shape = (depth - 1, n_context, problem.backbone.token_dim)
    return {
        "backbone": problem.backbone,
        "context": whole.context[:n_context],
        "deep_context": draw_prompts(*shape, backbone=problem.backbone, generator=problem.generator),
        **whole.layout,
        "n_frozen": n_words - n_context,
    }
