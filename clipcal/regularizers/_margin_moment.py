"""Sum of the regularizers of margins and of moments of text features."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor

from clipcal._compat import Interval, validate_parameters
from clipcal.regularizers._base import Regularizer, check_tuned_texts
from clipcal.regularizers._margin import MarginRegularizer
from clipcal.regularizers._moment_matching import MomentMatchingRegularizer, MomentMatchingTerm
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Batch, Forward, Learner, LossTerm, TuningProblem

__all__ = ["MarginMomentRegularizer"]


class _MarginMomentTerm(LossTerm):
    name = "tcpt"

    def __init__(self, weight: float, terms: Sequence[LossTerm]) -> None:
        self.weight = weight
        self.terms = list(terms)

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        first, second = (term(out, batch, drawn) for term in self.terms)
        return self.weight * (first + second)


class MarginMomentRegularizer(Regularizer):
    """Sum of :class:`MarginRegularizer` and :class:`MomentMatchingRegularizer`, with their default weights.

    The loss term is ``weight * (R_margin + R_moment)``. ``R_margin = -0.1 * mean(m) + 0.01 * var(m)``, where
    ``m`` are the margins of the samples. ``R_moment = 5 * (||mu - mu0||^2 + ||Sigma - Sigma0||_F^2)``, where
    ``mu`` and ``Sigma`` are the mean and the covariance of the text features of the base classes. For other
    weights of the two parts, pass both regularizers in a list.

    Parameters
    ----------
    weight : float, default=1.0
        Factor of the sum, at least 0.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features; see :class:`MomentMatchingRegularizer`.

    Notes
    -----
    The weights are those of the published code. The settings behind its published results for CoOp and KgCoOp
    are not verified, because the scripts differ from them. Its trainer for KgCoOp uses another loss in place
    of the distance to the zero-shot features; here the term is added to the loss of the method.

    References
    ----------
    .. [1] A. Sharifdeen et al., "Towards Calibrating Prompt Tuning of Vision-Language Models", CVPR 2026,
       arXiv:2602.19024.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", regularizer="tcpt", max_epochs=1, random_state=0).fit(X, y)
    >>> sorted(clf.history_[0])
    ['accuracy', 'cross_entropy', 'epoch', 'learning_rate', 'loss', 'tcpt']
    """

    name = "tcpt"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
        "template": [str, "array-like"],
    }

    def __init__(self, weight: float = 1.0, *, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> None:
        self.weight = weight
        self.template = template

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Encode the zero-shot features and return the loss term.

        Raises
        ------
        ValueError
            If the method does not train the text features.
        """
        validate_parameters(self)
        check_tuned_texts(self.name, problem, learner)
        margin = MarginRegularizer().prepare(problem, learner)
        # Not prepared, which would encode the class prompts for the same check again.
        weight = MomentMatchingRegularizer().weight
        moment = MomentMatchingTerm(weight, problem.zero_shot(problem.names, self.template))
        return _MarginMomentTerm(float(self.weight), [margin, moment])
