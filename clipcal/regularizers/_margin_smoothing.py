"""Margin-based label smoothing, which limits the distances of logits from the highest one."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from torch import Tensor

from clipcal._compat import Interval, validate_parameters
from clipcal.regularizers._base import Regularizer
from clipcal.training import Batch, Forward, Learner, LossTerm, TuningProblem

__all__ = ["MarginSmoothingRegularizer"]


class _MarginSmoothingTerm(LossTerm):
    name = "mbls"

    def __init__(self, weight: float, margin: float) -> None:
        self.weight = weight
        self.margin = margin

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        distances = out.logits.amax(dim=1, keepdim=True) - out.logits
        return self.weight * batch.mean((distances - self.margin).relu().mean(dim=1))


class MarginSmoothingRegularizer(Regularizer):
    """Margin-based label smoothing (MbLS).

    The loss term is ``weight * mean_ic max(0, max_k z_ik - z_ic - margin)``, the mean over the samples and
    classes, where ``z`` are the logits, including the logit scale. Logits within ``margin`` of the highest
    one are not penalized.

    Parameters
    ----------
    weight : float, default=0.1
        Factor of the loss term, at least 0.
    margin : float, default=10.0
        Distance of logits that is not penalized, at least 0.

    Notes
    -----
    The defaults are those of the authors, for classifiers trained from scratch. The paper writes a sum over
    classes; its code, and this class, use the mean. Values chosen for prompt tuning are not verified.

    References
    ----------
    .. [1] B. Liu, I. Ben Ayed, A. Galdran, J. Dolz, "The Devil is in the Margin: Margin-based Label Smoothing
       for Network Calibration", CVPR 2022, arXiv:2111.15430.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.regularizers import MarginSmoothingRegularizer
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> mbls = MarginSmoothingRegularizer(margin=5.0)
    >>> clf = PromptTunedCLIPClassifier("mini", regularizer=mbls, max_epochs=1, random_state=0).fit(X, y)
    >>> clf.history_[0]["mbls"] >= 0
    True
    """

    name = "mbls"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
        "margin": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, weight: float = 0.1, *, margin: float = 10.0) -> None:
        self.weight = weight
        self.margin = margin

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Return the loss term."""
        validate_parameters(self)
        return _MarginSmoothingTerm(float(self.weight), float(self.margin))
