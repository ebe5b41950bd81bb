"""VPT, prompts in the image tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from clipcal._compat import Interval, validate_parameters
from clipcal.methods._base import TuningMethod
from clipcal.methods._frozen_text import FrozenTextLearner
from clipcal.methods._prompted_images import PromptedImagesMixin, depth_of, draw_prompts, image_encoder
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import ImagePromptEncoder, Recipe, TuningProblem

__all__ = ["VPT", "VisualPromptLearner"]

# The published configuration has prompts in this number of blocks, all those of ViT-B.
_DEPTH = 12


class VisualPromptLearner(PromptedImagesMixin, FrozenTextLearner):
    """Learner of prompts in the image tower, with zero-shot text features.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem.
    template : str or sequence of str
        Template of the zero-shot text features.
    image_encoder : ImagePromptEncoder
        Encoder of the images.
    visual_prompts : Tensor, shape (visual_depth, n_visual_prompts, width)
        Initial prompts, by block.
    """

    def __init__(
        self,
        problem: TuningProblem,
        template: str | Sequence[str],
        image_encoder: ImagePromptEncoder,
        visual_prompts: Tensor,
    ) -> None:
        super().__init__(problem, template)
        self.image_encoder = image_encoder
        self.visual_prompts = nn.Parameter(visual_prompts)


class VPT(TuningMethod):
    """Visual prompt tuning (VPT) of CLIP: learned tokens in the image tower, with zero-shot text features.

    The tokens are appended to the patches of each image, and are replaced by further learned tokens at the
    inputs of the next ``visual_depth - 1`` blocks [1]_. ``visual_depth=1`` is VPT-shallow. The tokens are
    trained to minimize the cross-entropy. They are used for new classes, too, whose text features are the
    zero-shot ones.

    Parameters
    ----------
    n_visual_prompts : int, default=8
        Number of tokens.
    visual_depth : int or None, default=None
        Number of blocks of the image tower with prompts of their own. If None, it is 12, as published, or the
        number of blocks of a tower with fewer blocks.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot text features, the name of a known template, or a sequence of these, which
        forms an ensemble; see :func:`clipcal.text.find_templates`.
    activation_checkpointing : bool, default=False
        Whether the backward pass computes the inside of each block of the image tower again; see
        :class:`MaPLe`.

    Notes
    -----
    The method needs images instead of embeddings; see :class:`MaPLe`.

    Text features are not learned, so regularizers of text features (``"dor"``, ``"kg"``) raise an error;
    ``"dor-visual"`` keeps the features of other images.

    VPT for CLIP, the original recipe (5 epochs with batches of 4 and a learning rate of 0.0025) and the
    default template are those of the published code of MaPLe [2]_. There is no published code of the authors
    of DOR for VPT.

    References
    ----------
    .. [1] M. Jia, L. Tang, B.-C. Chen, C. Cardie, S. Belongie, B. Hariharan, S.-N. Lim, "Visual Prompt
       Tuning", ECCV 2022, arXiv:2203.12119.
    .. [2] M. U. Khattak, H. Rasheed, M. Maaz, S. Khan, F. S. Khan, "MaPLe: Multi-modal Prompt Learning",
       CVPR 2023, arXiv:2210.03117.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier, make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", method="vpt", max_epochs=1, random_state=0).fit(X, y)
    >>> {name: values.shape for name, values in clf.learned_.items()}
    {'visual_prompts': (4, 8, 128)}
    """

    name: ClassVar[str] = "vpt"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {"original": Recipe(max_epochs=5, learning_rate=0.0025, batch_size=4)}
    )
    needs_pixels: ClassVar[bool] = True
    linear: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_visual_prompts": [Interval(Integral, 1, None, closed="left")],
        "visual_depth": [Interval(Integral, 1, None, closed="left"), None],
        "template": [str, "array-like"],
        "activation_checkpointing": ["boolean"],
    }

    def __init__(
        self,
        n_visual_prompts: int = 8,
        *,
        visual_depth: int | None = None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        activation_checkpointing: bool = False,
    ) -> None:
        self.n_visual_prompts = n_visual_prompts
        self.visual_depth = visual_depth
        self.template = template
        self.activation_checkpointing = activation_checkpointing

    def learner(self, problem: TuningProblem) -> VisualPromptLearner:
        """Return a learner with random prompts.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws the prompts.

        Returns
        -------
        learner : VisualPromptLearner
            The learner.

        Raises
        ------
        BackboneError
            If the image tower does not support prompts.
        ClassNameError
            If the template is invalid.
        ValueError
            If a parameter is out of range, or the image tower has fewer than `visual_depth` blocks.
        """
        validate_parameters(self)
        images = image_encoder(
            problem.backbone, self.name, activation_checkpointing=self.activation_checkpointing
        )
        default = min(_DEPTH, images.n_blocks)
        depth = depth_of(
            self.visual_depth,
            images.n_blocks,
            parameter="visual_depth",
            tower="image tower",
            default=default,
        )
        shape = depth, self.n_visual_prompts, images.width
        prompts = draw_prompts(*shape, backbone=problem.backbone, generator=problem.generator)
        return VisualPromptLearner(problem, self.template, images, prompts)
