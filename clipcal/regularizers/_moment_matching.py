"""Regularizer that keeps mean and covariance of the text features near those of zero-shot CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from clipcal._compat import Interval, validate_parameters
from clipcal.regularizers._base import Regularizer, check_tuned_texts
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Batch, Forward, Learner, LossTerm, TuningProblem

__all__ = ["MomentMatchingRegularizer"]


class MomentMatchingTerm(LossTerm):
    """Loss term of :class:`MomentMatchingRegularizer`."""

    name = "moment-matching"

    def __init__(self, weight: float, zero_shot: Tensor) -> None:
        self.weight = weight
        self.mean = zero_shot.mean(dim=-2, keepdim=True)
        self.covariance = _covariance(zero_shot - self.mean)

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        texts = normalize(out.texts.float(), dim=-1)
        mean = texts.mean(dim=-2, keepdim=True)
        of_means = (mean - self.mean).square().sum(dim=(-2, -1))
        of_covariances = (_covariance(texts - mean) - self.covariance).square().sum(dim=(-2, -1))
        distances = of_means + of_covariances
        # The text features of each image have their own moments if they depend on the image.
        return self.weight * (batch.mean(distances) if distances.ndim else distances)


def _covariance(centered: Tensor) -> Tensor:
    return centered.mT @ centered / centered.shape[-2]


class MomentMatchingRegularizer(Regularizer):
    """Keep the mean and the covariance of the text features near those of zero-shot CLIP.

    The loss term is ``weight * (||mu - mu0||^2 + ||Sigma - Sigma0||_F^2)``, where ``mu`` and ``Sigma`` are
    the mean and the covariance matrix of the tuned text features over the base classes, and ``mu0`` and
    ``Sigma0`` those of the zero-shot text features.

    Parameters
    ----------
    weight : float, default=5.0
        Factor of the loss term, at least 0.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features, the name of a known template, or a sequence of these, which forms
        an ensemble; see :func:`clipcal.text.find_templates`. The published trainers use one template per data
        set, such as ``"oxford_pets"``.

    See Also
    --------
    AnchorRegularizer : Keeps the feature of each class near its zero-shot feature.
    MarginMomentRegularizer : The sum with the regularizer of margins.

    Notes
    -----
    The moments are over the classes, not over the samples of a batch. They are computed in float32: the
    entries of ``Sigma - Sigma0`` are so small that their squares are zero in half precision, in which the
    published code computes them. If the text features depend on the image, the term is averaged over the
    images of the batch; the published code for CoCoOp uses the last image.

    References
    ----------
    .. [1] A. Sharifdeen et al., "Towards Calibrating Prompt Tuning of Vision-Language Models", CVPR 2026,
       arXiv:2602.19024.

    Examples
    --------
    The default context of CoOp starts as zero-shot CLIP, where the term is zero.

    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", regularizer="moment-matching", max_epochs=1, random_state=0)
    >>> round(clf.fit(X, y).history_[0]["moment-matching"], 3)
    0.0
    """

    name = "moment-matching"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
        "template": [str, "array-like"],
    }

    def __init__(self, weight: float = 5.0, *, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> None:
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
        return MomentMatchingTerm(float(self.weight), problem.zero_shot(problem.names, self.template))
