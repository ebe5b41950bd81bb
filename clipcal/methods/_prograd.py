"""ProGrad, which removes the part of the gradient that conflicts with zero-shot predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clipcal._compat import Interval, StrOptions, validate_parameters
from clipcal.backbones import Backbone
from clipcal.methods._base import TuningMethod
from clipcal.methods._coop import ContextLearner, CoOp, check_room
from clipcal.methods._fast import FAST, FAST_RATE_OF_RANDOM_CONTEXTS
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Batch, Forward, Recipe, TuningProblem

__all__ = ["AlignedContextLearner", "ProGrad"]

_GENERAL = "zero_shot_kl"


class AlignedContextLearner(ContextLearner):
    """Learner of a context whose gradient does not conflict with zero-shot predictions.

    Parameters
    ----------
    backbone : Backbone
        The frozen CLIP.
    context : Tensor, shape (n_context, token_dim)
        Initial context.
    zero_shot : Tensor, shape (n_classes, embedding_dim), or None
        Zero-shot text features of the training classes. None if the learner is not trained.
    projection_weight : float
        Factor of the conflicting part that is removed.
    **layout
        Other parameters of :class:`ContextLearner`.
    """

    zero_shot: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        context: Tensor,
        *,
        zero_shot: Tensor | None,
        projection_weight: float,
        **layout: Any,
    ) -> None:
        super().__init__(backbone, context, **layout)
        self.projection_weight = projection_weight
        # Predictions do not need these features, so they are not kept.
        self.register_buffer("zero_shot", zero_shot, persistent=False)

    def losses(self, out: Forward, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, and the divergence from zero-shot predictions, which is not minimized."""
        assert self.zero_shot is not None
        zero_shot = self.logits(out.images, self.zero_shot).log_softmax(dim=1)
        tuned = out.logits.log_softmax(dim=1)
        divergence = (zero_shot.exp() * (zero_shot - tuned)).sum(dim=1)
        return {**super().losses(out, batch), _GENERAL: batch.mean(divergence)}

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Set the gradient of all losses but the divergence, without the part that increases the latter."""
        minimized = torch.stack([loss for name, loss in losses.items() if name != _GENERAL]).sum()
        (gradient,) = torch.autograd.grad(minimized, self.context, retain_graph=True)
        (general,) = torch.autograd.grad(losses[_GENERAL], self.context)
        # The norm of the general gradient may be zero, as at the start with the words of the template.
        direction = nn.functional.normalize(general.flatten(), dim=0).view_as(general)
        conflict = (gradient * direction).sum().clamp(max=0)
        self.context.grad = gradient - self.projection_weight * conflict * direction


class ProGrad(TuningMethod):
    """Prompt-aligned gradient (ProGrad): CoOp that does not unlearn zero-shot predictions.

    Let ``d`` be the gradient of the cross-entropy with respect to the context, and ``g`` the gradient of the
    Kullback-Leibler divergence from the zero-shot predictions to the tuned ones, ``KL(p0 || p)``. If the two
    conflict, the part of ``d`` that increases the divergence is removed. The gradient is [1]_

    - ``d`` if ``<d, g> >= 0``, and
    - ``d - projection_weight * <d, g> / ||g||**2 * g`` otherwise.

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        Text whose token embeddings initialize the last context vectors. The vectors before them start as
        zeros. If None, all vectors are drawn from a normal distribution with standard deviation 0.02.
    n_context : int, default=16
        Number of context vectors, at least the number of tokens of ``context_init``.
    zero_shot_template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot predictions, the name of a known template, or a sequence of these, which
        forms an ensemble; see :func:`clipcal.text.find_templates`.
    projection_weight : float, default=1.0
        Factor of the removed part, at least 0. With 0, the method is CoOp with another initial context.
    text_chunk_size : int or "auto", default="auto"
        Number of prompts encoded at once; see :class:`CoOp`.

    Notes
    -----
    The divergence is the part ``"zero_shot_kl"`` of the loss in ``history_``. It only provides the direction
    ``g`` and is not minimized itself, so the total may increase.

    Loss terms of regularizers are added to the cross-entropy: ``d`` is the gradient of their sum. The papers
    on regularizers do not specify this.

    The original recipe is 100 epochs with batches of 32. The authors publish scripts for four images per
    class and a ResNet-50. They use one template per data set, such as ``"a type of pet, a photo of a {}."``,
    for both ``zero_shot_template`` and, without the name, ``context_init``. Their code counts words instead
    of tokens, so in templates with a comma the last word is not learned but follows the context; here all
    tokens of ``context_init`` are learned.

    If the tuned predictions equal the zero-shot predictions, ``g`` is zero up to rounding, and its direction
    is arbitrary. This holds in the first step if ``n_context`` is the number of tokens of ``context_init``
    and the template is the same. If ``g`` is exactly zero, where the published code divides by zero, the
    gradient is ``d``.

    References
    ----------
    .. [1] B. Zhu, Y. Niu, Y. Han, Y. Wu, H. Zhang, "Prompt-aligned Gradient for Prompt Tuning", ICCV 2023,
       arXiv:2205.14865. Section 3.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier, make_shapes
    >>> from clipcal.methods import ProGrad
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> method = ProGrad("a photo of a", n_context=6)
    >>> clf = PromptTunedCLIPClassifier("mini", method=method, max_epochs=1, random_state=0).fit(X, y)
    >>> clf.learned_["context"].shape
    (6, 128)
    >>> sorted(clf.history_[0])
    ['accuracy', 'cross_entropy', 'epoch', 'learning_rate', 'loss', 'zero_shot_kl']
    """

    name: ClassVar[str] = "prograd"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {
            "original": Recipe(max_epochs=100),
            "fast": FAST.with_values(learning_rate=FAST_RATE_OF_RANDOM_CONTEXTS),
        }
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "context_init": [str, None],
        "n_context": [Interval(Integral, 1, None, closed="left")],
        "zero_shot_template": [str, "array-like"],
        "projection_weight": [Interval(Real, 0, None, closed="left")],
        "text_chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        context_init: str | None = "a photo of a",
        *,
        n_context: int = 16,
        zero_shot_template: str | Sequence[str] = DEFAULT_TEMPLATE,
        projection_weight: float = 1.0,
        text_chunk_size: int | str = "auto",
    ) -> None:
        self.context_init = context_init
        self.n_context = n_context
        self.zero_shot_template = zero_shot_template
        self.projection_weight = projection_weight
        self.text_chunk_size = text_chunk_size

    def learner(self, problem: TuningProblem) -> AlignedContextLearner:
        """Return a learner with the initial context.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws a random context.

        Returns
        -------
        learner : AlignedContextLearner
            The learner. It can be trained if the problem has data.

        Raises
        ------
        ClassNameError
            If the context is too long to be followed by a class name, or the template is invalid.
        ValueError
            If a parameter is out of range, or ``context_init`` has more than ``n_context`` tokens.
        """
        validate_parameters(self)
        check_room(problem.backbone, self.n_context)
        n_context = self.n_context if self.context_init is None else None
        start = CoOp(self.context_init, n_context=n_context, text_chunk_size=self.text_chunk_size).learner(
            problem
        )
        n_zeros = self.n_context - len(start.context)
        if n_zeros < 0:
            raise ValueError(
                f"context_init={self.context_init!r} has {len(start.context)} tokens, but "
                f"n_context={self.n_context}; use n_context={len(start.context)} or more."
            )
        trained = problem.data is not None
        return AlignedContextLearner(
            problem.backbone,
            nn.functional.pad(start.context, (0, 0, n_zeros, 0)),
            zero_shot=problem.zero_shot(problem.names, self.zero_shot_template) if trained else None,
            projection_weight=float(self.projection_weight),
            **{**start.layout, "placeholder": " ".join([*["X"] * n_zeros, start.placeholder])},
        )
