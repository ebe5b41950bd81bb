"""Tip-Adapter, which compares an image with the training images, and its trained variant."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, pad

from clipcal._compat import Interval, StrOptions, validate_parameters
from clipcal.methods._base import TuningMethod
from clipcal.methods._class_rows import ClassRowLearner
from clipcal.text import DEFAULT_TEMPLATE
from clipcal.training import PixelData, Prompts, Recipe, TrainingData, TuningProblem

__all__ = ["CacheLearner", "TipAdapter", "TipAdapterF"]

_DEFAULTS = {"alpha": 1.0, "beta": 5.5}
_GRIDS = {"alpha": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), "beta": (0.5, 1.0, 2.0, 3.5, 5.5, 8.0, 12.0)}
# Parts into which the images of each class are divided for the search.
_N_PARTS = 4
# Crops of each image in its key if crops are not encoded before training, as in the published code.
_N_CROPS = 10
# Cached images, or queries of the search, that are compared at once.
_BLOCK = 4096


class CacheLearner(ClassRowLearner):
    """Learner that adds similarities to the training images to the zero-shot logits.

    The training images are kept with the learned tensors, by which the learner is rebuilt without data.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem.
    template : str or sequence of str
        Template of the zero-shot text features.
    alpha, beta : float or "search"
        Factor of the similarities, and their sharpness.
    learns_keys : bool
        Whether the features of the training images are parameters.
    """

    keys: Tensor
    targets: Tensor
    weights: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        problem: TuningProblem,
        template: str | Sequence[str],
        *,
        alpha: float | str,
        beta: float | str,
        learns_keys: bool,
    ) -> None:
        super().__init__(problem, template, normalize=True)
        self.learns_keys = learns_keys
        # Column of each class in the sums over the cache, -1 for classes without one. None is the identity.
        self.columns: list[int] | None = None
        given = {"alpha": alpha, "beta": beta}
        if problem.data is None:
            # The tensors are loaded.
            self._allocate(0)
            found = _DEFAULTS
        else:
            keys = _keys(problem.data, problem.generator)
            self._set_cache(keys, problem.data.targets, problem.data.weights)
            found = self._search(given, problem.generator) if "search" in given.values() else _DEFAULTS
        for name, value in given.items():
            number = found[name] if isinstance(value, str) else float(value)
            self.register_buffer(name, torch.tensor(number))

    def _set_cache(self, keys: Tensor, targets: Tensor, weights: Tensor) -> None:
        if self.learns_keys:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("targets", targets)
        self.register_buffer("weights", weights)

    def _allocate(self, n_images: int, device: torch.device | None = None) -> None:
        keys = torch.zeros(n_images, self.embedding_dim, device=device)
        targets = torch.zeros(n_images, dtype=torch.long, device=device)
        self._set_cache(keys, targets, torch.zeros(n_images, device=device))

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the cache, whose number of images is that of the arrays, and the other tensors."""
        self._allocate(np.size(arrays.get("targets", ())), self.alpha.device)
        super().load_arrays(arrays)

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return zero-shot logits plus similarities to the training images of each class."""
        sums = images.new_zeros(len(images), len(self.names))
        for start in range(0, len(self.keys), _BLOCK):
            part = slice(start, start + _BLOCK)
            similarities = _similarities(images, self.keys[part], self.beta)
            sums = sums.index_add(1, self.targets[part], self.weights[part] * similarities)
        if self.columns is not None:
            # Index -1 is the appended column of zeros.
            sums = pad(sums, (0, 1))[:, self.columns]
        return super().logits(images, texts) + self.alpha * sums

    def for_names(self, names: Sequence[str]) -> Self:
        """Return a learner for other classes, of which only training classes have cached images.

        It shares all tensors. Raises ValueError if training classes share a name.
        """
        other = copy.copy(super().for_names(names))
        other.columns = self.rows_of(names)
        return other

    def work(self, prompts: Prompts, batch_size: int) -> float:
        """Return the multiply-adds of the largest matrix product in a step."""
        return max(super().work(prompts, batch_size), float(batch_size * self.keys.numel()))

    def _search(self, given: Mapping[str, float | str], generator: torch.Generator) -> dict[str, float]:
        """Return the values of the grid with the lowest log loss on images that are held out of the cache."""
        parts = _parts(self.targets, generator)
        if (parts < 0).all():
            return _DEFAULTS
        alphas, betas = (
            _GRIDS[name] if isinstance(value, str) else (float(value),) for name, value in given.items()
        )
        losses = self.held_out_losses(parts, alphas, betas)
        row, column = divmod(int(losses.argmin()), len(betas))
        return {"alpha": alphas[row], "beta": betas[column]}

    @torch.no_grad()
    def held_out_losses(self, parts: Tensor, alphas: Sequence[float], betas: Sequence[float]) -> Tensor:
        """Return the log losses of cached images that are predicted without the images of the same part.

        Parameters
        ----------
        parts : Tensor of int, shape (n_images,)
            Part of each cached image; -1 for images that are not predicted.
        alphas, betas : sequence of float

        Returns
        -------
        losses : Tensor, shape (n_alphas, n_betas)
            Weighted means over the predicted images.
        """
        zero_shot = self.logit_scale * self.keys @ self.zero_shot(self.names).T
        nothing = zero_shot.new_zeros(1, len(self.names))
        totals = nothing.index_add(1, self.targets, self.weights[None])
        predicted = (parts >= 0).nonzero()[:, 0]
        losses = torch.zeros(len(alphas), len(betas), device=self.keys.device)
        for rows in predicted.split(_BLOCK // 8):
            kept = self.weights * (parts != parts[rows][:, None])
            sums = nothing.expand(len(rows), -1)
            # With fewer cached images per class, the sums would be smaller than those of the whole cache.
            factor = totals / sums.index_add(1, self.targets, kept)
            for column, beta in enumerate(betas):
                similarities = kept * _similarities(self.keys[rows], self.keys, beta)
                cached = factor * sums.index_add(1, self.targets, similarities)
                for row, alpha in enumerate(alphas):
                    logits = zero_shot[rows] + alpha * cached
                    each = cross_entropy(logits, self.targets[rows], reduction="none")
                    losses[row, column] += (self.weights[rows] * each).sum()
        return losses / self.weights[predicted].sum()


def _similarities(images: Tensor, keys: Tensor, beta: Tensor | float) -> Tensor:
    """Return exp(-beta (1 - cos)) of each image and each key, shape (n_images, n_keys)."""
    return (-beta * (1 - images @ keys.T)).exp()


@torch.no_grad()
def _keys(data: TrainingData, generator: torch.Generator) -> Tensor:
    """Return the normalized mean of the unnormalized features of all views of each image."""
    views: Sequence[int] = range(data.n_views)
    if isinstance(data, PixelData):
        views = torch.randint(data.n_views, (_N_CROPS,), generator=generator).tolist()
    total = sum(torch.cat([batch.raw_embeddings for batch in data.in_order(view=view)]) for view in views)
    return normalize(torch.as_tensor(total), dim=-1)


def _parts(targets: Tensor, generator: torch.Generator) -> Tensor:
    """Divide the images of each class at random into parts; -1 for the only image of a class."""
    order = torch.randperm(len(targets), generator=generator).to(targets.device)
    parts = torch.full_like(targets, -1)
    for target in targets.unique():
        rows = order[targets[order] == target]
        if len(rows) > 1:
            parts[rows] = torch.arange(len(rows), device=targets.device) % _N_PARTS
    return parts


class TipAdapter(TuningMethod):
    """Tip-Adapter: zero-shot logits plus similarities to the training images, without training.

    A cache contains the training images: the key ``k_i`` of image ``i`` is its feature of unit length, and
    its value the one-hot vector of its label. The logits of an image with the feature ``f`` are

    ``z_c = s <f, w_c> + alpha * sum_{i: y_i = c} exp(-beta (1 - <f, k_i>))``

    where ``w_c`` is the zero-shot text feature of class ``c``, and ``s`` the scale of CLIP [1]_.

    Parameters
    ----------
    alpha : float or "search", default=1.0
        Factor of the similarities, at least 0; the "residual ratio" in the paper. 0 is zero-shot CLIP.
        ``"search"`` chooses a value by held-out training images; see the notes.
    beta : float or "search", default=5.5
        Sharpness of the similarities, at least 0. With larger values, only images with very similar features
        count.
    template : str or sequence of str, default="a photo of a {}."
        Template of the zero-shot text features, the name of a known template, or a sequence of these, which
        forms an ensemble; see :func:`clipcal.text.find_templates`. The authors use one template per data set,
        such as ``"oxford_pets"``, and ``"imagenet-7"`` for ImageNet.

    Notes
    -----
    Nothing is trained: training settings such as ``max_epochs`` are ignored, ``history_`` is empty, and
    regularizers raise an error.

    With several views per image (``n_views``), a key is the normalized mean of their unnormalized features.
    The authors use 10 random crops. With ``n_views="fresh"``, 10 crops are drawn.

    The sum over images grows with their number, so the same ``alpha`` has a larger effect with more images
    per class. With ``sample_weight``, the value of an image is multiplied by its weight. Only ratios of
    weights matter: they are scaled to mean 1, so that equal weights have no effect, whereas an image that is
    repeated counts repeatedly.

    With ``"search"``, the images of each class are divided at random into four parts (as many parts as images
    if there are fewer than four). Each part is held out in turn, and its images are predicted with a cache of
    the others, whose similarities are multiplied so that each class keeps its total weight. The values of a
    grid (0.1 to 10 for ``alpha``, 0.5 to 12 for ``beta``) with the lowest log loss, weighted by
    ``sample_weight``, are used with the cache of all images. The only image of a class is never held out. If
    there is only one image of each class, the default values are used. Log loss was preferred to accuracy,
    since it also measures the confidence, and as few images have the same accuracy for many values. The
    values used are ``learned_["alpha"]`` and ``learned_["beta"]``.

    New classes have no images in the cache. As an extension of the published method, their logits in
    ``with_classes`` are the zero-shot logits. Among known and new classes, the similarities are added to the
    logits of the known classes only, which favors these. The text features are the zero-shot features.

    Formula, keys and values were verified with the authors' public code. The default values of ``alpha`` and
    ``beta``, from the paper's experiments on ImageNet, are not in the code: there, the values start at
    ``alpha=1.17, beta=1`` (ImageNet) or ``alpha=2, beta=1`` (DTD), and are then searched in ranges that
    depend on the data set, by accuracy on the validation set, or for ImageNet on the test images.

    References
    ----------
    .. [1] R. Zhang, W. Zhang, R. Fang, P. Gao, K. Li, J. Dai, Y. Qiao, H. Li, "Tip-Adapter: Training-free
       Adaption of CLIP for Few-shot Classification", ECCV 2022, arXiv:2207.09519.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> from clipcal.methods import TipAdapter
    >>> X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    >>> method = TipAdapter(alpha="search", beta="search")
    >>> clf = PromptTunedCLIPClassifier("mini", method=method, random_state=0).fit(X, y)
    >>> clf.learned_["keys"].shape, clf.history_
    ((56, 128), [])
    """

    name: ClassVar[str] = "tip-adapter"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType({"original": Recipe(max_epochs=0)})
    linear: ClassVar[bool] = False
    training_free: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"search"})],
        "beta": [Interval(Real, 0, None, closed="left"), StrOptions({"search"})],
        "template": [str, "array-like"],
    }

    def __init__(
        self,
        alpha: float | str = 1.0,
        beta: float | str = 5.5,
        *,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
    ) -> None:
        self.alpha = alpha
        self.beta = beta
        self.template = template

    def learner(self, problem: TuningProblem) -> CacheLearner:
        """Return a learner whose cache contains the data of the problem.

        Parameters
        ----------
        problem : TuningProblem
            The tuning problem. Its generator draws the images that are held out in a search.

        Returns
        -------
        learner : CacheLearner
            The learner.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        ClassNameError
            If the template is invalid.
        """
        validate_parameters(self)
        return CacheLearner(
            problem, self.template, alpha=self.alpha, beta=self.beta, learns_keys=not self.training_free
        )


class TipAdapterF(TipAdapter):
    """Tip-Adapter-F: Tip-Adapter whose keys are trained.

    The keys ``k_i`` start at the features of the training images, and are trained to minimize the
    cross-entropy. All else is as in :class:`TipAdapter` [1]_.

    Parameters
    ----------
    alpha : float or "search", default=1.0
        See :class:`TipAdapter`. A value is searched before the training.
    beta : float or "search", default=5.5
        See :class:`TipAdapter`.
    template : str or sequence of str, default="a photo of a {}."
        See :class:`TipAdapter`.

    Notes
    -----
    There is one vector per training image, so the number of parameters grows with the data. The vectors are
    not normalized during the training, as in the published code. Training images are compared with a cache
    that contains them. Unless ``n_views`` is larger than 1, each image has a similarity of 1 to itself at the
    start.

    Text features and image features are not learned, so the regularizers ``"dor"`` and ``"kg"`` raise an
    error.

    The original recipe is that of the authors' public code: 20 epochs of AdamW with a learning rate of 0.001,
    ``eps=1e-4`` and torch's weight decay of 0.01, batches of 256, and a cosine without a warm-up. The code
    changes the learning rate in each step, here it changes in each epoch. The code keeps the keys of the
    epoch with the highest accuracy on the test images, which its authors have called a mistake, and searches
    ``alpha`` and ``beta`` after the training; here the last epoch is used.

    References
    ----------
    .. [1] R. Zhang, W. Zhang, R. Fang, P. Gao, K. Li, J. Dai, Y. Qiao, H. Li, "Tip-Adapter: Training-free
       Adaption of CLIP for Few-shot Classification", ECCV 2022, arXiv:2207.09519.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier("mini", method="tip-adapter-f", random_state=0).fit(X, y)
    >>> clf.learned_["keys"].shape, len(clf.history_)
    ((56, 128), 20)
    """

    name: ClassVar[str] = "tip-adapter-f"
    recipes: ClassVar[Mapping[str, Recipe]] = MappingProxyType(
        {
            "original": Recipe(
                max_epochs=20,
                learning_rate=0.001,
                batch_size=256,
                optimizer="adamw",
                optimizer_options=MappingProxyType({"eps": 1e-4}),
                weight_decay=0.01,
                warmup_epochs=0,
                drop_last=False,
            )
        }
    )
    training_free: ClassVar[bool] = False
