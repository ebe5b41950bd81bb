"""PromptSRC, which keeps prompts in both towers near the frozen CLIP and averages them over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipcal._compat import Interval
from clipcal.methods._ivlp import IVLP, BothTowersLearner
from clipcal.training import Batch, Forward, Recipe, TuningProblem

__all__ = ["PromptSRC", "SelfRegulatedLearner"]

# Mean and standard deviation of the weights of epochs, as parts of the number of epochs: those of the
# published 20 epochs are 15 and 1.
_MEAN, _STD = 15 / 20, 1 / 20


class SelfRegulatedLearner(BothTowersLearner):
    """Learner of prompts in both towers, with features of the frozen CLIP as targets.

    Parameters
    ----------
    teacher : Tensor of shape (n_classes, embedding_dim), or None
        Text features of the frozen CLIP; None if the learner is used for predictions only.
    loss_factors : mapping of str to float
        Factors of the losses.
    mean, std : float or None
        Mean and standard deviation of the weights of epochs; see :class:`PromptSRC`.
    **prompts
        Parameters of :class:`BothTowersLearner`.
    """

    def __init__(
        self,
        teacher: Tensor | None,
        *,
        loss_factors: Mapping[str, float],
        mean: float | None,
        std: float | None,
        **prompts: Any,
    ) -> None:
        super().__init__(**prompts)
        self.register_buffer("teacher", teacher, persistent=False)
        self.loss_factors = loss_factors
        self.mean = mean
        self.std = std
        self.log_weights: list[float] = []
        self.average: dict[str, Tensor] = {}

    def losses(self, out: Forward, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, and distances of features and logits from those of the frozen CLIP."""
        teacher: Any = self.teacher
        frozen = F.log_softmax(self.logit_scale * batch.embeddings @ teacher.T, dim=1)
        tuned = F.log_softmax(out.logits, dim=1)
        divergence = F.kl_div(tuned, frozen, log_target=True, reduction="none").mean(dim=1)
        return {
            **super().losses(out, batch),
            "text_consistency": (out.texts - teacher).abs().mean(),
            "image_consistency": batch.mean((out.images - batch.embeddings).abs().mean(dim=1)),
            "logit_consistency": batch.mean(divergence),
        }

    @torch.no_grad()
    def end_epoch(self, epoch: int, n_epochs: int) -> None:
        """Add the current prompts to the average, with the weight of the epoch."""
        mean = _MEAN * n_epochs if self.mean is None else self.mean
        std = _STD * n_epochs if self.std is None else self.std
        self.log_weights.append(-((epoch + 1 - mean) ** 2) / (2 * std**2))
        # The weight relative to those of all epochs so far. Weights of early epochs are too small for floats.
        top = max(self.log_weights)
        share = math.exp(self.log_weights[-1] - top) / sum(math.exp(w - top) for w in self.log_weights)
        for name, value in self.named_parameters():
            before = self.average.get(name, torch.zeros_like(value))
            self.average[name] = before + share * (value - before)

    @torch.no_grad()
    def finish(self) -> None:
        """Replace the prompts by their average."""
        for name, value in self.named_parameters():
            value.copy_(self.average.get(name, value))


class PromptSRC(IVLP):
    """Self-regulating prompts (PromptSRC): prompts in both towers that stay near the frozen CLIP.

    The prompts are those of :class:`IVLP`. Let ``w_c``, ``f_i`` and ``z_i`` be the normalized text and image
    features and the logits, and ``w0_c``, ``f0_i`` and ``z0_i`` those of the frozen CLIP for the same crops,
    where ``w0_c`` is an ensemble of templates. With d features, C classes and B images, the loss is [1]_

    ``CE + a_t mean_cj |w_cj - w0_cj| + a_v mean_ij |f_ij - f0_ij| + sum_i KL(p0_i || p_i) / (B C)``,

    where ``p_i`` and ``p0_i`` are the softmax of ``z_i`` and ``z0_i``. The result is a weighted average of
    the prompts after each epoch, with the weights of a normal distribution over the epochs.

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        See :class:`IVLP`.
    n_context : int, default=4
        See :class:`IVLP`.
    depth : int or None, default=None
        See :class:`IVLP`.
    n_visual_prompts : int, default=4
        See :class:`IVLP`.
    visual_depth : int or None, default=None
        See :class:`IVLP`.
    template : str, default="{}."
        Template of the class name in the tuned prompts; see :class:`IVLP`.
    teacher_template : str or sequence of str, default="promptsrc-60"
        Templates of the text features of the frozen CLIP; see :func:`clipcal.text.find_templates`.
        Features are averaged before normalization.
    text_weight : float, default=25.0
        Weight ``a_t``, at least 0.
    image_weight : float, default=10.0
        Weight ``a_v``, at least 0.
    average_mean : float or None, default=None
        Epoch with the largest weight in the average, counted from 1. If None, it is three quarters of the
        number of epochs, 15 of 20 as published.
    average_std : float or None, default=None
        Standard deviation of the weights, in epochs, at least 0.001. If None, it is a twentieth of the number
        of epochs, 1 of 20 as published.
    text_chunk_size : int or "auto", default="auto"
        See :class:`CoOp`.
    activation_checkpointing : bool, default=False
        See :class:`MaPLe`.

    Notes
    -----
    The method needs images instead of embeddings; see :class:`MaPLe`. If training is stopped early, the
    result is the average of the epochs so far. ``history_`` contains the three distances with their weights
    as ``"text_consistency"``, ``"image_consistency"`` and ``"logit_consistency"``.

    The original recipe, for new classes, is 20 epochs with batches of 4 and a learning rate of 0.0025. The
    authors of DOR, as far as their published code shows, and ``recipe="dor"``, use the settings for training
    classes only: 50 epochs, mean and standard deviation 30, which gives all epochs nearly equal weights, and
    all 80 templates.

    The published code also averages the frozen weights of CLIP, which only rounds them.

    References
    ----------
    .. [1] M. U. Khattak, S. T. Wasim, M. Naseer, S. Khan, M.-H. Yang, F. S. Khan, "Self-regulating Prompts:
       Foundational Model Adaptation without Forgetting", ICCV 2023, arXiv:2307.06948.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier, make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", method="promptsrc", max_epochs=2, random_state=0).fit(X, y)
    >>> [name for name in clf.history_[0] if name.endswith("consistency")]
    ['text_consistency', 'image_consistency', 'logit_consistency']
    """

    name: ClassVar[str] = "promptsrc"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {
            "original": IVLP.recipes["original"],
            "dor": IVLP.recipes["original"].with_values(
                max_epochs=50,
                method_params=MappingProxyType(
                    {"average_mean": 30, "average_std": 30, "teacher_template": "imagenet-80"}
                ),
            ),
        }
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **IVLP._parameter_constraints,
        "teacher_template": [str, "array-like"],
        "text_weight": [Interval(Real, 0, None, closed="left")],
        "image_weight": [Interval(Real, 0, None, closed="left")],
        "average_mean": [Interval(Real, None, None, closed="neither"), None],
        "average_std": [Interval(Real, 1e-3, None, closed="left"), None],
    }

    def __init__(
        self,
        context_init: str | None = "a photo of a",
        *,
        n_context: int = 4,
        depth: int | None = None,
        n_visual_prompts: int = 4,
        visual_depth: int | None = None,
        template: str = "{}.",
        teacher_template: str | Sequence[str] = "promptsrc-60",
        text_weight: float = 25.0,
        image_weight: float = 10.0,
        average_mean: float | None = None,
        average_std: float | None = None,
        text_chunk_size: int | str = "auto",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            context_init,
            n_context=n_context,
            depth=depth,
            n_visual_prompts=n_visual_prompts,
            visual_depth=visual_depth,
            template=template,
            text_chunk_size=text_chunk_size,
            activation_checkpointing=activation_checkpointing,
        )
        self.teacher_template = teacher_template
        self.text_weight = text_weight
        self.image_weight = image_weight
        self.average_mean = average_mean
        self.average_std = average_std

    def learner(self, problem: TuningProblem) -> SelfRegulatedLearner:
        """Return a learner with initial prompts, and the targets of the frozen CLIP.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws random prompts.

        Returns
        -------
        learner : SelfRegulatedLearner
            The learner.

        Raises
        ------
        BackboneError
            If one of the towers does not support deep prompts.
        ClassNameError
            If the context is too long to be followed by a class name, or a template is invalid.
        ValueError
            If a parameter is out of range, a tower has fewer blocks than its depth, or ``context_init`` has
            fewer than ``n_context`` tokens.
        """
        prompts = self._prompts(problem)
        teacher = None
        if problem.data is not None:
            teacher = F.normalize(
                problem.zero_shot(problem.names, self.teacher_template, normalize=False), dim=-1
            )
        return SelfRegulatedLearner(
            teacher,
            loss_factors={"text_consistency": self.text_weight, "image_consistency": self.image_weight},
            mean=self.average_mean,
            std=self.average_std,
            **prompts,
        )
