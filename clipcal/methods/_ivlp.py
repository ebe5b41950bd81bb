"""IVLP, independent prompts in the text and the image tower."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from clipcal._compat import Interval, validate_parameters
from clipcal.methods._base import TuningMethod
from clipcal.methods._deep_context import DEEP_CONTEXT_CONSTRAINTS, DeepContextLearner, deep_context_layout
from clipcal.methods._prompted_images import PromptedImagesMixin, depth_of, draw_prompts, image_encoder
from clipcal.training import ImagePromptEncoder, PromptEncoder, Recipe, TuningProblem

__all__ = ["IVLP", "BothTowersLearner"]


class BothTowersLearner(PromptedImagesMixin, DeepContextLearner):
    """Learner of prompts in the text tower and of other prompts in the image tower.

    Parameters
    ----------
    image_encoder : ImagePromptEncoder
        Encoder of the images.
    visual_prompts : Tensor, shape (visual_depth, n_visual_prompts, width)
        Initial prompts of the image tower, by block.
    **layout
        Parameters of :class:`DeepContextLearner`.
    """

    def __init__(self, image_encoder: ImagePromptEncoder, visual_prompts: Tensor, **layout: Any) -> None:
        super().__init__(**layout)
        self.image_encoder = image_encoder
        self.visual_prompts = nn.Parameter(visual_prompts)


class IVLP(TuningMethod):
    """Independent vision-language prompting (IVLP): separate prompts in the text and the image tower.

    The prompts of the text tower are those of :class:`MaPLe`. In the image tower, learned tokens are appended
    to the patches, and are replaced by further ones at the inputs of the next ``visual_depth - 1`` blocks.
    All are trained to minimize the cross-entropy. IVLP is the baseline of MaPLe [1]_, and the starting point
    of :class:`PromptSRC` [2]_.

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        Text whose token embeddings initialize the context; see :class:`MaPLe`.
    n_context : int, default=4
        Number of vectors per block of the text tower, at most the number of tokens of ``context_init``.
    depth : int or None, default=None
        Number of blocks of the text tower with prompts of their own. If None, it is 9, as published, or three
        quarters of the blocks of a tower with fewer than 12 blocks, for which the authors give no value.
    n_visual_prompts : int, default=4
        Number of tokens in the image tower.
    visual_depth : int or None, default=None
        Number of blocks of the image tower with prompts of their own; None as for `depth`.
    template : str, default="{}."
        Template of the class name, whose words are not trained; see :class:`CoOp`.
    text_chunk_size : int or "auto", default="auto"
        Number of prompts encoded at once; see :class:`CoOp`.
    activation_checkpointing : bool, default=False
        Whether the backward pass computes the inside of each block of the image tower again; see
        :class:`MaPLe`.

    Notes
    -----
    The method needs images instead of embeddings; see :class:`MaPLe`.

    The defaults and the original recipe, 20 epochs with batches of 4 and a learning rate of 0.0025, are those
    of the authors of PromptSRC. Those of the authors of MaPLe are
    ``IVLP(n_context=2, n_visual_prompts=2, depth=12, visual_depth=12)`` with ``max_epochs=5`` and
    ``learning_rate=0.0035``.

    References
    ----------
    .. [1] M. U. Khattak, H. Rasheed, M. Maaz, S. Khan, F. S. Khan, "MaPLe: Multi-modal Prompt Learning",
       CVPR 2023, arXiv:2210.03117.
    .. [2] M. U. Khattak, S. T. Wasim, M. Naseer, S. Khan, M.-H. Yang, F. S. Khan, "Self-regulating Prompts:
       Foundational Model Adaptation without Forgetting", ICCV 2023, arXiv:2307.06948.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier, make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", method="ivlp", max_epochs=1, random_state=0).fit(X, y)
    >>> {name: values.shape for name, values in clf.learned_.items()}
    {'context': (4, 128), 'deep_context': (2, 4, 128), 'visual_prompts': (3, 4, 128)}
    """

    name: ClassVar[str] = "ivlp"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {"original": Recipe(max_epochs=20, learning_rate=0.0025, batch_size=4)}
    )
    needs_pixels: ClassVar[bool] = True
    linear: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DEEP_CONTEXT_CONSTRAINTS,
        "n_visual_prompts": [Interval(Integral, 1, None, closed="left")],
        "visual_depth": [Interval(Integral, 1, None, closed="left"), None],
        "activation_checkpointing": ["boolean"],
    }

    def __init__(
        self,
        context_init: str | None = "a photo of a",
        *,
        n_context: int = 4,
        depth: int | None = None,
        n_visual_prompts: int = 4,
        visual_depth: int | None = None,
        template: str = "{}.",
        text_chunk_size: int | str = "auto",
        activation_checkpointing: bool = False,
    ) -> None:
        self.context_init = context_init
        self.n_context = n_context
        self.depth = depth
        self.n_visual_prompts = n_visual_prompts
        self.visual_depth = visual_depth
        self.template = template
        self.text_chunk_size = text_chunk_size
        self.activation_checkpointing = activation_checkpointing

    def learner(self, problem: TuningProblem) -> BothTowersLearner:
        """Return a learner with initial prompts.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws random prompts.

        Returns
        -------
        learner : BothTowersLearner
            The learner.

        Raises
        ------
        BackboneError
            If one of the towers does not support deep prompts.
        ClassNameError
            If the context is too long to be followed by a class name.
        ValueError
            If a parameter is out of range, a tower has fewer blocks than its depth, or ``context_init`` has
            fewer than ``n_context`` tokens.
        """
        return BothTowersLearner(**self._prompts(problem))

    def _prompts(self, problem: TuningProblem) -> dict[str, Any]:
        """Return the parameters of the learner."""
        validate_parameters(self)
        backbone = problem.backbone
        images = image_encoder(backbone, self.name, activation_checkpointing=self.activation_checkpointing)
        depth = depth_of(self.depth, PromptEncoder(backbone).n_blocks, parameter="depth", tower="text tower")
        visual_depth = depth_of(
            self.visual_depth, images.n_blocks, parameter="visual_depth", tower="image tower"
        )
        layout = deep_context_layout(
            problem,
            self.context_init,
            self.n_context,
            depth=depth,
            template=self.template,
            text_chunk_size=self.text_chunk_size,
        )
        shape = visual_depth, self.n_visual_prompts, images.width
        visual = draw_prompts(*shape, backbone=backbone, generator=problem.generator)
        return {"image_encoder": images, "visual_prompts": visual, **layout}
