"""What is tuned, and what a step of training sees of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clipcal.backbones import Backbone

__all__ = ["Batch", "EmbeddedData", "Forward", "PixelData", "TrainingData", "TuningProblem"]


@dataclass(frozen=True)
class Batch:
    """The samples of one step, n of them.

    Attributes
    ----------
    embeddings : Tensor, shape (n, embedding_dim)
        Image features of the frozen CLIP, of unit length.
    norms : Tensor, shape (n,)
        The lengths that the features had.
    targets : Tensor of int, shape (n,)
        Positions in the class order.
    weights : Tensor, shape (n,)
        Sample weights.
    pixels : Tensor, shape (n, 3, height, width), or None
        Pixels of the same views, where the learner needs them.
    """

    embeddings: Tensor
    norms: Tensor
    targets: Tensor
    weights: Tensor
    pixels: Tensor | None = None

    @property
    def raw_embeddings(self) -> Tensor:
        """The image features as the image tower gives them, not normalised."""
        return self.embeddings * self.norms[:, None]

    def mean(self, losses: Tensor) -> Tensor:
        """Return the weighted mean of one loss per sample (n,)."""
        return (self.weights * losses).sum() / self.weights.sum()


@dataclass(frozen=True)
class Forward:
    """What a loss may depend on.

    Attributes
    ----------
    images : Tensor, shape (n, embedding_dim)
        Image features.
    texts : Tensor, shape (n_classes, embedding_dim) or (n, n_classes, embedding_dim)
        Text features of the classes; the second shape where the text depends on the image.
    logits : Tensor, shape (n, n_classes)
    extra : dict of str to Tensor
        Other results of a method, such as a second set of logits.
    """

    images: Tensor
    texts: Tensor
    logits: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingData:
    """Base of training data on the device: what is common to embedded images and pixels.

    Attributes
    ----------
    targets : Tensor of int, shape (n_samples,)
        Positions in the class order.
    weights : Tensor, shape (n_samples,)
        Sample weights.
    """

    targets: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, batch_size: int, generator: torch.Generator, *, drop_last: bool = True
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch in random order, with a random view of each sample.

        Parameters
        ----------
        batch_size : int
            Data smaller than a batch is one batch.
        generator : torch.Generator
            On the data's device.
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

    @property
    def n_views(self) -> int:
        """Number of views to draw from for each sample."""
        raise NotImplementedError

    def _batch(self, rows: Tensor, views: Tensor) -> Batch:
        raise NotImplementedError


@dataclass(frozen=True)
class EmbeddedData(TrainingData):
    """Training images that were embedded before training.

    Attributes
    ----------
    embeddings : Tensor, shape (n_samples, n_views, embedding_dim)
        Of unit length.
    norms : Tensor, shape (n_samples, n_views)
        The lengths that the embeddings had.
    """

    embeddings: Tensor
    norms: Tensor

    @classmethod
    def from_raw(cls, embeddings: Tensor, targets: Tensor, weights: Tensor) -> EmbeddedData:
        """Normalise embeddings (n_samples, n_views, embedding_dim) in their precision, then move them.

        Targets and weights are on the device of the training.
        """
        unit, norms = (part.float().to(targets.device) for part in _directions_and_norms(embeddings))
        return cls(targets, weights, unit, norms)

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
    """Training images whose pixels are read, and embedded, in each step.

    Attributes
    ----------
    load : callable
        ``load(rows, seeds)`` gives pixels (n, 3, height, width) on the CPU, for lists of n positions and of n
        seeds for random crops.
    encode : callable
        ``encode(pixels)`` gives the frozen CLIP's image features (n, embedding_dim).
    """

    load: Callable[[list[int], list[int]], Tensor]
    encode: Callable[[Tensor], Tensor]

    @property
    def n_views(self) -> int:
        """Number of seeds that random crops are drawn from."""
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
    """What is tuned: the same object for a method and for its regularizers.

    Attributes
    ----------
    backbone : Backbone
        The frozen CLIP.
    names : sequence of str, length n_classes
        The names of the base classes.
    zero_shot : callable
        ``zero_shot(names, template)`` gives zero-shot text features of unit length, shape
        (n_names, embedding_dim).
    zero_shot_table : callable
        The same for long lists, computed once and kept; names that are too long for the backbone get zeros.
    generator : torch.Generator
        Random numbers of a fit's start, on the CPU.
    data : TrainingData or None, default=None
        The training data; None where a fitted learner is rebuilt.
    method : str, default=""
        The name of the method.
    regularizers : sequence of str, default=()
        The names of all regularizers of the fit.
    """

    backbone: Backbone
    names: Sequence[str]
    zero_shot: Callable[..., Tensor]
    zero_shot_table: Callable[..., Tensor]
    generator: torch.Generator
    data: TrainingData | None = None
    method: str = ""
    regularizers: Sequence[str] = ()
