"""Confidence penalty, which rewards predictions of high entropy."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from torch import Tensor

from clipcal._compat import Interval, validate_parameters
from clipcal.regularizers._base import Regularizer
from clipcal.training import Batch, Forward, Learner, LossTerm, TuningProblem

__all__ = ["EntropyRegularizer"]


class _EntropyTerm(LossTerm):
    name = "entropy"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        log_probabilities = out.logits.log_softmax(dim=1)
        return self.weight * batch.mean((log_probabilities.exp() * log_probabilities).sum(dim=1))


class EntropyRegularizer(Regularizer):
    """Confidence penalty: the negated entropy of the predicted probabilities.

    The loss term is ``-weight * mean_i H(p_i)`` with the entropy ``H(p) = -sum_c p_c log p_c`` in nats. It is
    between ``-weight * log(n_classes)`` and 0, and smaller for less confident predictions.

    Parameters
    ----------
    weight : float, default=0.1
        Factor of the loss term, at least 0.

    Notes
    -----
    The authors choose a weight per data set. The default, 0.1, is a common choice for image classifiers; it
    is not verified against the paper, nor chosen for prompt tuning.

    References
    ----------
    .. [1] G. Pereyra, G. Tucker, J. Chorowski, Ł. Kaiser, G. Hinton, "Regularizing Neural Networks by
       Penalizing Confident Output Distributions", 2017, arXiv:1701.06548.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", regularizer="entropy", max_epochs=1, random_state=0).fit(X, y)
    >>> clf.history_[0]["entropy"] < 0
    True
    """

    name = "entropy"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, weight: float = 0.1) -> None:
        self.weight = weight

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Return the loss term."""
        validate_parameters(self)
        return _EntropyTerm(float(self.weight))
