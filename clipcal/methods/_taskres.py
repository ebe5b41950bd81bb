"""TaskRes, which adds a learned vector to the zero-shot text feature of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clipcal._compat import Interval, validate_parameters
from clipcal.methods._base import TuningMethod
from clipcal.methods._class_rows import ClassRowLearner
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import Prompts, Recipe, TuningProblem

__all__ = ["ResidualLearner", "TaskRes"]

_RECIPE = Recipe(optimizer="adam", learning_rate=0.002, batch_size=256, max_epochs=200)


class ResidualLearner(ClassRowLearner):
    """Learner of residuals, which are zero at the start.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem.
    template : str or sequence of str
        Template of the zero-shot text features.
    scale : float
        Factor of the residuals.
    """

    def __init__(self, problem: TuningProblem, template: str | Sequence[str], *, scale: float) -> None:
        super().__init__(problem, template)
        self.scale = scale
        self.residual = nn.Parameter(torch.zeros(len(problem.names), self.embedding_dim))

    def encode_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Add the residuals to the zero-shot features, and normalize the sums to unit length."""
        zero_shot = prompts.extra["zero_shot"]
        residual = self.with_rows(prompts, self.residual, torch.zeros_like(zero_shot))
        return nn.functional.normalize(zero_shot + self.scale * residual, dim=-1)


class TaskRes(TuningMethod):
    """TaskRes: a learned residual is added to the zero-shot text feature of each class.

    The text feature of class ``c`` is ``n(t_c + a x_c)``, where ``t_c`` is the unnormalized zero-shot
    feature, ``x_c`` the learned residual, ``a`` its scale, and ``n`` normalizes to unit length.

    Parameters
    ----------
    scale : float, default=0.5
        Factor a of the residuals, greater than 0; ``alpha`` in the paper. The authors use 1 for Flowers102.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot features, the name of a known template, or a sequence of these, over which
        unnormalized features are averaged; see :func:`clipcal.text.find_templates`. The authors use one
        template per data set, such as ``"oxford_pets"``, and for ImageNet ``["imagenet-7", "imagenet"]``.

    Notes
    -----
    New classes have no residual. As an extension of the published method, their text features in
    ``with_classes`` are the zero-shot features, while classes with the name of a training class keep their
    residual. Therefore training does not change predictions among new classes.

    The regularizer ``"dor"`` raises an error, since the features of other nouns are not learned.

    The published code does not replace underscores in class names by spaces; clipcal does, as for all
    methods.

    The original recipe is that of the authors' script for 16 shots with ResNet-50: 200 epochs of Adam with a
    learning rate of 0.002 (0.0002 on ImageNet) and batches of 256. ``recipe="dor"``, for ViT-B/16, has a
    learning rate of 0.0002 and, if the method is given by name, ``scale=1.0``, as far as the published code
    of the authors of DOR shows.

    References
    ----------
    .. [1] T. Yu, Z. Lu, X. Jin, Z. Chen, X. Wang, "Task Residual for Tuning Vision-Language Models",
       CVPR 2023, arXiv:2211.10277.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.methods import TaskRes
    >>> X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", method=TaskRes(1.0), max_epochs=2, random_state=0).fit(X, y)
    >>> clf.learned_["residual"].shape
    (14, 128)
    """

    name: ClassVar[str] = "taskres"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {
            "original": _RECIPE,
            "dor": _RECIPE.with_values(learning_rate=0.0002, method_params=MappingProxyType({"scale": 1.0})),
        }
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "scale": [Interval(Real, 0, None, closed="neither")],
        "template": [str, "array-like"],
    }

    def __init__(self, scale: float = 0.5, *, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> None:
        self.scale = scale
        self.template = template

    def learner(self, problem: TuningProblem) -> ResidualLearner:
        """Return a learner with residuals of zero.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem.

        Returns
        -------
        learner : ResidualLearner
            The learner.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        ClassNameError
            If the template is invalid.
        """
        validate_parameters(self)
        return ResidualLearner(problem, self.template, scale=self.scale)
