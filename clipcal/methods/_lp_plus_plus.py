"""LP++, a linear probe that blends learned image prototypes with zero-shot text features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clipcal._compat import validate_parameters
from clipcal.methods._base import TuningMethod
from clipcal.methods._class_rows import ClassRowLearner
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Prompts, Recipe, TrainingData, TuningProblem

__all__ = ["BlendingLearner", "LPPlusPlus"]

# The factor of the initial blend, and the steps of the prototypes for each step of the blends, as published.
_BLEND_FACTOR = 250.0
_STEPS_PER_BLEND = 10


class BlendingLearner(ClassRowLearner):
    """Learner of a prototype and a blend for each class.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem. Initial values and step sizes are computed from its data.
    template : str or sequence of str
        Template of the zero-shot text features.
    """

    texts: Tensor

    def __init__(self, problem: TuningProblem, template: str | Sequence[str]) -> None:
        super().__init__(problem, template, normalize=True)
        # Logits are not scaled by CLIP's scale, except for new classes.
        self.logit_scale, self.zero_shot_scale = 1.0, self.logit_scale
        texts = self.zero_shot(self.names)
        # Computed from names, so that it need not be kept with the learned tensors.
        self.register_buffer("texts", texts, persistent=False)
        self.prototype = nn.Parameter(torch.zeros_like(texts))
        self.blend = nn.Parameter(torch.zeros(len(texts), device=texts.device))
        self.step_sizes = {"prototype": 1.0, "blend": 1.0}
        self.n_steps = 0
        # A fitted learner is rebuilt without data, and its parameters are then loaded.
        if problem.data is not None:
            self._start(problem.data)

    @torch.no_grad()
    def _start(self, data: TrainingData) -> None:
        """Set initial parameters and step sizes, from the first view of each sample."""
        texts = self.texts.cpu().double()
        means, moment = _moments(data, len(texts))
        self.prototype.copy_(_n_different(data) / len(texts) * means)
        self.blend.fill_(_BLEND_FACTOR * float((means * texts).sum(dim=1).mean()))
        steepest = {
            "prototype": torch.linalg.eigvalsh(moment)[-1] / 4,
            "blend": 4 * ((texts @ moment) * texts).sum(dim=1).max(),
        }
        self.step_sizes = {name: 1 / max(float(value), 1e-12) for name, value in steepest.items()}

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Return the vectors with which image features are multiplied; see :class:`LPPlusPlus`."""
        zero_shot = prompts.extra["zero_shot"]
        own = self.prototype + self.blend[:, None] * self.texts
        others = own.mean(dim=0) + self.zero_shot_scale * (zero_shot - self.texts.mean(dim=0))
        return self.with_rows(prompts, own, others)

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Compute the gradients of the prototypes, and of the blends in every tenth step."""
        super().backward(losses)
        self.n_steps += 1
        if self.n_steps % _STEPS_PER_BLEND:
            self.blend.grad = None  # optimizers skip parameters without a gradient

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return the groups of the prototypes, and of the blends, which have no momentum."""
        return [
            {"params": [self.prototype], "rate_factor": self.step_sizes["prototype"]},
            {"params": [self.blend], "rate_factor": self.step_sizes["blend"], "momentum": 0.0},
        ]


def _moments(data: TrainingData, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return the weighted mean feature of each class, and the mean of the products of all features.

    They are computed in float64 on the CPU, as some devices do not support float64.

    Parameters
    ----------
    data : TrainingData
        Samples of all classes.
    n_classes : int
        Number of classes.

    Returns
    -------
    means : Tensor, shape (n_classes, embedding_dim)
        Mean features.
    moment : Tensor, shape (embedding_dim, embedding_dim)
        Weighted mean of the matrices ``f f^T``.
    """
    sums: list[Tensor] = []
    for batch in data.in_order():
        features, weights = batch.embeddings.cpu().double(), batch.weights.cpu().double()
        # Row c has the weights of the samples of class c.
        of_class = weights * (batch.targets.cpu() == torch.arange(n_classes)[:, None])
        parts = [of_class @ features, of_class.sum(dim=1), (weights * features.T) @ features]
        sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
    of_classes, totals, products = sums
    totals = totals.clamp(min=torch.finfo(totals.dtype).tiny)
    return of_classes / totals[:, None], products / totals.sum()


def _n_different(data: TrainingData) -> int:
    """Return the number of samples, of which copies count once."""
    return len({hash(row.tobytes()) for batch in data.in_order() for row in batch.embeddings.cpu().numpy()})


class LPPlusPlus(TuningMethod):
    """LP++: a linear classifier that blends a learned image prototype and the text feature of each class.

    The logit of class ``c`` is ``<f, w_c + a_c t_c>``, where ``f`` is the image feature and ``t_c`` the
    zero-shot text feature, both of unit length. The prototype ``w_c`` and the number ``a_c``, the blend, are
    learned by gradient descent on the cross-entropy of all samples, without a learning rate to be chosen:

    - The prototype ``w_c`` starts at the mean image feature of class ``c`` times the number of samples per
      class. All blends start at ``250 mean_c <m_c, t_c>``, where ``m_c`` is the mean image feature.
    - The step size of the prototypes, with momentum, is ``4 / l``, where ``l`` is the largest eigenvalue of
      the mean of ``f f^T`` over the samples.
    - In every tenth step, the blends change, too. Their step size, without momentum, is ``1 / (4 q)``, where
      ``q`` is the largest mean of ``<f, t_c>^2`` over the samples, among all classes.

    Parameters
    ----------
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot text features, the name of a known template, or a sequence of these, which
        forms an ensemble; see :func:`clipcal.text.find_templates`. The authors use one template per data set,
        such as ``"oxford_pets"``.

    Notes
    -----
    **Confidence.** Logits are not multiplied by CLIP's scale; the blends take its place. They hardly change
    in training, while the prototypes grow and the confidence rises with the number of steps. The authors keep
    the step with the highest accuracy on validation images. Without these, 300 steps can be too many, as they
    are for the embedded CLIP model. Use validation images to choose ``max_epochs``, for
    :class:`~clipcal.classifiers.EarlyStopping`, or to calibrate afterwards.

    **New classes.** They have neither prototype nor blend. As an extension of the published method, the
    vector of a new class in ``with_classes`` is ``v + s (t - u)``, where ``t`` is its zero-shot text feature,
    ``s`` CLIP's scale, ``v`` the mean vector of the training classes and ``u`` the mean of their text
    features. Among new classes only, ``v`` and ``u`` cancel, and the probabilities are those of zero-shot
    CLIP. Together with training classes, whose name determines their vector, the logits are comparable, while
    with the vector ``s t`` almost all images would be assigned to training classes.

    **Settings.** The original recipe is 300 steps with all samples (one per epoch), a constant learning rate
    of 1, which multiplies both step sizes (they belong to all samples: with a smaller ``batch_size`` the
    training is unstable), momentum 0.9 and no weight decay. Step sizes and initial values
    are computed from the first view of each image; the authors encode one random crop of each image.

    **Comparison with the published code** [2]_, from which the initial values, the step sizes and the
    settings were read; they may differ from those printed in the paper. It adds a bias to the logits, which
    the formula in the paper does not have; it is omitted here. It does not reset the gradient of the blends,
    so that each step adds the gradients of all previous steps; here only the current gradient is used. It
    supports only equal numbers of images per
    class, for which the initial prototype is the sum of the features. The factor of other data is a choice of
    clipcal: the mean number of samples per class, so that all prototypes start with similar norms, where
    copies of a sample count once, so that copies and sample weights are equivalent.

    The regularizer ``"dor"`` raises an error, since the features of other nouns are not learned. Others that
    read text features get the directions of ``w_c + a_c t_c``.

    References
    ----------
    .. [1] Y. Huang, F. Shakeri, J. Dolz, M. Boudiaf, H. Bahig, I. Ben Ayed, "LP++: A Surprisingly Strong
       Linear Probe for Few-Shot CLIP", CVPR 2024, arXiv:2404.02285.
    .. [2] https://github.com/FereshteShakeri/FewShot-CLIP-Strong-Baseline, commit 4d1b771.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", method="lp++", max_epochs=10, random_state=0).fit(X, y)
    >>> {name: values.shape for name, values in clf.learned_.items()}
    {'prototype': (14, 128), 'blend': (14,)}
    """

    name: ClassVar[str] = "lp++"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {
            "original": Recipe(
                max_epochs=300,
                learning_rate=1.0,
                batch_size="all",
                weight_decay=0.0,
                schedule="constant",
                warmup_epochs=0,
            )
        }
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"template": [str, "array-like"]}

    def __init__(self, *, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> None:
        self.template = template

    def learner(self, problem: TuningProblem) -> BlendingLearner:
        """Return a learner with the initial prototypes and blends.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem.

        Returns
        -------
        learner : BlendingLearner
            The learner. It can be trained if the problem has data.

        Raises
        ------
        ClassNameError
            If the template is invalid.
        """
        validate_parameters(self)
        return BlendingLearner(problem, self.template)
