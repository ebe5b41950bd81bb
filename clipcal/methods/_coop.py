"""CoOp: the words before the class name become learned vectors."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clipcal._compat import Interval, StrOptions, validate_parameters
from clipcal.backbones import Backbone, product_size
from clipcal.exceptions import ClassNameError
from clipcal.methods._base import Prompts, TextLearner, TuningMethod
from clipcal.methods._chunks import chunks_of, encode_in_chunks, memory_budget

__all__ = ["CoOp", "ContextLearner", "KgCoOp"]


class ContextLearner(TextLearner):
    """Context vectors between the start marker and the class name (or around it, or after it).

    Parameters
    ----------
    backbone : Backbone
    context : Tensor, shape (n_context, token_dim) or (n_classes, n_context, token_dim)
        Initial context, shared or one for each class.
    placeholder : str
        Text of exactly ``n_context`` tokens that holds the context's place in tokenisation.
    class_token_position : {"end", "middle", "front"}
        Where the class name stands.
    text_chunk_size : int or "auto"
        At most so many prompts are encoded at once; see :func:`encode_in_chunks`.
    """

    def __init__(
        self,
        backbone: Backbone,
        context: Tensor,
        *,
        placeholder: str,
        class_token_position: str,
        text_chunk_size: int | str,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.context = nn.Parameter(context.detach().float().clone())
        self.placeholder = placeholder
        self.class_token_position = class_token_position
        self.text_chunk_size = text_chunk_size
        # Asked once: what the first step leaves allocated must not shrink the chunks of the next.
        self.memory_budget = memory_budget(backbone.device)

    @property
    def supports_new_classes(self) -> bool:  # type: ignore[override]
        """Whether the context is shared, so that it serves any name."""
        return self.context.ndim == 2

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Tokenise ``placeholder name.`` for each name."""
        tokens = self.backbone.tokenize([f"{self.placeholder} {name}." for name in names])
        lengths = self.backbone.text_lengths(tokens).cpu()
        if self.class_token_position == "end":
            return Prompts(tokens, lengths)
        return Prompts(tokens, lengths, self._order(tokens, names))

    def _order(self, tokens: Tensor, names: Sequence[str]) -> Tensor:
        """Return which token comes at each position once the name has moved forward."""
        start, n_context = self.backbone.n_start_tokens, self.context.shape[-2]
        n_before = n_context // 2 if self.class_token_position == "middle" else 0
        n_marks = int(self.backbone.text_lengths(self.backbone.tokenize([""]))[0])
        stop = self.backbone.tokenize(["."])[0, start]
        sentences = self.backbone.tokenize([f"{name}." for name in names])
        lengths = self.backbone.text_lengths(sentences) - n_marks
        order = torch.arange(tokens.shape[1]).repeat(len(names), 1)
        for row, length in enumerate(lengths.tolist()):
            # A name that ends in punctuation may share its last token with the full stop.
            n_name = length - int(sentences[row, start + length - 1] == stop)
            first = start + n_before
            order[row, first : first + n_name] = torch.arange(start + n_context, start + n_context + n_name)
            order[row, first + n_name : start + n_context + n_name] = torch.arange(first, start + n_context)
        return order.to(tokens.device)

    @property
    def n_shared(self) -> int:
        """The number of leading positions that hold the same vectors in every prompt."""
        if not self.supports_new_classes:
            return self.backbone.n_start_tokens
        n_before = {"end": len(self.context), "middle": len(self.context) // 2, "front": 0}
        return self.backbone.n_start_tokens + n_before[self.class_token_position]

    def work(self, prompts: Prompts) -> float:
        """Return the multiply-adds of the largest matrix product in a pass."""
        n_rows = self.n_shared + int(self._computed(prompts).sum())
        return product_size(n_rows, self.backbone.token_dim)

    def _computed(self, prompts: Prompts) -> Tensor:
        """Return how many tokens are computed for each prompt."""
        if getattr(self.backbone, "shares_prefix", False):
            return prompts.lengths - self.n_shared
        return torch.full((len(prompts),), prompts.tokens.shape[1])

    def forward(self, prompts: Prompts) -> Tensor:
        """Encode prompts with the present context, in as many chunks as memory asks for."""
        shares = getattr(self.backbone, "shares_prefix", False)
        lengths = self._computed(prompts)
        cost = getattr(self.backbone, "text_bytes_per_token", None)
        chunks = chunks_of(lengths, self.text_chunk_size, cost=cost, budget=self.memory_budget)

        def encode(rows: slice, context: Tensor) -> Tensor:
            part = prompts if len(chunks) == 1 else prompts.take(rows)
            context = context if context.ndim == 2 else context[rows]
            features = (self._packed if shares else self._padded)(part, context)
            return nn.functional.normalize(features.float(), dim=-1)

        return encode_in_chunks(encode, chunks, self.context)

    def _packed(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Encode what the prompts share once, and each name without padding."""
        packing = prompts.packing(self.n_shared)
        if prompts.order is None and context.ndim == 2:
            start = self.backbone.embed_tokens(prompts.tokens[:1, : self.backbone.n_start_tokens])[0]
            prefix = torch.cat([start, context])
            names = prompts.tokens[packing.names, packing.positions]
            suffixes = self.backbone.embed_tokens(names[None])[0]
        else:
            embeddings = self._embeddings(prompts, context)
            prefix, suffixes = embeddings[0, : self.n_shared], embeddings[packing.names, packing.positions]
        return self.backbone.encode_suffixes(prefix, suffixes, packing)  # type: ignore[attr-defined]

    def _padded(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Encode every prompt by itself, padded to the longest."""
        return self.backbone.encode_text(self._embeddings(prompts, context), prompts.tokens)

    def _embeddings(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Put the context into the prompts' token embeddings (n_prompts, length, token_dim)."""
        start = self.backbone.n_start_tokens
        end = start + context.shape[-2]
        embeddings = self.backbone.embed_tokens(prompts.tokens)
        embeddings = torch.cat(
            [embeddings[:, :start], context.expand(len(prompts), -1, -1), embeddings[:, end:]], dim=1
        )
        if prompts.order is not None:
            embeddings = embeddings.gather(1, prompts.order[..., None].expand_as(embeddings))
        return embeddings


class CoOp(TuningMethod):
    """Context optimization: learn the prompt's words, keep the towers.

    The prompt of class ``c`` is ``[V_1 ... V_M] name_c.``; cross-entropy of the cosine logits is
    minimised over the vectors ``V``.

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        Text whose token embeddings the context starts from; with ``"a photo of a"`` and no training
        the classifier is zero-shot CLIP with the template ``"a photo of a {}."``. Underscores are read as
        spaces. ``None`` draws normal vectors of standard deviation 0.02, for each class its own if the
        contexts are class-specific.
    n_context : int or None, default=None
        Number of context vectors M. ``None`` means as many as ``context_init`` has tokens, or 16 for
        a random start. With a text it must be the text's number of tokens, if given.
    class_token_position : {"end", "middle", "front"}, default="end"
        Where the class name stands relative to the context.
    class_specific : bool, default=False
        Learn one context for each class. Such a classifier knows no other classes, and outliers have
        no context, so ``with_classes`` and ``regularizer="dor"`` raise.
    text_chunk_size : int or "auto", default="auto"
        Prompts encoded at once; bounds the memory of a step, at the price of encoding twice where not all
        fit. ``"auto"`` takes as many as leave about half a GiB behind for the backward pass, on CUDA a
        quarter of the free memory if that is more.

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

    outlier_weight: ClassVar[float] = 8.0
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "context_init": [str, None],
        "n_context": [Interval(Integral, 1, None, closed="left"), None],
        "class_token_position": [StrOptions({"end", "middle", "front"})],
        "class_specific": ["boolean"],
        "text_chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        context_init: str | None = "a photo of a",
        *,
        n_context: int | None = None,
        class_token_position: str = "end",
        class_specific: bool = False,
        text_chunk_size: int | str = "auto",
    ) -> None:
        self.context_init = context_init
        self.n_context = n_context
        self.class_token_position = class_token_position
        self.class_specific = class_specific
        self.text_chunk_size = text_chunk_size

    def learner(self, backbone: Backbone, n_classes: int, generator: torch.Generator) -> ContextLearner:
        """Return a context at its start value.

        Parameters
        ----------
        backbone : Backbone
            The CLIP whose text tower reads the context.
        n_classes : int
            How many contexts there are, if they are class-specific.
        generator : torch.Generator
            Source of a random start.

        Returns
        -------
        learner : ContextLearner
            The learnable part.

        Raises
        ------
        ClassNameError
            If the context leaves no room for a name.
        ValueError
            If a parameter is out of range, or ``n_context`` contradicts ``context_init``.
        """
        validate_parameters(self)
        # As in class names, and as the published trainers read it.
        words = None if self.context_init is None else self.context_init.replace("_", " ")
        shape = (n_classes,) if self.class_specific else ()
        if words is None:
            context = self._random_context(backbone, shape, generator)
        else:
            context = self._word_context(backbone, words).expand(*shape, -1, -1)
        n_context = context.shape[-2]
        if backbone.n_start_tokens + n_context + 3 > backbone.context_length:
            raise ClassNameError(
                f"A context of {n_context} tokens leaves no room for a class name in the "
                f"{backbone.context_length} positions of {backbone.name!r}; choose a smaller n_context."
            )
        # An "X" is one token of CLIP's vocabulary, whatever follows it.
        placeholder = words or " ".join(["X"] * n_context)
        return ContextLearner(
            backbone,
            context,
            placeholder=placeholder,
            class_token_position=self.class_token_position,
            text_chunk_size=self.text_chunk_size,
        )

    def _word_context(self, backbone: Backbone, text: str) -> Tensor:
        tokens = backbone.tokenize([text])
        n_marks = int(backbone.text_lengths(backbone.tokenize([""]))[0])
        n_context = int(backbone.text_lengths(tokens)[0]) - n_marks
        if n_context < 1:
            raise ValueError(
                f"context_init={self.context_init!r} holds no words; use None for a random context."
            )
        if self.n_context not in (None, n_context):
            raise ValueError(
                f"context_init={self.context_init!r} has {n_context} tokens, but n_context={self.n_context}; "
                "leave n_context=None, or set context_init=None for a random context."
            )
        start = backbone.n_start_tokens
        return backbone.embed_tokens(tokens)[0, start : start + n_context].detach().float()

    def _random_context(
        self, backbone: Backbone, shape: tuple[int, ...], generator: torch.Generator
    ) -> Tensor:
        shape = (*shape, 16 if self.n_context is None else self.n_context, backbone.token_dim)
        # Drawn on the CPU, so that a seed means the same context on every device.
        return 0.02 * torch.randn(shape, generator=generator).to(backbone.device)


class KgCoOp(CoOp):
    """CoOp whose class features are held near the zero-shot ones (``regularizer="kg"``).

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        See :class:`CoOp`.
    n_context : int or None, default=None
        See :class:`CoOp`.
    class_token_position : {"end", "middle", "front"}, default="end"
        See :class:`CoOp`.
    class_specific : bool, default=False
        See :class:`CoOp`.
    text_chunk_size : int or "auto", default="auto"
        See :class:`CoOp`.

    References
    ----------
    .. [1] H. Yao, R. Zhang, C. Xu, "Visual-Language Prompt Tuning with Knowledge-guided Context
       Optimization", CVPR 2023, arXiv:2303.13283.

    Examples
    --------
    >>> from clipcal.methods import KgCoOp
    >>> KgCoOp().default_regularizer
    'kg'
    """

    default_regularizer: ClassVar[str | None] = "kg"
    outlier_weight: ClassVar[float] = 2.0
