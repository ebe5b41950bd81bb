"""CoOp, which replaces the words before the class name with learned vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from clipcal._compat import Interval, StrOptions, validate_parameters
from clipcal.backbones import Backbone
from clipcal.exceptions import ClassNameError
from clipcal.methods._base import TuningMethod
from clipcal.methods._fast import FAST, FAST_RATE_OF_RANDOM_CONTEXTS
from clipcal.methods._name_position import moved_forward, name_lengths
from clipcal.regularizers import AnchorRegularizer, Regularizer
from clipcal.text import fill
from clipcal.training import (
    Batch,
    Learner,
    PromptEncoder,
    Prompts,
    Recipe,
    TuningProblem,
    tokenize_prompts,
)

__all__ = ["CoOp", "ContextLearner", "KgCoOp", "check_room"]


class ContextLearner(Learner):
    """Learner of context vectors before, around or after the class name.

    Parameters
    ----------
    backbone : Backbone
        The frozen CLIP.
    context : Tensor, shape (n_context, token_dim) or (n_classes, n_context, token_dim)
        Initial context, shared or class-specific.
    placeholder : str
        Text of exactly ``n_context + n_frozen`` tokens, tokenized in the position of the context.
    template : str
        Template of the class name, which follows the context.
    class_token_position : {"end", "middle", "front"}
        Position of the class name relative to the context.
    text_chunk_size : int or "auto"
        Number of prompts encoded at once; see :class:`~clipcal.training.PromptEncoder`.
    n_frozen : int, default=0
        Number of further tokens of the placeholder, after the context, that are not learned.
    """

    def __init__(
        self,
        backbone: Backbone,
        context: Tensor,
        *,
        placeholder: str,
        template: str,
        class_token_position: str,
        text_chunk_size: int | str,
        n_frozen: int = 0,
    ) -> None:
        super().__init__(backbone.logit_scale)
        self.context = nn.Parameter(context.detach().float().clone())
        self.placeholder = placeholder
        self.template = template
        self.class_token_position = class_token_position
        self.n_frozen = n_frozen
        self.encoder = PromptEncoder(backbone, text_chunk_size)

    @property
    def backbone(self) -> Backbone:
        """The frozen CLIP. No attribute, since a backbone that is a module would be learned too."""
        return self.encoder.backbone

    @property
    def layout(self) -> dict[str, Any]:
        """The parameters other than backbone and context, to make a similar learner."""
        return {
            "placeholder": self.placeholder,
            "template": self.template,
            "class_token_position": self.class_token_position,
            "text_chunk_size": self.encoder.chunk_size,
            "n_frozen": self.n_frozen,
        }

    @property
    def supports_new_classes(self) -> bool:  # type: ignore[override]
        """Whether the context is shared, so that it can be used with any name."""
        return self.context.ndim == 2

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Tokenize the prompts of names: the placeholder, followed by the name in the template."""
        n_context = self.context.shape[-2]
        n_before = {"end": n_context + self.n_frozen, "middle": n_context // 2, "front": 0}[
            self.class_token_position
        ]
        texts = [f"{self.placeholder} {text}" for text in fill(self.template, names)]
        prompts = tokenize_prompts(self.backbone, texts, n_before)
        if self.class_token_position == "end":
            return prompts
        order = moved_forward(
            name_lengths(self.backbone, names),
            prompts.tokens.shape[1],
            first=self.backbone.n_start_tokens + n_before,
            n_passed=n_context - n_before,
        )
        return replace(prompts, order=order)

    def raw_images(self, batch: Batch) -> Tensor:
        """Return image features without normalization; those of the frozen CLIP by default."""
        return batch.raw_embeddings

    def raw_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Encode prompts with the current context, without normalization of the features."""
        return self.encoder(prompts, self.context)

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Encode prompts with the current context and normalize the features to unit length."""
        return nn.functional.normalize(self.raw_texts(prompts, images), dim=-1)

    def for_names(self, names: Sequence[str]) -> Self:
        """Return the learner itself; raises ValueError if its contexts are class-specific."""
        if not self.supports_new_classes:
            raise ValueError(
                "The context was learned for each class (class_specific=True) and cannot be used for other "
                "classes; fit with class_specific=False to use with_classes."
            )
        return self

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in a step."""
        return self.encoder.work(prompts, self.context)


class CoOp(TuningMethod):
    """Context Optimization (CoOp): learned context vectors in the prompt of a frozen CLIP.

    The prompt of class ``c`` is ``[V_1 ... V_M] name_c.``. The vectors ``V`` are trained to minimize the
    cross-entropy of the scaled cosine similarities.

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        Text whose token embeddings initialize the context. With ``"a photo of a"`` and no training the
        classifier is zero-shot CLIP with the template ``"a photo of a {}."``. Underscores are read as spaces.
        If None, the vectors are drawn from a normal distribution with standard deviation 0.02, separately for
        each class if the contexts are class-specific.
    n_context : int or None, default=None
        Number of context vectors M. If None, it is the number of tokens of ``context_init``, or 16 for a
        random context. If ``context_init`` is a text, ``n_context`` must be None or its number of tokens.
    class_token_position : {"end", "middle", "front"}, default="end"
        Position of the class name relative to the context.
    template : str, default="{}."
        Template of the class name, whose words are not trained. ``"{}, a type of pet."`` with the default
        context starts as zero-shot CLIP with ``"a photo of a {}, a type of pet."``. Words before the name
        follow the context. Other values of ``class_token_position`` require the default template.
    class_specific : bool, default=False
        Whether to learn one context for each class. ``with_classes`` and ``regularizer="dor"`` then raise an
        error, because other classes and outliers have no context.
    text_chunk_size : int or "auto", default="auto"
        Number of prompts encoded at once. Smaller values reduce the memory of a step, but prompts in several
        chunks are encoded twice. ``"auto"`` limits the memory kept for the backward pass to half a GiB or, if
        larger on CUDA, to a quarter of the free memory.

    Notes
    -----
    The original recipe, 200 epochs with batches of 32, is that of the authors' base-to-new script, which
    starts from the words ``"a photo of a"``; on ImageNet they train for 50 epochs. ``recipe="dor"`` starts
    from 16 random vectors, as far as the published code of the authors of DOR shows. ``recipe="fast"``
    has a learning rate of 0.03 for words and of 0.1 for random vectors.

    References
    ----------
    .. [1] K. Zhou, J. Yang, C. C. Loy, Z. Liu, "Learning to Prompt for Vision-Language Models",
       IJCV 2022, arXiv:2109.01134.

    Examples
    --------
    >>> from clipcal.methods import CoOp
    >>> CoOp(context_init=None, n_context=8)
    CoOp(context_init=None, n_context=8)
    """

    name: ClassVar[str] = "coop"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {
            "original": Recipe(),
            "dor": Recipe(method_params=MappingProxyType({"context_init": None, "n_context": 16})),
            "fast": FAST,
        }
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "context_init": [str, None],
        "n_context": [Interval(Integral, 1, None, closed="left"), None],
        "class_token_position": [StrOptions({"end", "middle", "front"})],
        "template": [str],
        "class_specific": ["boolean"],
        "text_chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        context_init: str | None = "a photo of a",
        *,
        n_context: int | None = None,
        class_token_position: str = "end",
        template: str = "{}.",
        class_specific: bool = False,
        text_chunk_size: int | str = "auto",
    ) -> None:
        self.context_init = context_init
        self.n_context = n_context
        self.class_token_position = class_token_position
        self.template = template
        self.class_specific = class_specific
        self.text_chunk_size = text_chunk_size

    @property
    def default_recipe(self) -> str:
        """``"original"`` for class-specific contexts, for which no classes can be held out."""
        return "original" if self.class_specific else super().default_recipe

    def recipe(self, name: str) -> Recipe:
        """Return the training settings of a recipe; ``"fast"`` has a larger rate for random contexts.

        Parameters
        ----------
        name : str
            Key of `recipes`.

        Returns
        -------
        recipe : Recipe
            The settings.

        Raises
        ------
        KeyError
            If there is no recipe of this name.
        """
        recipe = super().recipe(name)
        if recipe == FAST and self.context_init is None:
            return recipe.with_values(learning_rate=FAST_RATE_OF_RANDOM_CONTEXTS)
        return recipe

    def learner(self, problem: TuningProblem) -> ContextLearner:
        """Return a learner with the initial context.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws a random context.

        Returns
        -------
        learner : ContextLearner
            The learner.

        Raises
        ------
        ClassNameError
            If the context is too long to be followed by a class name.
        ValueError
            If a parameter is out of range, ``n_context`` contradicts ``context_init``, or ``template``
            contradicts ``class_token_position``.
        """
        validate_parameters(self)
        backbone = problem.backbone
        if self.template != "{}." and self.class_token_position != "end":
            raise ValueError(
                f"template={self.template!r} needs class_token_position='end', but it is "
                f"{self.class_token_position!r}; use the default of one of the two."
            )
        # Underscores are spaces, as in class names and in the published trainers.
        words = None if self.context_init is None else self.context_init.replace("_", " ")
        shape = (len(problem.names),) if self.class_specific else ()
        if words is None:
            n_context = 16 if self.n_context is None else self.n_context
            check_room(backbone, n_context)
            context = self._random_context(backbone, (*shape, n_context), problem.generator)
        else:
            context = self._word_context(backbone, words).expand(*shape, -1, -1)
            n_context = context.shape[-2]
            check_room(backbone, n_context)
        # "X" is always a single token of CLIP's vocabulary.
        placeholder = words or " ".join(["X"] * n_context)
        return ContextLearner(
            backbone,
            context,
            placeholder=placeholder,
            template=self.template,
            class_token_position=self.class_token_position,
            text_chunk_size=self.text_chunk_size,
        )

    def _word_context(self, backbone: Backbone, text: str) -> Tensor:
        tokens = backbone.tokenize([text])
        n_marks = int(backbone.text_lengths(backbone.tokenize([""]))[0])
        n_context = int(backbone.text_lengths(tokens)[0]) - n_marks
        if n_context < 1:
            raise ValueError(
                f"context_init={self.context_init!r} contains no words; use None for a random context."
            )
        if self.n_context not in (None, n_context):
            raise ValueError(
                f"context_init={self.context_init!r} has {n_context} tokens, but n_context={self.n_context}; "
                "use n_context=None, or context_init=None for a random context."
            )
        start = backbone.n_start_tokens
        return backbone.embed_tokens(tokens)[0, start : start + n_context].detach().float()

    def _random_context(
        self, backbone: Backbone, shape: tuple[int, ...], generator: torch.Generator
    ) -> Tensor:
        # Drawn on the CPU, so that a seed gives the same context on every device.
        context = torch.randn((*shape, backbone.token_dim), generator=generator)
        return 0.02 * context.to(backbone.device)


def check_room(backbone: Backbone, n_context: int) -> None:
    """Raise a ClassNameError if a context leaves no room for a class name."""
    if backbone.n_start_tokens + n_context + 3 > backbone.context_length:
        raise ClassNameError(
            f"A context of {n_context} tokens leaves no room for a class name in the "
            f"{backbone.context_length} positions of {backbone.name!r}; choose a smaller n_context."
        )


class KgCoOp(CoOp):
    """CoOp with a regularizer that keeps class features near the zero-shot features (``"kg"``).

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        See :class:`CoOp`.
    n_context : int or None, default=None
        See :class:`CoOp`.
    class_token_position : {"end", "middle", "front"}, default="end"
        See :class:`CoOp`.
    template : str, default="{}."
        See :class:`CoOp`.
    class_specific : bool, default=False
        See :class:`CoOp`.
    text_chunk_size : int or "auto", default="auto"
        See :class:`CoOp`.

    Notes
    -----
    The original recipe is 100 epochs with batches of 128. ``recipe="dor"`` is 200 epochs with batches of 32,
    as far as the published code of the authors of DOR shows.

    References
    ----------
    .. [1] H. Yao, R. Zhang, C. Xu, "Visual-Language Prompt Tuning with Knowledge-guided Context
       Optimization", CVPR 2023, arXiv:2303.13283.

    Examples
    --------
    >>> from clipcal.methods import KgCoOp
    >>> KgCoOp().regularizers()
    [AnchorRegularizer()]
    """

    name: ClassVar[str] = "kgcoop"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {"original": Recipe(max_epochs=100, batch_size=128), "dor": Recipe(), "fast": FAST}
    )

    def regularizers(self) -> list[Regularizer]:
        """Return an :class:`AnchorRegularizer` with the default weight.

        Returns
        -------
        regularizers : list of Regularizer
            The regularizer.
        """
        return [AnchorRegularizer()]
