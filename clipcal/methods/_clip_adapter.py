"""CLIP-Adapter, which learns a small network on image features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from clipcal._compat import Interval, validate_parameters
from clipcal.methods._base import TuningMethod
from clipcal.methods._fast import FAST
from clipcal.methods._frozen_text import FrozenTextLearner
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Batch, Prompts, Recipe, TuningProblem

__all__ = ["AdapterLearner", "CLIPAdapter"]


class AdapterLearner(FrozenTextLearner):
    """Learner of a network with two layers on image features.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem.
    template : str or sequence of str
        Template of the zero-shot text features.
    residual_ratio : float
        Weight of the adapted features.
    reduction : int
        Factor by which the hidden layer is narrower than the features.
    """

    def __init__(
        self,
        problem: TuningProblem,
        template: str | Sequence[str],
        *,
        residual_ratio: float,
        reduction: int,
    ) -> None:
        super().__init__(problem, template)
        width = self.embedding_dim
        hidden = max(width // reduction, 1)
        self.residual_ratio = residual_ratio
        self.down = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(hidden, width, bias=False)

    def encode_images(self, batch: Batch) -> Tensor:
        """Return normalized mixtures of the features of the frozen CLIP and the adapted features."""
        adapted = relu(self.up(relu(self.down(batch.embeddings))))
        mixed = self.residual_ratio * adapted + (1 - self.residual_ratio) * batch.embeddings
        return normalize(mixed, dim=-1)

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in a step."""
        return max(super().work(prompts, batch_size), float(batch_size * self.down.weight.numel()))


class CLIPAdapter(TuningMethod):
    """CLIP-Adapter: a small network on the image features, mixed with the features of the frozen CLIP.

    The image feature is ``n(r ReLU(W2 ReLU(W1 f)) + (1 - r) f)``, where ``f`` is the feature of the frozen
    CLIP, ``n`` normalizes to unit length, and ``W1`` and ``W2`` are learned matrices without biases. The text
    features are the zero-shot features, also for new classes, for which the same network is used.

    Parameters
    ----------
    residual_ratio : float, default=0.2
        Weight r of the adapted features, from 0 (zero-shot CLIP) to 1.
    reduction : int, default=4
        Factor by which the hidden layer is narrower than the features.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot text features, the name of a known template, or a sequence of these, which
        forms an ensemble; see :func:`clipcal.text.find_templates`.

    Notes
    -----
    Text features are not learned, so regularizers of text features (``"dor"``, ``"kg"``) raise an error.

    As the layers have no biases, the scale of ``f`` does not matter: features of unit length, which are used
    here, give the same result as the unnormalized features of the published code.

    The authors' public code does not include the training settings. Both recipes are those of the code of the
    authors of DOR: 200 epochs of SGD with a learning rate of 0.002 and batches of 32. They use the default
    template for all data sets; the authors of CLIP-Adapter use one template per data set, such as
    ``template="oxford_pets"``.

    References
    ----------
    .. [1] P. Gao, S. Geng, R. Zhang, T. Ma, R. Fang, Y. Zhang, H. Li, Y. Qiao, "CLIP-Adapter: Better
       Vision-Language Models with Feature Adapters", IJCV 2024, arXiv:2110.04544.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.methods import CLIPAdapter
    >>> X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    >>> method = CLIPAdapter(residual_ratio=0.5)
    >>> clf = PromptTunedCLIPClassifier("mini", method=method, max_epochs=2, random_state=0).fit(X, y)
    >>> {name: values.shape for name, values in clf.learned_.items()}
    {'down.weight': (32, 128), 'up.weight': (128, 32)}
    """

    name: ClassVar[str] = "clip-adapter"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {"original": Recipe(), "dor": Recipe(), "fast": FAST.with_values(learning_rate=0.001)}
    )
    linear: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "residual_ratio": [Interval(Real, 0, 1, closed="both")],
        "reduction": [Interval(Integral, 1, None, closed="left")],
        "template": [str, "array-like"],
    }

    def __init__(
        self,
        residual_ratio: float = 0.2,
        *,
        reduction: int = 4,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
    ) -> None:
        self.residual_ratio = residual_ratio
        self.reduction = reduction
        self.template = template

    def learner(self, problem: TuningProblem) -> AdapterLearner:
        """Return a learner with the initial values of ``torch.nn.Linear``.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem.

        Returns
        -------
        learner : AdapterLearner
            The learner.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        ClassNameError
            If the template is invalid.
        """
        validate_parameters(self)
        return AdapterLearner(
            problem, self.template, residual_ratio=self.residual_ratio, reduction=self.reduction
        )
