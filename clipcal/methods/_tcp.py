"""TCP, which replaces the context by tokens of each class inside the text tower."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clipcal._compat import Interval, StrOptions, validate_parameters
from clipcal.backbones import Backbone
from clipcal.exceptions import BackboneError
from clipcal.methods._base import TuningMethod
from clipcal.methods._coop import ContextLearner, CoOp
from clipcal.methods._fast import FAST
from clipcal.regularizers import AnchorRegularizer, Regularizer
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Prompts, Recipe, TuningProblem

__all__ = ["TCP", "ClassTokenLearner"]

# The published code inserts the class tokens at the input of this block.
_BLOCK = 8
# The hidden layer of the meta-net is this many times smaller than the text features.
_REDUCTION = 4


class ClassTokenLearner(ContextLearner):
    """Learner of context vectors and of a network that computes tokens for each class.

    Parameters
    ----------
    backbone : Backbone
        The frozen CLIP.
    context : Tensor, shape (n_context, token_dim)
        Initial context.
    zero_shot : callable
        ``zero_shot(names)`` returns zero-shot text features of unit length, the input of the network.
    block : int
        Block of the text tower at whose input the class tokens replace the context.
    **layout
        Other parameters of :class:`ContextLearner`.
    """

    def __init__(
        self,
        backbone: Backbone,
        context: Tensor,
        *,
        zero_shot: Callable[[Sequence[str]], Tensor],
        block: int,
        **layout: Any,
    ) -> None:
        super().__init__(backbone, context, **layout)
        n_hidden = max(1, backbone.embedding_dim // _REDUCTION)
        self.meta_net = nn.Sequential(
            nn.Linear(backbone.embedding_dim, n_hidden), _QuickGELU(), nn.Linear(n_hidden, context.numel())
        )
        self.zero_shot = zero_shot
        self.block = block

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Tokenize the prompts of names, with the zero-shot features of the names."""
        return replace(super().prompts(names), extra={"zero_shot": self.zero_shot(names)})

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Encode prompts with the context and their class tokens; features have unit length."""
        features = self.encoder(prompts, self.context, self._deep_prompts(prompts))
        return nn.functional.normalize(features, dim=-1)

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in a step."""
        return self.encoder.work(prompts, self.context, self._deep_prompts(prompts))

    def _deep_prompts(self, prompts: Prompts) -> dict[int, Tensor]:
        """Return the class tokens (n_prompts, n_context, token_dim) by block."""
        tokens = self.meta_net(prompts.extra["zero_shot"])
        return {self.block: tokens.unflatten(-1, self.context.shape)}


class _QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TCP(TuningMethod):
    """Textual-based class-aware prompt tuning (TCP): tokens of each class replace the context.

    The prompt of class ``c`` is ``[V_1 ... V_M] name_c.``, as in :class:`CoOp`. A network of two layers, the
    meta-net ``h``, maps the zero-shot text feature ``w0_c`` of unit length to M class tokens
    ``(Q_c1, ..., Q_cM) = h(w0_c)``. Inside the text tower, at the input of one of its blocks, they replace
    the vectors in the positions of the context [1]_. The context and the meta-net are trained to minimize the
    cross-entropy plus ``8 (1 - mean_c cos(w_c, w0_c))``.

    Parameters
    ----------
    context_init : str or None, default=None
        Text whose token embeddings initialize the context; see :class:`CoOp`. If None, the vectors are drawn
        from a normal distribution with standard deviation 0.02.
    n_context : int or None, default=None
        Number M of context vectors and of class tokens. If None, it is the number of tokens of
        ``context_init``, or 4 for a random context.
    template : str, default="{}."
        Template of the class name, whose words are not trained; see :class:`CoOp`.
    zero_shot_template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features, the name of a known template, or a sequence of these, which forms
        an ensemble; see :func:`clipcal.text.find_templates`.
    block : int or None, default=None
        Block at whose input the class tokens replace the context, counted from 0, at least 1. If None, it is
        8, as in the published code. In text towers with fewer than 9 blocks, for which the authors give no
        value, it is then two thirds of the number of blocks, rounded down, such as 2 of the 4 blocks of
        ``"mini"``, and at least 1.
    text_chunk_size : int or "auto", default="auto"
        Number of prompts encoded at once; see :class:`CoOp`.

    Notes
    -----
    The positions of the context are the same in all prompts up to the block of the class tokens, and are
    computed once. Only backbones whose text tower shares prefixes support this method: those of open_clip
    with a causal text tower, which includes all CLIP models of OpenAI.

    The class tokens are computed from the name, so the learned parameters can be used for new classes, and
    for the nouns of ``regularizer="dor"``, whose own zero-shot features are used. The papers do not specify
    the latter.

    The second term of the loss is an :class:`~clipcal.regularizers.AnchorRegularizer` with the same zero-shot
    features; pass another one as ``regularizer`` to change its weight. The weight in the published
    configuration files is 1, but the code does not use it: it is always 8.

    The original recipe is 50 epochs with batches of 32 (25 epochs on ImageNet and SUN397) and Adam with
    ``eps=0.001``. The authors prescribe this value for training in half precision; it also makes steps along
    small gradients shorter. They start from random vectors and use one template per data set, such as
    ``TCP(template="{}, a type of pet.", zero_shot_template="oxford_pets")``.

    References
    ----------
    .. [1] H. Yao, R. Zhang, C. Xu, "TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model",
       CVPR 2024, arXiv:2311.18231.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier, make_shapes
    >>> from clipcal.methods import TCP
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> method = TCP(n_context=2)
    >>> clf = PromptTunedCLIPClassifier("mini", method=method, max_epochs=1, random_state=0).fit(X, y)
    >>> clf.learned_["context"].shape, clf.learned_["meta_net.2.weight"].shape
    ((2, 128), (256, 32))
    >>> clf.with_classes(["circle", "star"]).predict_proba(X[:5]).shape
    (5, 2)
    """

    name: ClassVar[str] = "tcp"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {
            "original": Recipe(
                max_epochs=50, optimizer="adam", optimizer_options=MappingProxyType({"eps": 1e-3})
            ),
            "fast": FAST.with_values(learning_rate=0.01),
        }
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "context_init": [str, None],
        "n_context": [Interval(Integral, 1, None, closed="left"), None],
        "template": [str],
        "zero_shot_template": [str, "array-like"],
        "block": [Interval(Integral, 1, None, closed="left"), None],
        "text_chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        context_init: str | None = None,
        *,
        n_context: int | None = None,
        template: str = "{}.",
        zero_shot_template: str | Sequence[str] = DEFAULT_TEMPLATE,
        block: int | None = None,
        text_chunk_size: int | str = "auto",
    ) -> None:
        self.context_init = context_init
        self.n_context = n_context
        self.template = template
        self.zero_shot_template = zero_shot_template
        self.block = block
        self.text_chunk_size = text_chunk_size

    def learner(self, problem: TuningProblem) -> ClassTokenLearner:
        """Return a learner with the initial context and meta-net.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws a random context.

        Returns
        -------
        learner : ClassTokenLearner
            The learner.

        Raises
        ------
        BackboneError
            If the text tower does not support deep prompts.
        ClassNameError
            If the context is too long to be followed by a class name, or a template is invalid.
        ValueError
            If a parameter is out of range, or ``n_context`` contradicts ``context_init``.
        """
        validate_parameters(self)
        n_context = 4 if self.context_init is None and self.n_context is None else self.n_context
        start = CoOp(
            self.context_init,
            n_context=n_context,
            template=self.template,
            text_chunk_size=self.text_chunk_size,
        ).learner(problem)
        return ClassTokenLearner(
            problem.backbone,
            start.context,
            zero_shot=partial(problem.zero_shot, template=self.zero_shot_template),
            block=self._block(start),
            **start.layout,
        )

    def _block(self, learner: ContextLearner) -> int:
        """Return the block of the class tokens."""
        n_blocks = learner.encoder.n_blocks
        name = learner.backbone.name or type(learner.backbone).__name__
        if n_blocks < 2:
            raise BackboneError(
                f"TCP needs a text tower with at least 2 blocks, but backbone {name!r} has {n_blocks}; use "
                "another backbone or method."
            )
        if self.block is None:
            return _BLOCK if n_blocks > _BLOCK else max(1, 2 * n_blocks // 3)
        if self.block >= n_blocks:
            raise ValueError(
                f"block={self.block}, but the text tower of backbone {name!r} has the blocks 0 to "
                f"{n_blocks - 1}; use a smaller number, or block=None."
            )
        return self.block

    def regularizers(self) -> list[Regularizer]:
        """Return an :class:`AnchorRegularizer` with the weight 8 and the zero-shot features of the method.

        Returns
        -------
        regularizers : list of Regularizer
            The regularizer.
        """
        return [AnchorRegularizer(8.0, template=self.zero_shot_template)]
