"""Visual outlier regularization, which keeps image features of other classes at their frozen features."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from clipcal._compat import Interval, validate_parameters
from clipcal.backbones import upload
from clipcal.datasets import make_shapes
from clipcal.regularizers._base import Regularizer
from clipcal.text import name_key
from clipcal.training import Batch, Forward, Learner, LossTerm, PixelData, TrainingData, TuningProblem

__all__ = ["VisualOutlierRegularizer"]

_TASKS = ("shapes", "textures")
_N_PER_CLASS = 8
# Images that pass the image tower in each step, if the method reads pixels; as many as the training images
# in a batch of the published recipes of these methods.
_N_ENCODED = 4


class _VisualOutlierTerm(LossTerm):
    name = "dor-visual"

    def __init__(self, weight: float, data: TrainingData, batch_size: int) -> None:
        self.weight = weight
        self.data = data
        self.batch_size = min(batch_size, len(data))
        self.drawn = torch.empty(0, dtype=torch.long)
        self.targets = torch.empty(0)
        # Before training, so that unreadable images are found.
        for batch in data.in_order():
            _ = batch.embeddings

    def draw(self, generator: torch.Generator) -> Batch:
        """Draw outliers uniformly without replacement."""
        drawn = torch.randperm(len(self.data), generator=generator)[: self.batch_size]
        self.drawn = upload(drawn, self.data.index_device)
        batch = self.data.batch(self.drawn, torch.zeros_like(self.drawn))
        self.targets = batch.embeddings
        return batch

    def __call__(self, out: Forward, batch: Batch, drawn: Tensor | None) -> Tensor:
        assert drawn is not None
        return self.weight * (1 - (normalize(drawn, dim=-1) * self.targets).sum(dim=-1).mean())


class VisualOutlierRegularizer(Regularizer):
    """Dynamic outlier regularization of image features (DOR-V), for methods that train these.

    In each step, a batch of images ``x_b`` that show none of the training classes is drawn. The loss term
    ``weight * (1 - mean_b cos(F(x_b), f(x_b)))`` keeps the tuned image feature ``F(x)`` near the feature
    ``f(x)`` of the frozen CLIP. It does not constrain the features of training images.

    Parameters
    ----------
    weight : float, default=2.0
        Factor of the loss term, at least 0.
    images : images, embeddings or None, default=None
        Images that show none of the training classes, or their embeddings of shape (n_images, n_features), in
        any form that ``fit`` of the classifier accepts. If None, 304 generated
        images (:func:`clipcal.datasets.make_shapes`) without those of the training classes. They are far from
        photographs: use images of a similar kind as the training images where possible.
    n_outliers : int or None, default=None
        Number of images drawn in each step. If None, it is the number of training classes, or 4 for methods
        that prompt the image tower, as each drawn image passes the tower.

    Notes
    -----
    The images are encoded once by the frozen CLIP, before training, as center crops. Methods that prompt the
    image tower need images instead of embeddings, and encode those that are drawn. Images are drawn
    uniformly without replacement. Whether they show training classes is not checked, except by the names of
    generated images.

    Methods that do not train image features, such as CoOp, raise an error.

    The paper describes this variant for methods with frozen text features, VPT and CLIP-Adapter. Its images,
    their number and the weight could not be verified, as its code is not available; the default weight is
    that of ``"dor"`` for methods other than CoOp.

    References
    ----------
    .. [1] S. Wang, Y. Li, H. Wei, "Understanding and Mitigating Miscalibration in Prompt Tuning for
       Vision-Language Models", ICML 2025, arXiv:2410.02681.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.regularizers import VisualOutlierRegularizer
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> others, _ = make_shapes("shapes", n_per_class=2, random_state=0, return_X_y=True)
    >>> dor = VisualOutlierRegularizer(images=others, n_outliers=5)
    >>> clf = PromptTunedCLIPClassifier(
    ...     "mini", method="clip-adapter", regularizer=dor, max_epochs=1, random_state=0
    ... ).fit(X, y)
    >>> 0 < clf.history_[0]["dor-visual"] < 2
    True
    """

    name = "dor-visual"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "weight": [Interval(Real, 0, None, closed="left")],
        "images": "no_validation",
        "n_outliers": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(self, weight: float = 2.0, *, images: Any = None, n_outliers: int | None = None) -> None:
        self.weight = weight
        self.images = images
        self.n_outliers = n_outliers

    def prepare(self, problem: TuningProblem, learner: Learner) -> LossTerm:
        """Encode the images and return the loss term.

        Parameters
        ----------
        problem : TuningProblem
        learner : Learner

        Returns
        -------
        term : LossTerm

        Raises
        ------
        ValueError
            If the method does not train image features, there are no images, or the embeddings have another
            width than those of the backbone.
        TypeError
            If `images` contains no images.
        ImageReadError
            If an image cannot be read.
        """
        validate_parameters(self)
        assert problem.data is not None and problem.other_images is not None
        with torch.enable_grad():
            features = learner.encode_images(problem.data.first(1))
        if not features.requires_grad:
            raise ValueError(
                f"regularizer='dor-visual' has no effect on method={problem.method!r}, which does not train "
                "the image features; use a method that does, such as 'clip-adapter', or, if the method "
                "trains text features, regularizer='dor'."
            )
        images = _generated(problem) if self.images is None else self.images
        try:
            data = problem.other_images(images)
        except (TypeError, ValueError) as error:
            # The message alone would not tell these images from those of the training data.
            raise type(error)(f"The images of regularizer='dor-visual' cannot be used. {error}") from error
        return _VisualOutlierTerm(float(self.weight), data, self._batch_size(problem))

    def _batch_size(self, problem: TuningProblem) -> int:
        if self.n_outliers is not None:
            return self.n_outliers
        return _N_ENCODED if isinstance(problem.data, PixelData) else len(problem.names)


def _generated(problem: TuningProblem) -> NDArray[np.uint8]:
    """Return generated images whose class is no training class."""
    taken = {name_key(name) for name in problem.names}
    found = []
    for task in _TASKS:
        # The same images in all fits, so that their features can be cached.
        images, names = make_shapes(task, n_per_class=_N_PER_CLASS, random_state=0, return_X_y=True)
        found.append(images[[name_key(name) not in taken for name in names]])
    kept = np.concatenate(found)
    if len(kept) == 0:
        raise ValueError(
            "All classes of generated images are training classes, so there are no outliers; pass images of "
            "other classes: VisualOutlierRegularizer(images=...)."
        )
    return kept
