"""Tuning problems, training data, and the inputs and outputs of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from clipcal.backbones import Backbone

__all__ = ["Batch", "EmbeddedData", "Forward", "PixelData", "TrainingData", "TuningProblem"]


@dataclass(frozen=True)
class Batch:
    """The n samples of one training step.

    Attributes
    ----------
    embeddings : Tensor, shape (n, embedding_dim)
        Image features of the frozen CLIP, normalized to unit length.
    norms : Tensor, shape (n,)
        Norms of the features before normalization.
    targets : Tensor of int, shape (n,)
        Class indices.
    weights : Tensor, shape (n,)
        Sample weights, with mean 1 over the training data.
    pixels : Tensor, shape (n, 3, height, width), or None
        Pixels of the same views, or None if the learner does not need them.
    """

    embeddings: Tensor
    norms: Tensor
    targets: Tensor
    weights: Tensor
    pixels: Tensor | None = None

    @property
    def raw_embeddings(self) -> Tensor:
        """The image features without normalization."""
        return self.embeddings * self.norms[:, None]

    def mean(self, losses: Tensor) -> Tensor:
        """Return the mean of one loss per sample (n,) times its weight.

        The sum is divided by n and not by the weights of the batch: otherwise the effect of a weight would
        depend on the other samples of the batch, and weights would have no effect in batches of one.
        """
        return (self.weights * losses).mean()

    def average(self, values: Tensor) -> Tensor:
        """Return the weighted average of one value per sample (n,), for statistics of the batch."""
        return (self.weights * values).sum() / self.weights.sum().clamp(min=torch.finfo(values.dtype).tiny)


@dataclass(frozen=True)
class Forward:
    """Output of the forward pass, from which losses are computed.

    Attributes
    ----------
    images : Tensor, shape (n, embedding_dim)
        Image features.
    texts : Tensor, shape (n_classes, embedding_dim) or (n, n_classes, embedding_dim)
        Text features of the classes. They have the second shape if they depend on the image.
    logits : Tensor, shape (n, n_classes)
        Logits.
    extra : dict of str to Tensor
        Other results of a method, such as a second set of logits.
    """

    images: Tensor
    texts: Tensor
    logits: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingData:
    """Base class of training data on the device, either embeddings or pixels.

    Attributes
    ----------
    targets : Tensor of int, shape (n_samples,)
        Class indices.
    weights : Tensor, shape (n_samples,)
        Sample weights, which are rescaled to mean 1.
    """

    targets: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        # Tiny weights may be zero in float32.
        mean = self.weights.mean().clamp(min=torch.finfo(self.weights.dtype).tiny)
        object.__setattr__(self, "weights", self.weights / mean)

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, batch_size: int, generator: torch.Generator, *, drop_last: bool = True
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch in random order, with a random view of each sample.

        Parameters
        ----------
        batch_size : int
            Number of samples per batch. If there are fewer samples, they form one batch.
        generator : torch.Generator
            Random number generator on the device of the data.
        drop_last : bool, default=True
            Whether an incomplete last batch is dropped.
        """
        n_samples, device = len(self), self.targets.device
        order = torch.randperm(n_samples, generator=generator, device=device)
        views = torch.randint(self.n_views, (n_samples,), generator=generator, device=device)
        size = min(batch_size, n_samples)
        for start in range(0, n_samples - size + 1 if drop_last else n_samples, size):
            rows = order[start : start + size]
            yield self._batch(rows, views[rows])

    def in_order(self, batch_size: int = 64, *, view: int = 0) -> Iterator[Batch]:
        """Yield all samples in their order, with the given view; the first one by default."""
        for rows in torch.arange(len(self), device=self.targets.device).split(batch_size):
            yield self._batch(rows, torch.full_like(rows, view))

    def take(self, rows: Tensor, targets: Tensor) -> Self:
        """Return the samples of some rows, with new class indices.

        Parameters
        ----------
        rows : Tensor of int, shape (n_rows,)
        targets : Tensor of int, shape (n_rows,)
        """
        raise NotImplementedError

    @property
    def n_views(self) -> int:
        """Number of views to draw from for each sample."""
        raise NotImplementedError

    def _batch(self, rows: Tensor, views: Tensor) -> Batch:
        raise NotImplementedError


@dataclass(frozen=True)
class EmbeddedData(TrainingData):
    """Training images that are encoded before training.

    Attributes
    ----------
    embeddings : Tensor, shape (n_samples, n_views, embedding_dim)
        Image features, normalized to unit length.
    norms : Tensor, shape (n_samples, n_views)
        Norms of the features before normalization.
    """

    embeddings: Tensor
    norms: Tensor

    @classmethod
    def from_raw(cls, embeddings: Tensor, targets: Tensor, weights: Tensor) -> EmbeddedData:
        """Normalize embeddings (n_samples, n_views, embedding_dim) and move them to the device of `targets`.

        The embeddings are normalized in their own precision and then converted to float32.
        """
        unit, norms = (part.float().to(targets.device) for part in _directions_and_norms(embeddings))
        return cls(targets, weights, unit, norms)

    def take(self, rows: Tensor, targets: Tensor) -> Self:
        """Return the samples of some rows, with new class indices."""
        return replace(
            self,
            targets=targets,
            weights=self.weights[rows],
            embeddings=self.embeddings[rows],
            norms=self.norms[rows],
        )

    @property
    def n_views(self) -> int:
        """Number of views of each image."""
        return self.embeddings.shape[1]

    def _batch(self, rows: Tensor, views: Tensor) -> Batch:
        return Batch(
            self.embeddings[rows, views], self.norms[rows, views], self.targets[rows], self.weights[rows]
        )


@dataclass(frozen=True)
class PixelData(TrainingData):
    """Training images that are read and encoded in each step.

    Attributes
    ----------
    load : callable
        ``load(rows, seeds)`` returns pixels (n, 3, height, width) on the CPU, for a list of n sample indices
        and a list of n seeds for random crops.
    encode : callable
        ``encode(pixels)`` returns the image features of the frozen CLIP, shape (n, embedding_dim).
    """

    load: Callable[[list[int], list[int]], Tensor]
    encode: Callable[[Tensor], Tensor]

    def take(self, rows: Tensor, targets: Tensor) -> Self:
        """Return the samples of some rows, with new class indices."""
        kept = rows.tolist()

        def load(positions: list[int], seeds: list[int]) -> Tensor:
            return self.load([kept[position] for position in positions], seeds)

        return replace(self, targets=targets, weights=self.weights[rows], load=load)

    @property
    def n_views(self) -> int:
        """Number of different seeds for random crops."""
        return 2**31 - 1

    def _batch(self, rows: Tensor, views: Tensor) -> Batch:
        pixels = self.load(rows.tolist(), views.tolist())
        unit, norms = _directions_and_norms(self.encode(pixels))
        return Batch(unit, norms, self.targets[rows], self.weights[rows], pixels.to(unit.device))


def _directions_and_norms(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    norms = embeddings.norm(dim=-1).clamp(min=1e-12)
    return embeddings / norms[..., None], norms


@dataclass(frozen=True)
class TuningProblem:
    """Inputs of a tuning method and its regularizers.

    Attributes
    ----------
    backbone : Backbone
        The frozen CLIP.
    names : sequence of str, length n_classes
        Names of the base classes.
    zero_shot : callable
        ``zero_shot(names, template)`` returns zero-shot text features of unit length, shape
        (n_names, embedding_dim). With ``normalize=False``, they are not normalized.
    zero_shot_table : callable
        The same function for long lists, with cached results. The features of names that are too long for
        the backbone are zeros.
    generator : torch.Generator
        Random number generator for initial values, on the CPU.
    data : TrainingData or None, default=None
        The training data, or None if a fitted learner is rebuilt.
    method : str, default=""
        Name of the method.
    regularizers : sequence of str, default=()
        Names of all regularizers of the fit.
    other_images : callable or None, default=None
        ``other_images(images)`` returns images or embeddings that are not in the training data as
        :class:`TrainingData` without labels, with the features of the frozen CLIP. It is a
        :class:`PixelData` if the method reads pixels in each step. None if a fitted learner is rebuilt.
    """

    backbone: Backbone
    names: Sequence[str]
    zero_shot: Callable[..., Tensor]
    zero_shot_table: Callable[..., Tensor]
    generator: torch.Generator
    data: TrainingData | None = None
    method: str = ""
    regularizers: Sequence[str] = ()
    other_images: Callable[[Any], TrainingData] | None = None
