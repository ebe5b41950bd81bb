"""Regularizers that relate the range of the logits of each sample to that of its zero-shot logits."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from clipcal._compat import Interval, validate_parameters
from clipcal._logit_range import match_range
from clipcal.regularizers._base import Regularizer
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Batch, Forward, Learner, LossTerm, TuningProblem

__all__ = ["LogitRangeRegularizer", "ZeroShotNormRegularizer"]

# A smaller range of the logits of a sample counts as this one, which bounds the gradient of ZS-Norm.
_SMALLEST_RANGE = 1e-6


class _ZeroShotRangeTerm(LossTerm):
    """Loss term that compares logits with the smallest and the highest zero-shot logit of each sample."""

    def __init__(self, weight: float, problem: TuningProblem, template: str | Sequence[str]) -> None:
        self.weight = weight
        self.texts = problem.backbone.logit_scale * problem.zero_shot(problem.names, template)

    def zero_shot_range(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the smallest and the highest zero-shot logit of each sample, both of shape (n, 1)."""
        return _ends(batch.embeddings @ self.texts.T)


def _ends(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the highest logit of each sample, both of shape (n, 1)."""
    return logits.amin(dim=1, keepdim=True), logits.amax(dim=1, keepdim=True)


class _ZeroShotNormTerm(_ZeroShotRangeTerm):
    name = "zs-norm"
    replaces = "cross_entropy"

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        ends, zero_shot_ends = _ends(out.logits), self.zero_shot_range(batch)
        scaled = match_range(out.logits, ends, zero_shot_ends, smallest_range=_SMALLEST_RANGE)
        return self.weight * batch.mean(F.cross_entropy(scaled, batch.targets, reduction="none"))


class _LogitRangeTerm(_ZeroShotRangeTerm):
    name = "logit-range"

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        low, high = self.zero_shot_range(batch)
        outside = (out.logits - high).relu() + (low - out.logits).relu()
        return self.weight * batch.mean(outside.mean(dim=1))


class ZeroShotNormRegularizer(Regularizer):
    """Cross-entropy of logits that are scaled to the range of the zero-shot logits (ZS-Norm).

    It replaces the cross-entropy. The logits ``z_i`` of a sample are mapped linearly to

    ``z'_i = (z_i - min z_i) / (max z_i - min z_i) * (max z0_i - min z0_i) + min z0_i``

    where ``z0_i`` are its zero-shot logits, and the loss is the cross-entropy of ``z'``.

    Parameters
    ----------
    weight : float, default=1.0
        Factor of the cross-entropy, at least 0.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features, the name of a known template, or a sequence of these, which forms
        an ensemble; see :func:`clipcal.text.find_templates`.

    Notes
    -----
    As in the published code, the logits are scaled in training only: predictions use the logits of the
    method. Their range is thus not limited by the loss, which does not depend on it. The calibrator
    :class:`~clipcal.calibration.SampleAdaptiveLogitScaling` (``"sals"``) scales the logits in predictions.
    The gradient includes those of ``min z_i`` and ``max z_i``, as in the published code. It is inversely
    proportional to ``max z_i - min z_i``, which is therefore at least 1e-6 in the denominator.

    References
    ----------
    .. [1] B. Murugesan, J. Silva-Rodríguez, I. Ben Ayed, J. Dolz, "Robust Calibration of Large
       Vision-Language Adapters", ECCV 2024, arXiv:2407.13588.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", regularizer="zs-norm", max_epochs=1, random_state=0).fit(X, y)
    >>> sorted(clf.history_[0])
    ['accuracy', 'epoch', 'learning_rate', 'loss', 'zs-norm']
    """

    name = "zs-norm"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
        "template": [str, "array-like"],
    }

    def __init__(self, weight: float = 1.0, *, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> None:
        self.weight = weight
        self.template = template

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Encode the zero-shot features and return the loss term."""
        validate_parameters(self)
        return _ZeroShotNormTerm(float(self.weight), problem, self.template)


class LogitRangeRegularizer(Regularizer):
    """Penalty on logits outside the range of the zero-shot logits of the sample.

    The loss term is ``weight * mean_ic (max(0, z_ic - max_k z0_ik) + max(0, min_k z0_ik - z_ic))``, the mean
    over the samples and classes, where ``z`` are the logits and ``z0`` the zero-shot logits, both including
    the logit scale.

    Parameters
    ----------
    weight : float, default=10.0
        Factor of the loss term, at least 0.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features, the name of a known template, or a sequence of these, which forms
        an ensemble; see :func:`clipcal.text.find_templates`.

    Notes
    -----
    The default weight is the one in the published trainer for CoOp, which uses one template per data set.

    If the tuned prompts start as the zero-shot prompts, the highest and the smallest logit of each sample
    start at the ends of the range. Whether they have a gradient in the first step then depends on rounding.

    References
    ----------
    .. [1] B. Murugesan, J. Silva-Rodríguez, I. Ben Ayed, J. Dolz, "Robust Calibration of Large
       Vision-Language Adapters", ECCV 2024, arXiv:2407.13588, where it is called "Penalty".

    Examples
    --------
    The default context of CoOp starts as zero-shot CLIP, where the term is zero.

    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", regularizer="logit-range", max_epochs=1, random_state=0)
    >>> round(clf.fit(X, y).history_[0]["logit-range"], 2)
    0.0
    """

    name = "logit-range"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
        "template": [str, "array-like"],
    }

    def __init__(self, weight: float = 10.0, *, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> None:
        self.weight = weight
        self.template = template

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Encode the zero-shot features and return the loss term."""
        validate_parameters(self)
        return _LogitRangeTerm(float(self.weight), problem, self.template)
