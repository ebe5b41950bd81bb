"""Training images that are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from clipcal.backbones import Backbone, single_threaded, upload
from clipcal.training._chunks import memory_budget
from clipcal.training._data import Batch, TrainingData, directions_and_norms

__all__ = ["ImageViews", "PixelData"]

# The row of an image and the number of one of its views.
_View = tuple[int, int]


class ImageViews:
    """Views of images: pixels, embedded patches, and features of the frozen CLIP.

    Each is computed when it is first needed. Pixels are not kept, since embedded patches need about as much
    memory and less time. Patches and features are kept for later epochs, as long as both together fit into
    half a GiB or, if larger on CUDA, a quarter of the free memory.

    See :doc:`/development/adding_a_method`.

    Parameters
    ----------
    load : callable
        ``load(rows, numbers)`` returns pixels (n, 3, height, width) on the CPU, for a list of n indices of
        images and a list of n numbers of views.
    backbone : Backbone
        The frozen CLIP.
    keep : bool, default=True
        Whether patches and features are kept. If views are drawn only once, this would be a waste.
    """

    def __init__(
        self, load: Callable[[list[int], list[int]], Tensor], backbone: Backbone, *, keep: bool = True
    ) -> None:
        self.load = load
        self.device = backbone.device
        self._encode = backbone.encode_images
        self._embed: Callable[[Tensor], Tensor] | None = getattr(backbone, "embed_pixels", None)
        budget = _Budget(memory_budget(backbone.device) if keep else 0)
        self._patches, self._features = _Kept(budget), _Kept(budget)
        self._reader = ThreadPoolExecutor(1, "clipcal-pixels", initializer=single_threaded)

    def keeps(self, views: Sequence[_View]) -> bool:
        """Whether the patches of all views are kept."""
        return all(view in self._patches for view in views)

    def read(self, views: Sequence[_View]) -> Future[Tensor]:
        """Read pixels in another thread, after those that are being read."""
        rows, numbers = zip(*views, strict=True)
        return self._reader.submit(self.load, list(rows), list(numbers))

    def patches(self, views: Sequence[_View], pixels: Callable[[], Tensor]) -> Tensor | None:
        """Return embedded patches (n, n_tokens, width); None if the backbone does not compute them."""
        return None if self._embed is None else self._patches.get(views, pixels, self._embed)

    def features(self, views: Sequence[_View], pixels: Callable[[], Tensor]) -> Tensor:
        """Return features of the frozen CLIP (n, embedding_dim), without normalization."""
        return self._features.get(views, pixels, self._encode)


@dataclass
class _Budget:
    """Memory in bytes that is left for tensors of views."""

    left: int


class _Kept:
    """Tensors of single views, kept until the memory budget is used up."""

    def __init__(self, budget: _Budget) -> None:
        self.budget = budget
        self._values: dict[_View, Tensor] = {}

    def __contains__(self, view: _View) -> bool:
        return view in self._values

    def get(
        self, views: Sequence[_View], pixels: Callable[[], Tensor], compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the tensors of views, computing those that are not kept from their pixels."""
        missing = [i for i, view in enumerate(views) if view not in self._values]
        if not missing:
            return torch.stack([self._values[view] for view in views])
        if len(missing) == len(views):
            values = new = compute(pixels())
        else:
            new = compute(pixels()[missing])
            rows = iter(new)
            values = torch.stack([self._values[v] if v in self._values else next(rows) for v in views])
        # Rows of `new`, as a row of `values` would keep copies of the others in memory.
        for i, value in zip(missing, new, strict=True):
            size = value.numel() * value.element_size()
            if size <= self.budget.left:
                self.budget.left -= size
                self._values[views[i]] = value
        return values


class _PixelBatch(Batch):
    """Batch whose pixels, patches and features are computed when they are first read."""

    _source: ImageViews
    _views: list[_View]
    _reading: Future[Tensor] | None

    def __init__(self, targets: Tensor, weights: Tensor, source: ImageViews, views: list[_View]) -> None:
        own = {"targets": targets, "weights": weights, "_source": source, "_views": views, "_reading": None}
        self.__dict__.update(own)  # the base class is frozen

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._views)} images)"

    def start_reading(self) -> None:
        """Read the pixels in another thread, unless patches make them unnecessary."""
        if not self._source.keeps(self._views):
            self.__dict__["_reading"] = self._source.read(self._views)

    @cached_property
    def _on_cpu(self) -> Tensor:
        reading = self._source.read(self._views) if self._reading is None else self._reading
        return reading.result()

    @cached_property
    def pixels(self) -> Tensor:  # type: ignore[override]
        """Pixels (n, 3, height, width)."""
        return self._on_cpu.to(self._source.device)

    @cached_property
    def patches(self) -> Tensor | None:  # type: ignore[override]
        """Input of the first block of the image tower (n, n_tokens, width)."""
        return self._source.patches(self._views, lambda: self._on_cpu)

    @cached_property
    def _unit_and_norms(self) -> tuple[Tensor, Tensor]:
        return directions_and_norms(self._source.features(self._views, lambda: self._on_cpu))

    @property
    def embeddings(self) -> Tensor:  # type: ignore[override]
        """Image features of the frozen CLIP, normalized to unit length."""
        return self._unit_and_norms[0]

    @property
    def norms(self) -> Tensor:  # type: ignore[override]
        """Norms of the features before normalization."""
        return self._unit_and_norms[1]


@dataclass(frozen=True)
class PixelData(TrainingData):
    """Training images that are read in each step, unless what the learner needs of them is kept.

    See :doc:`/development/adding_a_method`.

    Attributes
    ----------
    views : ImageViews
        The views of all images.
    rows : Tensor of int, shape (n_samples,), on the CPU
        Index of the image of each sample.
    n_crops : int
        Number of views to draw from for each sample.
    """

    views: ImageViews
    rows: Tensor
    n_crops: int = 1

    @property
    def n_views(self) -> int:
        """Number of views to draw from for each sample."""
        return self.n_crops

    def take(self, rows: Tensor, targets: Tensor) -> Self:
        """Return the samples of some rows, with new class indices."""
        return replace(self, targets=targets, weights=self.weights[rows], rows=self.rows[rows.to("cpu")])

    @property
    def index_device(self) -> torch.device:
        """The CPU, where images are read; indices on a GPU would have to be waited for in each step."""
        return torch.device("cpu")

    def batch(self, rows: Tensor, views: Tensor) -> Batch:
        """Return the given view of each of the given samples."""
        pairs = list(zip(self.rows[rows].tolist(), views.tolist(), strict=True))
        rows = upload(rows, self.targets.device)
        return _PixelBatch(self.targets[rows], self.weights[rows], self.views, pairs)

    def batches(
        self, batch_size: int, generator: torch.Generator, *, drop_last: bool = True
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch; the next one is read in the meantime."""
        return _read_ahead(super().batches(batch_size, generator, drop_last=drop_last))

    def in_order(self, batch_size: int = 64, *, view: int = 0) -> Iterator[Batch]:
        """Yield all samples in their order; the next batch is read in the meantime."""
        return _read_ahead(super().in_order(batch_size, view=view))


def _read_ahead(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches one later than they start reading."""
    waiting: Batch | None = None
    for batch in batches:
        assert isinstance(batch, _PixelBatch)
        batch.start_reading()
        if waiting is not None:
            yield waiting
        waiting = batch
    if waiting is not None:
        yield waiting
