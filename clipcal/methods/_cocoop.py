"""CoCoOp, whose context is shifted by a small network of the image features."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clipcal._compat import Interval, StrOptions, validate_parameters
from clipcal.backbones import Backbone
from clipcal.methods._base import TuningMethod
from clipcal.methods._coop import ContextLearner, CoOp
from clipcal.training import Prompts, Recipe, TrainingData, TuningProblem

__all__ = ["CoCoOp", "ConditionalContextLearner"]

# The hidden layer of the meta-net is this many times smaller than the image features.
_REDUCTION = 16


class ConditionalContextLearner(ContextLearner):
    """Learner of context vectors and of a network that shifts them for each image.

    Parameters
    ----------
    backbone : Backbone
        The frozen CLIP.
    context : Tensor, shape (n_context, token_dim)
        Initial context.
    mean_image : Tensor, shape (embedding_dim,)
        Image features for which :meth:`encode_texts` computes text features without images.
    **layout
        Other parameters of :class:`ContextLearner`.
    """

    mean_image: Tensor

    def __init__(self, backbone: Backbone, context: Tensor, mean_image: Tensor, **layout: Any) -> None:
        super().__init__(backbone, context, **layout)
        n_hidden = max(1, backbone.embedding_dim // _REDUCTION)
        self.meta_net = nn.Sequential(
            nn.Linear(backbone.embedding_dim, n_hidden), nn.ReLU(), nn.Linear(n_hidden, backbone.token_dim)
        )
        self.register_buffer("mean_image", mean_image)

    def raw_texts(self, prompts: Prompts, images: Tensor | None) -> Tensor:
        """Encode prompts for each image, or for the mean training image, without normalization."""
        shifts = self.meta_net(self.mean_image[None] if images is None else images)
        features = self.encoder(prompts, self.context + shifts[:, None, None, :])
        return features[0] if images is None else features

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in a step."""
        return self.encoder.work(prompts, self.context.expand(batch_size, 1, -1, -1))


class CoCoOp(TuningMethod):
    """Conditional Context Optimization (CoCoOp): a context that depends on the image.

    A network of two layers, the meta-net ``h``, shifts all context vectors ``V_m`` of CoOp by the same
    vector, computed from the image feature ``f(x)`` of unit length: ``V_m(x) = V_m + h(f(x))`` [1]_. The
    logit of class ``c`` is ``s * cos(f(x), w_c(x))``, where ``w_c(x)`` is its text feature in the context
    ``V(x)``. The context and the meta-net are trained to minimize the cross-entropy.

    Parameters
    ----------
    context_init : str or None, default="a photo of a"
        Text whose token embeddings initialize the context; see :class:`CoOp`. If None, the vectors are drawn
        from a normal distribution with standard deviation 0.02.
    n_context : int or None, default=None
        Number of context vectors; see :class:`CoOp`.
    template : str, default="{}."
        Template of the class name, whose words are not trained; see :class:`CoOp`.
    text_chunk_size : int or "auto", default="auto"
        Number of prompts encoded at once, for all images of a batch; see :class:`CoOp`.

    Notes
    -----
    Every image has text features of its own. Training and prediction encode the prompts of all classes for
    each image, and the time is proportional to the number of images. The original recipe therefore has
    batches of one image and 10 epochs. A batch of one image has only one weight, so ``sample_weight`` has no
    effect unless ``batch_size`` is larger.

    The fitted attribute ``text_features_`` contains the text features for the mean image: the normalized
    weighted mean of the normalized features of the training images, each in its first view. Predictions do
    not use it; feature divergence and calibrators that compare text features do. The published code has no
    such features, and hands those of the last image of a batch to calibrators.

    The hidden layer of the meta-net has one unit per 16 image features. Its initial weights and biases are
    those of ``torch.nn.Linear``, as in the published code, so the shift is not zero before training, and the
    initial predictions differ from zero-shot CLIP even if the context starts from words.

    ``regularizer="dor"`` encodes the outliers in the context of each image of a batch, and ``"kg"`` compares
    the class features of each image. Both are averaged over the images with their weights.

    References
    ----------
    .. [1] K. Zhou, J. Yang, C. C. Loy, Z. Liu, "Conditional Prompt Learning for Vision-Language Models",
       CVPR 2022, arXiv:2203.05557. Section 3.2.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier, make_shapes
    >>> from clipcal.methods import CoCoOp
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> method = CoCoOp(context_init=None, n_context=2)
    >>> clf = PromptTunedCLIPClassifier("mini", method=method, max_epochs=1, random_state=0).fit(X, y)
    >>> clf.learned_["context"].shape, clf.learned_["meta_net.0.weight"].shape
    ((2, 128), (8, 128))
    >>> clf.with_classes(["circle", "star"]).predict_proba(X[:5]).shape
    (5, 2)
    """

    name: ClassVar[str] = "cocoop"
    linear: ClassVar[bool] = False
    text_depends_on_image: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {"original": Recipe(max_epochs=10, batch_size=1)}
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "context_init": [str, None],
        "n_context": [Interval(Integral, 1, None, closed="left"), None],
        "template": [str],
        "text_chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        context_init: str | None = "a photo of a",
        *,
        n_context: int | None = None,
        template: str = "{}.",
        text_chunk_size: int | str = "auto",
    ) -> None:
        self.context_init = context_init
        self.n_context = n_context
        self.template = template
        self.text_chunk_size = text_chunk_size

    def learner(self, problem: TuningProblem) -> ConditionalContextLearner:
        """Return a learner with the initial context and meta-net.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws a random context.

        Returns
        -------
        learner : ConditionalContextLearner
            The learner.

        Raises
        ------
        ClassNameError
            If the context is too long to be followed by a class name.
        ValueError
            If a parameter is out of range, or ``n_context`` contradicts ``context_init``.
        """
        validate_parameters(self)
        start = CoOp(**self.get_params(deep=False)).learner(problem)
        width = problem.backbone.embedding_dim
        return ConditionalContextLearner(
            problem.backbone,
            start.context,
            torch.zeros(width) if problem.data is None else _mean_image(problem.data),
            **start.layout,
        )


@torch.no_grad()
def _mean_image(data: TrainingData) -> Tensor:
    """Return the normalized weighted mean of the image features, shape (embedding_dim,)."""
    total = sum(batch.weights @ batch.embeddings for batch in data.in_order())
    return nn.functional.normalize(torch.as_tensor(total), dim=0)
