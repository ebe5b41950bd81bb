"""MaPLe, whose prompts in the image tower are linear maps of those in the text tower."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from clipcal._compat import validate_parameters
from clipcal.methods._base import TuningMethod
from clipcal.methods._deep_context import DEEP_CONTEXT_CONSTRAINTS, DeepContextLearner, deep_context_layout
from clipcal.methods._prompted_images import PromptedImagesMixin, depth_of, image_encoder
from clipcal.training import ImagePromptEncoder, PromptEncoder, Recipe, TuningProblem

__all__ = ["CoupledLearner", "MaPLe"]

_RECIPE = Recipe(max_epochs=5, learning_rate=0.0035, batch_size=4)


class CoupledLearner(PromptedImagesMixin, DeepContextLearner):
    """Learner of prompts in the text tower, and of linear maps of them to prompts in the image tower.

    Parameters
    ----------
    image_encoder : ImagePromptEncoder
        Encoder of the images.
    **layout
        Parameters of :class:`DeepContextLearner`.
    """

    def __init__(self, image_encoder: ImagePromptEncoder, **layout: Any) -> None:
        super().__init__(**layout)
        self.image_encoder = image_encoder
        first, deep = (nn.Linear(self.context.shape[-1], image_encoder.width) for _ in range(2))
        # The deep maps start equal, as in the published code.
        self.couplings = nn.ModuleList([first, *(copy.deepcopy(deep) for _ in self.deep_context)])

    def image_prompts(self) -> dict[int, Tensor]:
        """Return the prompts of the image tower, computed from those of the text tower."""
        of_text = [self.context, *self.deep_context]
        maps = zip(self.couplings, of_text, strict=True)
        return {block: coupling(prompt) for block, (coupling, prompt) in enumerate(maps)}


class MaPLe(TuningMethod):
    """Multi-modal prompt learning (MaPLe): coupled prompts in the text and the image tower.

    The prompt of class ``c`` is ``[V_1 ... V_M] name_c.``, as in :class:`CoOp`. At the inputs of the next
    ``depth - 1`` blocks of the text tower, the vectors in these positions are replaced by further learned
    vectors. In the image tower, M tokens are appended to the patches, and are replaced in the same
    blocks. They are not learned themselves: those of block ``k`` are a linear map ``F_k`` of the vectors of
    block ``k`` of the text tower, and the weights and biases of the maps are learned [1]_. All are trained to
    minimize the cross-entropy.

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        Text whose token embeddings initialize the context; see :class:`CoOp`. Only the first `n_context`
        tokens are learned; the others stay in the prompt. If None, all vectors are drawn from a normal
        distribution with standard deviation 0.02.
    n_context : int, default=2
        Number M of vectors per block, at most the number of tokens of ``context_init``.
    depth : int or None, default=None
        Number of blocks with prompts of their own, in both towers. If None, it is 9, as published, or three
        quarters of the blocks of a tower with fewer than 12 blocks, for which the authors give no value.
    template : str, default="{}."
        Template of the class name, whose words are not trained; see :class:`CoOp`.
    text_chunk_size : int or "auto", default="auto"
        Number of prompts encoded at once; see :class:`CoOp`.
    activation_checkpointing : bool, default=False
        Whether the backward pass computes the inside of each block of the image tower again, which needs less
        memory and more time.

    Notes
    -----
    Images pass the image tower in each step, so the method needs images instead of embeddings. What does not
    depend on prompts, the embedded patches, is computed once for each view and kept in memory as far as it
    fits. All blocks depend on the prompts.

    The prompts can be used for new classes and for the nouns of ``regularizer="dor"``, which gives the maps
    no gradient. ``"dor-visual"`` needs images of other classes.

    The original recipe is 5 epochs with batches of 4 and a learning rate of 0.0035. ``recipe="dor"`` starts
    from two random vectors, as far as the published code of the authors of DOR shows. The published code
    rounds prompts to half precision; here they are float32.

    References
    ----------
    .. [1] M. U. Khattak, H. Rasheed, M. Maaz, S. Khan, F. S. Khan, "MaPLe: Multi-modal Prompt Learning",
       CVPR 2023, arXiv:2210.03117.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier, make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", method="maple", max_epochs=1, random_state=0).fit(X, y)
    >>> clf.learned_["context"].shape, clf.learned_["deep_context"].shape
    ((2, 128), (2, 2, 128))
    >>> clf.with_classes(["circle", "star"]).predict_proba(X[:5]).shape
    (5, 2)
    """

    name: ClassVar[str] = "maple"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {
            "original": _RECIPE,
            "dor": _RECIPE.with_values(method_params=MappingProxyType({"context_init": None})),
        }
    )
    needs_pixels: ClassVar[bool] = True
    linear: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DEEP_CONTEXT_CONSTRAINTS,
        "activation_checkpointing": ["boolean"],
    }

    def __init__(
        self,
        context_init: str | None = "a photo of a",
        *,
        n_context: int = 2,
        depth: int | None = None,
        template: str = "{}.",
        text_chunk_size: int | str = "auto",
        activation_checkpointing: bool = False,
    ) -> None:
        self.context_init = context_init
        self.n_context = n_context
        self.depth = depth
        self.template = template
        self.text_chunk_size = text_chunk_size
        self.activation_checkpointing = activation_checkpointing

    def learner(self, problem: TuningProblem) -> CoupledLearner:
        """Return a learner with initial prompts and maps.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws random prompts.

        Returns
        -------
        learner : CoupledLearner
            The learner.

        Raises
        ------
        BackboneError
            If one of the towers does not support deep prompts.
        ClassNameError
            If the context is too long to be followed by a class name.
        ValueError
            If a parameter is out of range, a tower has fewer than `depth` blocks, or ``context_init`` has
            fewer than ``n_context`` tokens.
        """
        validate_parameters(self)
        images = image_encoder(
            problem.backbone, self.name, activation_checkpointing=self.activation_checkpointing
        )
        n_blocks = min(images.n_blocks, PromptEncoder(problem.backbone).n_blocks)
        layout = deep_context_layout(
            problem,
            self.context_init,
            self.n_context,
            depth=depth_of(self.depth, n_blocks, parameter="depth", tower="smaller tower"),
            template=self.template,
            text_chunk_size=self.text_chunk_size,
        )
        return CoupledLearner(images, **layout)
