"""Linear probe, a linear classifier that starts from the zero-shot text features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clipcal._compat import StrOptions, validate_parameters
from clipcal.methods._base import TuningMethod
from clipcal.methods._class_rows import ClassRowLearner
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Batch, Forward, Prompts, Recipe, TrainingData, TuningProblem

__all__ = ["LinearProbe", "ProbeLearner"]


class ProbeLearner(ClassRowLearner):
    """Learner of one weight vector for each class.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem.
    template : str or sequence of str
        Template of the zero-shot text features.
    constraint : {"clap"} or None
        Penalty on the distance to the zero-shot text features.
    """

    start: Tensor
    multipliers: Tensor

    def __init__(
        self, problem: TuningProblem, template: str | Sequence[str], *, constraint: str | None
    ) -> None:
        super().__init__(problem, template)
        start = self.zero_shot(self.names)
        self.weight = nn.Parameter(start.clone())
        self.constraint = constraint
        if constraint is not None:
            # Computed from names, so that it need not be kept with the learned tensors.
            self.register_buffer("start", start, persistent=False)
            multipliers = torch.zeros(len(start))
            # A fitted learner is rebuilt without data, and the multipliers are then loaded.
            if problem.data is not None:
                multipliers = self._multipliers(start, problem.data)
            self.register_buffer("multipliers", multipliers)

    def _multipliers(self, start: Tensor, data: TrainingData) -> Tensor:
        """Return the mean zero-shot probability of each class over its own samples."""
        texts = normalize(start, dim=-1)
        sums, totals = torch.zeros(2, len(start), device=start.device)
        for batch in data.in_order():
            proba = (self.logit_scale * batch.embeddings @ texts.T).softmax(dim=1)
            of_target = proba.gather(1, batch.targets[:, None])[:, 0]
            sums.index_add_(0, batch.targets, batch.weights * of_target)
            totals.index_add_(0, batch.targets, batch.weights)
        return sums / totals.clamp(min=torch.finfo(totals.dtype).tiny)

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Return the weights, normalized to unit length; zero-shot features for other classes."""
        return normalize(self.with_rows(prompts, self.weight, prompts.extra["zero_shot"]), dim=-1)

    def losses(self, out: Forward, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy and the penalty."""
        losses = super().losses(out, batch)
        if self.constraint is None:
            return losses
        squares = (self.weight - self.start).square().sum(dim=1)
        return {**losses, "clap": (self.multipliers * squares).mean()}


class LinearProbe(TuningMethod):
    """Linear probe: one learned vector per class, which starts from the zero-shot text features.

    The logit of class ``c`` is ``s <n(f), n(w_c)>``, where ``f`` is the feature of the frozen CLIP, ``s``
    CLIP's scale, and ``n`` normalizes to unit length. The vector ``w_c`` starts at the unnormalized zero-shot
    text feature ``t_c``.

    With ``constraint="clap"`` (class-adaptive linear probe), the loss has the additional term
    ``mean_c l_c ||w_c - t_c||^2``. The factor ``l_c`` is the mean zero-shot probability of class ``c`` over
    its training samples, so that classes on which zero-shot CLIP is good change less.

    Parameters
    ----------
    constraint : {"clap"} or None, default=None
        Penalty on the distance to the zero-shot features.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features, the name of a known template, or a sequence of these, over which
        unnormalized features are averaged; see :func:`clipcal.text.find_templates`. The authors use one
        template per data set, such as ``"oxford_pets"``, and for ImageNet ``["imagenet-7", "imagenet"]``.

    Notes
    -----
    Weights are normalized in the logits but not after a step, as in the published code. Their norm does not
    change predictions, but how fast their direction changes.

    New classes have no learned vector. As an extension of the published method, their text features in
    ``with_classes`` are the zero-shot features, while classes with the name of a training class keep their
    vector. Therefore training does not change predictions among new classes.

    The regularizer ``"dor"`` raises an error, since the features of other nouns are not learned.

    The original recipe is 300 epochs of SGD with a learning rate of 0.1, batches of 256 and no weight decay.
    The authors encode 20 crops of each image before training (``n_views=20``). The factors ``l_c`` and the
    mean over classes are those of the published code, which keeps the factors constant. The factors are
    averaged over all crops there, and over the first crop of each image here.

    References
    ----------
    .. [1] J. Silva-Rodriguez, S. Hajimiri, I. Ben Ayed, J. Dolz, "A Closer Look at the Few-Shot Adaptation of
       Large Vision-Language Models", CVPR 2024, arXiv:2312.12730.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.methods import LinearProbe
    >>> X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    >>> method = LinearProbe(constraint="clap")
    >>> clf = PromptTunedCLIPClassifier("mini", method=method, max_epochs=2, random_state=0).fit(X, y)
    >>> {name: values.shape for name, values in clf.learned_.items()}
    {'weight': (14, 128), 'multipliers': (14,)}
    """

    name: ClassVar[str] = "linear-probe"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {"original": Recipe(max_epochs=300, learning_rate=0.1, batch_size=256, weight_decay=0.0)}
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "constraint": [StrOptions({"clap"}), None],
        "template": [str, "array-like"],
    }

    def __init__(
        self, constraint: str | None = None, *, template: str | Sequence[str] = DEFAULT_TEMPLATE
    ) -> None:
        self.constraint = constraint
        self.template = template

    def learner(self, problem: TuningProblem) -> ProbeLearner:
        """Return a learner whose weights are the zero-shot text features.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem.

        Returns
        -------
        learner : ProbeLearner
            The learner.

        Raises
        ------
        ValueError
            If a parameter is invalid.
        ClassNameError
            If the template is invalid.
        """
        validate_parameters(self)
        return ProbeLearner(problem, self.template, constraint=self.constraint)
