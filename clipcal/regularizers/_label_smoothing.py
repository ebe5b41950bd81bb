"""Label smoothing, which replaces the cross-entropy."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from clipcal._compat import Interval, validate_parameters
from clipcal.regularizers._base import Regularizer
from clipcal.training import Batch, Forward, Learner, LossTerm, TuningProblem

__all__ = ["LabelSmoothingRegularizer"]


class _LabelSmoothingTerm(LossTerm):
    name = "label-smoothing"
    replaces = "cross_entropy"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        losses = F.cross_entropy(out.logits, batch.targets, reduction="none", label_smoothing=self.weight)
        return batch.mean(losses)


class LabelSmoothingRegularizer(Regularizer):
    """Cross-entropy with smoothed labels, in place of the cross-entropy.

    The target distribution of a sample of class ``y`` is ``(1 - weight) * onehot(y) + weight / n_classes``.
    The loss is ``-(1 - weight) * log p_y - weight * mean_c log p_c``, averaged over the samples.

    Parameters
    ----------
    weight : float, default=0.1
        Weight of the uniform distribution in the targets, between 0 and 1. 0 is the plain cross-entropy.

    Notes
    -----
    The default is that of [1]_, who trained a classifier of ImageNet from scratch. It was not chosen for
    prompt tuning.

    References
    ----------
    .. [1] C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception Architecture for
       Computer Vision", CVPR 2016, arXiv:1512.00567, section 7.

    Examples
    --------
    The loss is listed in the history under its own name, in place of ``"cross_entropy"``.

    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.regularizers import LabelSmoothingRegularizer
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> smoothing = LabelSmoothingRegularizer(weight=0.05)
    >>> clf = PromptTunedCLIPClassifier("mini", regularizer=smoothing, max_epochs=1, random_state=0).fit(X, y)
    >>> sorted(clf.history_[0])
    ['accuracy', 'epoch', 'label-smoothing', 'learning_rate', 'loss']
    """

    name = "label-smoothing"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(self, weight: float = 0.1) -> None:
        self.weight = weight

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Return the loss term."""
        validate_parameters(self)
        return _LabelSmoothingTerm(float(self.weight))
