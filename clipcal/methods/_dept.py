"""DePT, which adds a linear classifier of the training classes to another method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import skip_init

from clipcal._caller import warn_caller
from clipcal._compat import HasMethods, Interval, StrOptions, validate_parameters
from clipcal._components import NamedComponents, named_component
from clipcal.methods._base import TuningMethod
from clipcal.methods._class_rows import check_distinct
from clipcal.methods._cocoop import CoCoOp
from clipcal.methods._coop import ContextLearner, CoOp, KgCoOp
from clipcal.methods._maple import MaPLe
from clipcal.regularizers import AnchorRegularizer, Regularizer
from clipcal.text import name_key
from clipcal.training import (
    Batch,
    EmbeddedData,
    Forward,
    Learner,
    Prompts,
    Recipe,
    TrainingData,
    TuningProblem,
)

__all__ = ["DePT", "DecoupledLearner"]

# The base methods of the authors, with their initial contexts.
_BASES: dict[str, Callable[[], TuningMethod]] = {
    "coop": partial(CoOp, None, n_context=16),
    "kgcoop": KgCoOp,
    "cocoop": CoCoOp,
    "maple": MaPLe,
}
# Factor of the learning rate of the new parameters.
_RATE_FACTOR = 6.5
# Embeddings whose length differs from 1 by less than this have been normalized.
_UNIT = 1e-3
# Images whose norms are measured if they are encoded in each step.
_N_MEASURED = 64
# Parts of a learner that DePT replaces, so that the base method must have their defaults.
_REPLACED = (
    "backward",
    "encode_texts",
    "end_epoch",
    "finish",
    "forward",
    "logits",
    "loss_factors",
    "losses",
    "parameter_groups",
)


class DecoupledLearner(Learner):
    """Learner of another method, and of a linear classifier of the training classes.

    Parameters
    ----------
    base : ContextLearner
        Learner of the other method.
    names : sequence of str, length n_classes
        Names of the training classes.
    head : torch.nn.Linear
        Linear classifier of features.
    head_weight : float
        Weight of the classifier in the loss and in predictions.
    norm_range : Tensor of shape (2,), or None
        Lowest and highest norm of the training images, which tell whether they were normalized. None if the
        base method encodes images itself.
    """

    norm_range: Tensor | None

    def __init__(
        self,
        base: ContextLearner,
        names: Sequence[str],
        head: nn.Linear,
        head_weight: float,
        norm_range: Tensor | None,
    ) -> None:
        super().__init__(base.logit_scale)
        self.base = base
        self.names = list(names)
        self.row_of = {name_key(name): row for row, name in enumerate(self.names)}
        self.head = head
        self.head_weight = head_weight
        width = head.in_features
        self.image_scale, self.text_scale = (nn.Parameter(torch.ones(width)) for _ in range(2))
        self.image_shift, self.text_shift = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.loss_factors = {"cross_entropy": 1 - head_weight, "head": head_weight}
        self.register_buffer("norm_range", norm_range)

    @property
    def supports_new_classes(self) -> bool:  # type: ignore[override]
        """Whether the base method supports new classes, and training classes have different names."""
        return self.base.supports_new_classes and len(self.row_of) == len(self.names)

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Tokenize the prompts of names as the base method does."""
        return self.base.prompts(names)

    def encode_images(self, batch: Batch) -> Tensor:
        """Return the image features of the base method without normalization, which the head reads.

        Raises ValueError if embeddings are normalized, but those of the training were not, or the reverse.
        """
        if self.norm_range is not None and not self.training and len(batch.norms):
            _check_scale(batch.norms, self.norm_range)
        return self.base.raw_images(batch)

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Return the text features of the base method."""
        return self.base.encode_texts(prompts, None if images is None else normalize(images, dim=-1))

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return weighted sums of the logits of the base method and of the head, for predictions."""
        similarity = self.base.logits(normalize(images, dim=-1), texts)
        return (1 - self.head_weight) * similarity + self.head_weight * self._of_images(images)

    def _of_images(self, images: Tensor) -> Tensor:
        return self.head(self.image_scale * images + self.image_shift)

    def _of_texts(self, texts: Tensor) -> Tensor:
        return self.head(self.text_scale * texts + self.text_shift)

    def forward(self, batch: Batch, prompts: Prompts, n_classes: int) -> tuple[Forward, Tensor]:
        """Encode a batch and prompts; the features and logits are those of the base method.

        The logits of the head are computed in :meth:`losses`, from text features without normalization.
        """
        raw_images = self.base.raw_images(batch)
        images = normalize(raw_images, dim=-1)
        raw = self.base.raw_texts(prompts, images)
        texts, others = normalize(raw, dim=-1).split([n_classes, len(prompts) - n_classes], dim=-2)
        extra = {"raw_texts": raw[..., :n_classes, :], "raw_images": raw_images}
        return Forward(images, texts, self.base.logits(images, texts), extra), others

    def losses(self, out: Forward, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of the base method, and that of the head for images and their classes."""
        raw, rows = out.extra["raw_texts"], torch.arange(len(batch.targets), device=batch.targets.device)
        own = raw[batch.targets] if raw.ndim == 2 else raw[rows, batch.targets]
        of_head = [
            F.cross_entropy(logits, batch.targets, reduction="none")
            for logits in (self._of_texts(own), self._of_images(out.extra["raw_images"]))
        ]
        return {**super().losses(out, batch), "head": batch.mean(torch.stack(of_head).mean(dim=0))}

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return the parameters of the base method, and the new ones with a higher learning rate."""
        of_base = list(self.base.parameters())
        new = [value for name, value in self.named_parameters() if not name.startswith("base.")]
        return [{"params": of_base}, {"params": new, "rate_factor": _RATE_FACTOR}]

    def for_names(self, names: Sequence[str]) -> Learner:
        """Return a learner for a choice of training classes, or the base method if one class is new.

        Raises
        ------
        ValueError
            If the base method does not support other classes, or training classes share a name.
        """
        base = self.base.for_names(names)
        rows = [self.row_of[key] for key in map(name_key, names) if key in self.row_of]
        if len(rows) < len(names):
            return base
        check_distinct(self.names)
        state = self.state_dict()
        state |= {name: state[name][rows] for name in ("head.weight", "head.bias")}
        # Initial weights would be drawn from the global generator.
        head = skip_init(nn.Linear, self.head.in_features, len(rows))
        chosen = DecoupledLearner(self.base, names, head, self.head_weight, self.norm_range)
        chosen.to(self.head.weight.device)
        chosen.load_state_dict(state)
        return chosen.train(self.training)

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in a step."""
        return max(self.base.work(prompts, batch_size), float(batch_size * self.head.weight.numel()))


class DePT(NamedComponents, TuningMethod):
    """Decoupled prompt tuning (DePT): a linear classifier of the training classes beside another method.

    The other method, the base method, has the unnormalized features ``f`` of an image and ``g_c`` of the
    prompt of class ``c``, and the logits ``z_c = s cos(f, g_c)``. A head ``H`` with one output per training
    class reads both features after a scale and a shift of each entry,

    ``h_img = H(a_img * f + b_img)`` and ``h_txt = H(a_txt * g_y + b_txt)``,

    where ``y`` is the true class. With the weight ``w = head_weight``, the loss is [1]_

    ``(1 - w) CE(z, y) + w (CE(h_txt, y) + CE(h_img, y)) / 2``

    plus the loss terms of regularizers. The head learns what is specific to the training classes, and leaves
    the prompts to what they share with others.

    Predictions for training classes use the logits ``(1 - w) z + w h_img``. New classes have no output of the
    head: if ``with_classes`` gets a class that is not a training class, predictions are those of the base
    method with the tuned prompts.

    Parameters
    ----------
    base : {"coop", "kgcoop", "cocoop", "maple"} or TuningMethod, default="coop"
        The base method. ``"coop"`` starts from 16 random vectors, as in the code of the authors; the others
        have their default parameters. Parameters can be set by name, such as ``method__base__n_context`` in a
        search. An object must learn a context and have the cross-entropy as its only loss.
    head_weight : float, default=0.7
        Weight ``w`` of the head, from 0 (the base method) to 1.

    Attributes
    ----------
    recipes : mapping of str to Recipe
        Training settings, which depend on the base method.
    text_depends_on_image : bool
        Whether the text features of the base method depend on the image.
    needs_pixels : bool
        Whether the base method prompts the image tower, so that images are needed.

    Notes
    -----
    The head reads features without normalization. Pass images, or embeddings in their original scale, which
    are those of ``CLIPImageEncoder(normalize=False)``, for training and prediction. Training on embeddings of
    unit length issues a warning, and predicting from them after training on others, or the reverse, raises a
    ValueError.

    ``history_`` contains both parts of the loss with their weights, ``"cross_entropy"`` and ``"head"``. Loss
    terms read the features and logits ``z`` of the base method, and are added without the weights. The
    accuracy in ``history_`` is that of ``z``, too. A term that replaces the cross-entropy, such as
    ``"label-smoothing"``, gets its weight.

    With KgCoOp as base, the regularizer ``"kg"`` has a weight of 2, as in the code of the authors;
    ``regularizer=AnchorRegularizer(8.0)`` replaces it.

    The original recipe is 10 epochs with batches of 4 and a learning rate of 0.0035, and with CoCoOp as base
    batches of 1 and a learning rate of 0.002. The head, the scales and the shifts have 6.5 times the learning
    rate. The authors use the same settings for the base methods without DePT, with which they compare.

    References
    ----------
    .. [1] J. Zhang, S. Wu, L. Gao, H. T. Shen, J. Song, "DePT: Decoupled Prompt Tuning", CVPR 2024,
       arXiv:2309.07439.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.methods import CoOp, DePT
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> method = DePT(CoOp(context_init=None, n_context=4))
    >>> clf = PromptTunedCLIPClassifier("mini", method=method, max_epochs=1, random_state=0).fit(X, y)
    >>> clf.learned_["base.context"].shape, clf.learned_["head.weight"].shape
    ((4, 128), (14, 128))
    >>> clf.with_classes(["circle", "star"]).predict_proba(X[:5]).shape
    (5, 2)
    """

    name: ClassVar[str] = "dept"
    linear: ClassVar[bool] = False
    _components: ClassVar[tuple[str, ...]] = ("base",)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "base": [StrOptions(set(_BASES)), HasMethods(["learner"])],
        "head_weight": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(self, base: str | TuningMethod = "coop", *, head_weight: float = 0.7) -> None:
        self.base = base
        self.head_weight = head_weight

    def _named_component(self, parameter: str, name: str, params: Mapping[str, Any]) -> TuningMethod:
        return self._method(name)

    @staticmethod
    def _method(base: str | TuningMethod) -> TuningMethod:
        return named_component("base", base, _BASES, example="CoOp(n_context=16, context_init=None)")

    @property
    def text_depends_on_image(self) -> bool:  # type: ignore[override]
        """Whether the text features of the base method depend on the image."""
        return self._method(self.base).text_depends_on_image

    @property
    def needs_pixels(self) -> bool:  # type: ignore[override]
        """Whether the base method prompts the image tower, so that images are needed."""
        return self._method(self.base).needs_pixels

    @property
    def recipes(self) -> Mapping[str, Recipe]:  # type: ignore[override]
        """Training settings of the authors for the base method."""
        recipe = Recipe(max_epochs=10, learning_rate=0.0035, batch_size=4)
        if self.text_depends_on_image:
            recipe = recipe.with_values(learning_rate=0.002, batch_size=1)
        return MappingProxyType({"original": recipe})

    def regularizers(self) -> list[Regularizer]:
        """Return the regularizers of the base method; that of KgCoOp has a weight of 2.

        Returns
        -------
        regularizers : list of Regularizer
            The regularizers.
        """
        return [
            AnchorRegularizer(2.0) if isinstance(own, AnchorRegularizer) else own
            for own in self._method(self.base).regularizers()
        ]

    def learner(self, problem: TuningProblem) -> DecoupledLearner:
        """Return a learner of the base method and of a head with the initial values of ``torch.nn.Linear``.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem.

        Returns
        -------
        learner : DecoupledLearner
            The learner.

        Raises
        ------
        ClassNameError
            If a template or a context of the base method is invalid.
        ValueError
            If a parameter is out of range, or the base method does not learn a context with the cross-entropy
            alone.
        """
        validate_parameters(self)
        method = self._method(self.base)
        base = method.learner(problem)
        if not isinstance(base, ContextLearner) or not _is_simple(type(base)):
            raise ValueError(
                f"DePT needs a base method that learns a context with the cross-entropy as its only loss, "
                f"such as {', '.join(map(repr, _BASES))}; got {type(method).__name__}."
            )
        head = nn.Linear(problem.backbone.embedding_dim, len(problem.names))
        norms = None if method.needs_pixels else _norm_range(problem.data).to(problem.backbone.device)
        return DecoupledLearner(base, problem.names, head, float(self.head_weight), norms)


def _is_simple(kind: type[ContextLearner]) -> bool:
    """Whether a learner has the defaults of what DePT replaces, and gives features before normalization."""

    def has_own(part: str) -> bool:
        return getattr(kind, part) is not getattr(ContextLearner, part)

    return not any(map(has_own, _REPLACED)) and has_own("encode_images") == has_own("raw_images")


def _norm_range(data: TrainingData | None) -> Tensor:
    """Return the lowest and highest norm of training images, and warn if they have been normalized."""
    if data is None:
        return torch.zeros(2)  # a fitted learner is rebuilt, and the range is then loaded
    if not isinstance(data, EmbeddedData):
        return torch.stack(data.first(_N_MEASURED).norms.aminmax())
    if _are_unit(data.norms):
        warn_caller(
            "The embeddings have unit length, but method='dept' trains a linear classifier of features "
            "without normalization; use CLIPImageEncoder(normalize=False), or pass images."
        )
    return torch.stack(data.norms.aminmax())


def _check_scale(norms: Tensor, trained: Tensor) -> None:
    """Raise a ValueError if images are normalized, but those of the training were not, or the reverse.

    A single image may have unit length by chance, so images are only refused if no training image was as
    short.
    """
    if _are_unit(norms) == _are_unit(trained) or (_are_unit(norms) and trained[0] <= 1 <= trained[1]):
        return
    given, expected = (
        "have unit length" if _are_unit(each) else f"have lengths from {each.min():.3g} to {each.max():.3g}"
        for each in (norms, trained)
    )
    raise ValueError(
        f"The embeddings {given}, but those in fit {expected}; method='dept' needs the same scale. Encode "
        "both with CLIPImageEncoder(normalize=False), or pass images."
    )


def _are_unit(norms: Tensor) -> bool:
    return bool(((norms - 1).abs() < _UNIT).all())
