"""Training data on the device, and the inputs of a training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

__all__ = ["Batch", "EmbeddedData", "TrainingData", "directions_and_norms"]


@dataclass(frozen=True)
class Batch:
    """The n samples of one training step.

    See :doc:`/development/adding_a_method`.

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
        Pixels of the same views, or None if the data are embeddings.
    patches : Tensor, shape (n, n_tokens, width), or None
        Input of the first block of the image tower for the same views, or None if the data are embeddings or
        the backbone has no ``embed_pixels``.
    """

    embeddings: Tensor
    norms: Tensor
    targets: Tensor
    weights: Tensor
    pixels: Tensor | None = None
    patches: Tensor | None = None

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
class TrainingData:
    """Base class of training data on the device, either embeddings or pixels.

    See :doc:`/development/adding_a_method`.

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
        order = torch.randperm(n_samples, generator=generator, device=device).to(self.index_device)
        views = torch.randint(self.n_views, (n_samples,), generator=generator, device=device)
        views = views.to(self.index_device)
        size = min(batch_size, n_samples)
        for start in range(0, n_samples - size + 1 if drop_last else n_samples, size):
            rows = order[start : start + size]
            yield self.batch(rows, views[rows])

    def in_order(self, batch_size: int = 64, *, view: int = 0) -> Iterator[Batch]:
        """Yield all samples in their order, with the given view; the first one by default."""
        for rows in torch.arange(len(self), device=self.index_device).split(batch_size):
            yield self.batch(rows, torch.full_like(rows, view))

    def first(self, n: int) -> Batch:
        """Return the first view of the first n samples, or of all if there are fewer."""
        rows = torch.arange(min(n, len(self)), device=self.index_device)
        return self.batch(rows, torch.zeros_like(rows))

    def take(self, rows: Tensor, targets: Tensor) -> Self:
        """Return the samples of some rows, with new class indices.

        Parameters
        ----------
        rows : Tensor of int, shape (n_rows,)
        targets : Tensor of int, shape (n_rows,)
        """
        raise NotImplementedError

    def batch(self, rows: Tensor, views: Tensor) -> Batch:
        """Return the given view of each of the given samples.

        Parameters
        ----------
        rows : Tensor of int, shape (n,), on `index_device`
        views : Tensor of int, shape (n,), on `index_device`
            Numbers of views, from 0 to ``n_views - 1``.
        """
        raise NotImplementedError

    @property
    def n_views(self) -> int:
        """Number of views to draw from for each sample."""
        raise NotImplementedError

    @property
    def index_device(self) -> torch.device:
        """Device of the indices that :meth:`batch` takes."""
        return self.targets.device


@dataclass(frozen=True)
class EmbeddedData(TrainingData):
    """Training images that are encoded before training.

    See :doc:`/development/adding_a_method`.

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
        unit, norms = (part.float().to(targets.device) for part in directions_and_norms(embeddings))
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

    def batch(self, rows: Tensor, views: Tensor) -> Batch:
        """Return the given view of each of the given samples."""
        return Batch(
            self.embeddings[rows, views], self.norms[rows, views], self.targets[rows], self.weights[rows]
        )


def directions_and_norms(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings of unit length, and their norms before."""
    norms = embeddings.norm(dim=-1).clamp(min=1e-12)
    return embeddings / norms[..., None], norms
