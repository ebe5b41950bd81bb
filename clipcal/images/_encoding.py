"""Pictures to embeddings: decoded ahead of the tower, encoded in batches, cached by content."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils import check_random_state

from clipcal._progress import progress_bar
from clipcal.caching import FeatureTable, MemoryLike, as_cache
from clipcal.images._inputs import as_images
from clipcal.images._reading import image_digest, read_image, read_with_digest
from clipcal.images._views import views

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone

# Decoded pictures that may wait for the tower, whatever the size of a batch.
_MAX_WAITING = 512
# So many pictures are hashed and looked up together, and written together.
_BLOCK = 4096
_SECONDS_BETWEEN_WRITES = 30.0

Pictures: TypeAlias = "Sequence[Any] | NDArray[Any]"
# A key, and pixels (n_views, 3, height, width), or None where another position has the same key.
Prepared: TypeAlias = "tuple[bytes, torch.Tensor | None]"


def encode_images(
    images: Any,
    backbone: Backbone,
    *,
    batch_size: int = 64,
    n_views: int = 1,
    random_state: int | np.random.RandomState | None = None,
    memory: MemoryLike | None = None,
    verbose: int = 0,
) -> NDArray[np.float32]:
    """Embed pictures with a frozen CLIP.

    Parameters
    ----------
    images : pictures
        A list, 1-D array or Series of paths, :class:`ImagePaths`, a list of PIL images, uint8 arrays or
        tensors (n, height, width) or (n, height, width, 3), or a list of uint8 arrays or tensors of one
        image each. Opened PIL images are not kept decoded.
    backbone : Backbone
        The CLIP, as :func:`clipcal.backbones.open_backbone` gives it.
    batch_size : int, default=64
        Pictures that pass the image tower at once, at least 1. It changes speed and memory only.
    n_views : int, default=1
        1 embeds each picture once, by the CLIP's own evaluation transform. More embeds that many random crops
        of each.
    random_state : int, RandomState or None, default=None
        What the crops depend on, together with the pixels: the same picture gets the same crops wherever it
        stands. Unused for ``n_views=1``. Crops of None come from no seed and are not kept in `memory`.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Where embeddings are kept; see :class:`clipcal.FeatureCache`. Each picture is found again by what its
        file contains, or by its pixels if it is in memory: files may be moved and renamed, and of a longer
        list only the new pictures are encoded. What is done is written as it goes, so that a run that is cut
        off can be continued.
    verbose : int, default=0
        1 or more shows a progress bar.

    Returns
    -------
    ndarray of shape (n_samples, embedding_dim) or (n_samples, n_views, embedding_dim), float32
        Not normalised; the second shape for ``n_views`` > 1.

    Raises
    ------
    ImageReadError
        If a picture cannot be read; the message names it and its position.
    TypeError, ValueError
        If `images` holds no pictures.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.backbones import open_backbone
    >>> from clipcal.images import encode_images
    >>> pictures = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    >>> backbone = open_backbone("mini", device="cpu")
    >>> encode_images(pictures, backbone).shape == (2, backbone.embedding_dim)
    True
    """
    pictures = as_images(images)
    if n_views < 1 or batch_size < 1:
        raise ValueError(f"n_views and batch_size must be at least 1, got {n_views} and {batch_size}.")
    seed = 0 if n_views == 1 else int(check_random_state(random_state).randint(2**31 - 1))
    # Crops without a seed are never drawn again, so keeping them would only fill the disk.
    cache = None if n_views > 1 and random_state is None else as_cache(memory)
    # Opened PIL images may share a file, and a resampled list holds one twice, so their files are read one
    # after the other.
    n_threads = 1 if isinstance(pictures[0], Image.Image) else min(8, os.cpu_count() or 1)
    out = np.empty((len(pictures), n_views, backbone.embedding_dim), dtype=np.float32)
    with (
        _threads(n_threads) as pool,
        progress_bar(
            shown=verbose >= 1, description="Encoding images", unit="img", total=len(pictures)
        ) as bar,
    ):
        # Each picture brings n_views crops, and the tower should still see about batch_size at once.
        step = max(1, batch_size // n_views)
        n_ahead = max(2 * n_threads, min(step, _MAX_WAITING // n_views))
        tower = partial(_through_tower, pool, backbone, step, n_views, n_ahead)
        prepare = partial(_prepare, pictures, backbone, n_views, seed)
        if cache is None:
            for rows, _, embeddings in tower(prepare, range(len(pictures))):
                out[rows] = embeddings
                bar.update(len(rows))
        else:
            table = cache.table(
                "images" if n_views == 1 else f"views {n_views} {seed}",
                width=n_views * backbone.embedding_dim,
                fingerprint=backbone.fingerprint,
                precision=getattr(backbone, "precision", "fp32"),
                backbone=backbone.name,
            )
            _encode_missing(pictures, out, table, prepare, tower, pool, bar.update)
    return out[:, 0].copy() if n_views == 1 else out


@contextmanager
def _threads(n_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Open a pool that, on an error or an interruption, does not first finish what waits in it."""
    from clipcal.backbones import single_threaded

    # Each image is one thread's; torch would share out its pixels over as many threads again.
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="clipcal-images", initializer=single_threaded)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(
    pictures: Pictures,
    backbone: Backbone,
    n_views: int,
    seed: int,
    i: int,
    owners: dict[bytes, int] | None = None,
) -> Prepared:
    """Decode and transform one picture; `owners` says which position of this call has which key."""
    if owners is None:
        return b"", views(read_image(pictures, i), backbone, n_views, seed)
    digest, image = read_with_digest(pictures, i, lambda key: owners.setdefault(key, i) == i)
    return digest, None if image is None else views(image, backbone, n_views, seed)


def _through_tower(
    pool: ThreadPoolExecutor,
    backbone: Backbone,
    step: int,
    n_views: int,
    n_ahead: int,
    work: Callable[[int], Prepared],
    positions: Iterable[int],
) -> Iterator[tuple[list[int], list[bytes], NDArray[np.float32] | None]]:
    """Yield positions, keys and embeddings (n, n_views, width) of each batch.

    Threads prepare the pictures of the next batches while the tower works on one. Positions whose key
    another one has come alone, without embeddings.
    """
    import torch

    batch: list[tuple[int, bytes, torch.Tensor]] = []

    def encoded() -> tuple[list[int], list[bytes], NDArray[np.float32]]:
        rows, keys, pixels = zip(*batch, strict=True)
        batch.clear()
        embeddings = backbone.encode_images(torch.stack(pixels).flatten(0, 1)).cpu().numpy()
        return list(rows), list(keys), embeddings.reshape(len(rows), n_views, -1)

    for i, (key, pixels) in _in_order(pool, work, positions, n_ahead):
        if pixels is None:
            yield [i], [key], None
        else:
            batch.append((i, key, pixels))
            if len(batch) == step:
                yield encoded()
    if batch:
        yield encoded()


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[int], Prepared], positions: Iterable[int], n_ahead: int
) -> Iterator[tuple[int, Prepared]]:
    """Yield results in the order of the positions; at most `n_ahead` are there or under way."""
    waiting: deque[tuple[int, Future[Prepared]]] = deque()
    for i in positions:
        waiting.append((i, pool.submit(work, i)))
        if len(waiting) >= n_ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _encode_missing(
    pictures: Pictures,
    out: NDArray[np.float32],
    table: FeatureTable,
    prepare: Callable[..., Prepared],
    tower: Callable[..., Iterator[tuple[list[int], list[bytes], NDArray[np.float32] | None]]],
    pool: ThreadPoolExecutor,
    advance: Callable[[int], Any],
) -> None:
    """Fill `out` from the table, and table and `out` from the tower."""
    owners: dict[bytes, int] = {}
    alike: list[tuple[int, bytes]] = []
    new = _NewRows(table)
    missing = _missing(pictures, out, table, pool, advance)
    try:
        for rows, keys, embeddings in tower(partial(prepare, owners=owners), missing):
            if embeddings is None:
                alike.append((rows[0], keys[0]))
            else:
                out[rows] = embeddings
                new.add(keys, embeddings)
            advance(len(rows))
    finally:
        new.write()
    for i, key in alike:
        out[i] = out[owners[key]]


def _missing(
    pictures: Pictures,
    out: NDArray[np.float32],
    table: FeatureTable,
    pool: ThreadPoolExecutor,
    advance: Callable[[int], Any],
) -> Iterator[int]:
    """Fill `out` with what the table has, and yield the positions of the rest."""
    if table.empty:
        # Whoever encodes a picture hashes it too.
        yield from range(len(pictures))
        return
    for start in range(0, len(pictures), _BLOCK):
        block = range(start, min(start + _BLOCK, len(pictures)))
        digests = list(pool.map(partial(image_digest, pictures), block))
        rows, found = table.get(digests)
        out[start : block.stop][found] = rows[found].reshape(-1, *out.shape[1:])
        advance(int(found.sum()))
        yield from (np.flatnonzero(~found) + start).tolist()


class _NewRows:
    """What was encoded and is not yet on the disk."""

    def __init__(self, table: FeatureTable) -> None:
        self._table = table
        self._keys: list[bytes] = []
        self._rows: list[NDArray[np.float32]] = []
        self._since = time.monotonic()

    def add(self, keys: list[bytes], rows: NDArray[np.float32]) -> None:
        """Take rows, and write all if there are many or the last time was long ago."""
        self._keys += keys
        self._rows.append(rows.reshape(len(keys), -1))
        if len(self._keys) >= _BLOCK or time.monotonic() - self._since >= _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write what is held, if anything."""
        if self._keys:
            self._table.put(self._keys, np.concatenate(self._rows))
        self._keys, self._rows, self._since = [], [], time.monotonic()
