"""Regularizer of the mean and the variance of margins between logits."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from clipcal._compat import Interval, validate_parameters
from clipcal.regularizers._base import Regularizer
from clipcal.training import Batch, Forward, Learner, LossTerm, TuningProblem

__all__ = ["MarginRegularizer"]


class MarginTerm(LossTerm):
    """Loss term of :class:`MarginRegularizer`."""

    name = "margin"

    def __init__(self, weight: float, variance_weight: float) -> None:
        self.weight = weight
        self.variance_weight = variance_weight

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        targets = batch.targets[:, None]
        others = out.logits.scatter(1, targets, -torch.inf).amax(dim=1)
        margins = out.logits.gather(1, targets)[:, 0] - others
        variance = batch.average((margins - batch.average(margins)).square())
        return self.variance_weight * variance - self.weight * batch.mean(margins)


class MarginRegularizer(Regularizer):
    """Enlarge the margins between logits, and reduce their variance.

    The margin of a sample of class ``y`` is ``m = z_y - max_{c != y} z_c``, where ``z`` are the logits,
    including the logit scale. The loss term is ``-weight * mean(m) + variance_weight * var(m)``, with the
    mean and the variance over the samples of a batch.

    Parameters
    ----------
    weight : float, default=0.1
        Factor of the mean, at least 0.
    variance_weight : float, default=0.01
        Factor of the variance, at least 0.

    See Also
    --------
    MarginMomentRegularizer : The sum with the regularizer of text features.

    Notes
    -----
    The mean increases the confidence on the training classes, and only the variance limits it. In a batch of
    one sample the variance is zero. The defaults are those of the published code.

    References
    ----------
    .. [1] A. Sharifdeen et al., "Towards Calibrating Prompt Tuning of Vision-Language Models", CVPR 2026,
       arXiv:2602.19024.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.regularizers import MarginRegularizer
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> margin = MarginRegularizer(variance_weight=0.05)
    >>> clf = PromptTunedCLIPClassifier("mini", regularizer=margin, max_epochs=1, random_state=0).fit(X, y)
    >>> "margin" in clf.history_[0]
    True
    """

    name = "margin"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
        "variance_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, weight: float = 0.1, *, variance_weight: float = 0.01) -> None:
        self.weight = weight
        self.variance_weight = variance_weight

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Return the loss term."""
        validate_parameters(self)
        return MarginTerm(float(self.weight), float(self.variance_weight))
