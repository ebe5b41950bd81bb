"""Regularizer that keeps class features near their zero-shot features (knowledge-guided loss of KgCoOp)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor

from clipcal._compat import Interval, validate_parameters
from clipcal.regularizers._base import Regularizer, check_tuned_texts, mean_cosine
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Batch, Forward, Learner, LossTerm, TuningProblem

__all__ = ["AnchorRegularizer"]


class _AnchorTerm(LossTerm):
    name = "kg"

    def __init__(self, weight: float, anchors: Tensor) -> None:
        self.weight = weight
        self.anchors = anchors

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        return self.weight * (1 - mean_cosine(out.texts, self.anchors, batch))


class AnchorRegularizer(Regularizer):
    """Penalize the distance between the tuned and the zero-shot text features of the classes.

    The loss term is ``weight * (1 - mean_c cos(w_c, w0_c))``, the mean over all base classes, as in the code
    of the authors of KgCoOp. Their paper uses the squared distance, which is twice as large for features of
    unit length.

    Parameters
    ----------
    weight : float, default=8.0
        Factor of the loss term, at least 0.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features, the name of a known template, or a sequence of these, which forms
        an ensemble; see :func:`clipcal.text.find_templates`. The published trainers use one template per data
        set, such as ``"oxford_pets"``.

    References
    ----------
    .. [1] H. Yao, R. Zhang, C. Xu, "Visual-Language Prompt Tuning with Knowledge-guided Context
       Optimization", CVPR 2023, arXiv:2303.13283.

    Examples
    --------
    >>> from clipcal.regularizers import AnchorRegularizer
    >>> AnchorRegularizer(weight=2.0)
    AnchorRegularizer(weight=2.0)
    """

    name = "kg"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
        "template": [str, "array-like"],
    }

    def __init__(self, weight: float = 8.0, *, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> None:
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
        return _AnchorTerm(float(self.weight), problem.zero_shot(problem.names, self.template))
