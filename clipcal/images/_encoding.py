"""Embed images: decode in background threads, encode in batches, cache by content."""

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
from sklearn.utils import check_random_state

from clipcal._progress import progress_bar
from clipcal.caching import FeatureCache, FeatureTable, MemoryLike, as_cache
from clipcal.exceptions import ImageReadError
from clipcal.images._faults import Faults
from clipcal.images._inputs import as_images
from clipcal.images._items import is_opened
from clipcal.images._reading import image_digest, read_image, read_with_digest
from clipcal.images._views import views

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone

# Upper limit on decoded images that wait for the image encoder, whatever the batch size.
_MAX_WAITING = 512
# Number of images per cache lookup and per cache write.
_BLOCK = 4096
_SECONDS_BETWEEN_WRITES = 30.0

Images: TypeAlias = "Sequence[Any] | NDArray[Any]"
# A cache key, and pixels (n_views, 3, height, width), or None if an earlier position has the same key. The
# key of an unreadable image is empty.
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
    """Embed images with a frozen CLIP.

    Parameters
    ----------
    images : images
        A list, 1-D array or Series of paths, of contents of image files (bytes) or of records
        ``{"bytes": ..., "path": ...}``, :class:`ImagePaths`, :class:`LazyImages`, an image column of a
        Hugging Face data set, a list of PIL images, uint8 arrays or tensors (n, height, width) or
        (n, height, width, 3), or a list of uint8 arrays or tensors of one image each. Opened PIL images are
        not kept decoded.
    backbone : Backbone
        The CLIP model, as returned by :func:`clipcal.backbones.open_backbone`.
    batch_size : int, default=64
        Number of images per forward pass of the image encoder, at least 1. It affects speed and memory only.
    n_views : int, default=1
        Number of views per image. With 1, each image is embedded with the evaluation transform of the
        backbone; with more, that many random crops of each image are embedded.
    random_state : int, RandomState or None, default=None
        Seed of the crops. The crops depend on the seed and the pixels only, not on the position of the
        image. Ignored if ``n_views=1``. If None, the crops are not reproducible and not cached.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Cache for embeddings; see :class:`clipcal.FeatureCache`. The key is the hash of the file content, or
        of the pixels for images in memory: files may be moved and renamed, and only new images are encoded.
        Results are written during the run, so an interrupted run can be resumed.
    verbose : int, default=0
        If at least 1, show a progress bar.

    Returns
    -------
    ndarray of shape (n_samples, embedding_dim) or (n_samples, n_views, embedding_dim), float32
        Embeddings, not normalized; the second shape if ``n_views`` > 1.

    Raises
    ------
    ImageReadError
        If an image cannot be read; the message gives its position and its path or type.
    TypeError, ValueError
        If `images` does not hold images.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.backbones import open_backbone
    >>> from clipcal.images import encode_images
    >>> images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    >>> backbone = open_backbone("mini", device="cpu")
    >>> encode_images(images, backbone).shape == (2, backbone.embedding_dim)
    True
    """
    images = as_images(images)
    if n_views < 1 or batch_size < 1:
        raise ValueError(f"n_views and batch_size must be at least 1, got {n_views} and {batch_size}.")
    seed = 0 if n_views == 1 else int(check_random_state(random_state).randint(2**31 - 1))
    # Unseeded crops are never drawn again, so caching them would only fill the disk.
    cache = None if n_views > 1 and random_state is None else as_cache(memory)
    total = len(images)
    with progress_bar(shown=verbose >= 1, description="Encoding images", unit="img", total=total) as bar:
        out = _encode(images, backbone, batch_size, n_views, seed, cache, bar.update, Faults())
    return out[:, 0].copy() if n_views == 1 else out


def encode_readable(
    images: Images,
    backbone: Backbone,
    *,
    batch_size: int,
    memory: MemoryLike | None,
    advance: Callable[[int], Any],
    faults: Faults,
) -> NDArray[np.float32]:
    """Embed images as returned by :func:`as_images`; unreadable ones may be left out.

    Parameters
    ----------
    images, backbone, batch_size, memory
        See :func:`encode_images`.
    advance : callable
        Called with the number of images that were processed.
    faults : Faults
        Receives the error of each image that cannot be read.

    Returns
    -------
    ndarray of shape (n_readable, embedding_dim), float32
        Embeddings of the readable images, not normalized.
    """
    out = _encode(images, backbone, batch_size, 1, 0, as_cache(memory), advance, faults)[:, 0]
    return np.delete(out, sorted(faults.errors), axis=0)


def _encode(
    images: Images,
    backbone: Backbone,
    batch_size: int,
    n_views: int,
    seed: int,
    cache: FeatureCache | None,
    advance: Callable[[int], Any],
    faults: Faults,
) -> NDArray[np.float32]:
    """Return embeddings (n, n_views, width); the rows of images in `faults` are undefined."""
    from clipcal.backbones import precision_of

    # Opened PIL images may share one file object, or occur twice, so they are read by a single thread.
    n_threads = 1 if is_opened(images) else min(8, os.cpu_count() or 1)
    out = np.empty((len(images), n_views, backbone.embedding_dim), dtype=np.float32)
    with _threads(n_threads) as pool:
        # Each image has n_views crops; a forward pass still takes about batch_size of them.
        step = max(1, batch_size // n_views)
        n_ahead = max(2 * n_threads, min(step, _MAX_WAITING // n_views))
        tower = partial(_through_tower, pool, backbone, step, n_views, n_ahead)
        prepare = partial(_prepare, images, backbone, n_views, seed, faults)
        if cache is None:
            for rows, _, embeddings in tower(prepare, range(len(images))):
                if embeddings is not None:
                    out[rows] = embeddings
                advance(len(rows))
        else:
            table = cache.table(
                "images" if n_views == 1 else f"crops {n_views} {seed}",
                width=n_views * backbone.embedding_dim,
                fingerprint=backbone.fingerprint,
                precision=precision_of(backbone),
                backbone=backbone.name,
            )
            _encode_missing(images, out, table, prepare, tower, pool, advance, faults)
    return out


@contextmanager
def _threads(n_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Open a thread pool that cancels pending tasks on an error or an interruption."""
    from clipcal.backbones import single_threaded

    # Without this, torch would start as many threads again within each thread of the pool.
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="clipcal-images", initializer=single_threaded)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(
    images: Images,
    backbone: Backbone,
    n_views: int,
    seed: int,
    faults: Faults,
    i: int,
    owners: dict[bytes, int] | None = None,
) -> Prepared:
    """Decode and transform one image; `owners` maps each key to the first position that has it."""
    digest, image = b"", None
    try:
        if owners is None:
            image = read_image(images, i)
        else:
            digest, image = read_with_digest(images, i, lambda key: owners.setdefault(key, i) == i)
    except ImageReadError as error:
        faults.add(i, error)
        return b"", None
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

    Threads prepare the next batches while the image encoder works on the current one. A position that is
    unreadable, or whose key another position has, is yielded alone, with embeddings None.
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
    """Yield results in the order of the positions; at most `n_ahead` are pending or unread."""
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
    images: Images,
    out: NDArray[np.float32],
    table: FeatureTable,
    prepare: Callable[..., Prepared],
    tower: Callable[..., Iterator[tuple[list[int], list[bytes], NDArray[np.float32] | None]]],
    pool: ThreadPoolExecutor,
    advance: Callable[[int], Any],
    faults: Faults,
) -> None:
    """Fill `out` with cached embeddings, then encode the missing ones and cache them."""
    owners: dict[bytes, int] = {}
    alike: list[tuple[int, bytes]] = []
    new = _NewRows(table)
    missing = _missing(images, out, table, pool, advance, faults)
    try:
        for rows, keys, embeddings in tower(partial(prepare, owners=owners), missing):
            if embeddings is None:
                if keys[0]:
                    alike.append((rows[0], keys[0]))
            else:
                out[rows] = embeddings
                new.add(keys, embeddings)
            advance(len(rows))
    finally:
        new.write()
    for i, key in alike:
        out[i] = out[owners[key]]
        if owners[key] in faults.errors:
            # The same content fails in the same way; this call gives the message with the position and path.
            prepare(i)


def _missing(
    images: Images,
    out: NDArray[np.float32],
    table: FeatureTable,
    pool: ThreadPoolExecutor,
    advance: Callable[[int], Any],
    faults: Faults,
) -> Iterator[int]:
    """Fill `out` with cached embeddings, and yield the positions of the missing ones."""
    if table.empty:
        # No separate hashing pass: _prepare hashes each image that it decodes.
        yield from range(len(images))
        return
    for start in range(0, len(images), _BLOCK):
        block = range(start, min(start + _BLOCK, len(images)))
        digests = list(pool.map(partial(_digest, images, faults), block))
        rows, found = table.get(digests)
        out[start : block.stop][found] = rows[found].reshape(-1, *out.shape[1:])
        advance(int(found.sum()))
        yield from (np.flatnonzero(~found) + start).tolist()


def _digest(images: Images, faults: Faults, i: int) -> bytes:
    """Hash an image; the hash of an unreadable image is a key that the table does not have."""
    try:
        return image_digest(images, i)
    except ImageReadError as error:
        faults.add(i, error)
        return bytes(32)


class _NewRows:
    """Buffer of encoded rows that are not yet written to the cache."""

    def __init__(self, table: FeatureTable) -> None:
        self._table = table
        self._keys: list[bytes] = []
        self._rows: list[NDArray[np.float32]] = []
        self._since = time.monotonic()

    def add(self, keys: list[bytes], rows: NDArray[np.float32]) -> None:
        """Add rows; write the buffer if it is full or the last write was long ago."""
        self._keys += keys
        self._rows.append(rows.reshape(len(keys), -1))
        if len(self._keys) >= _BLOCK or time.monotonic() - self._since >= _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write the buffered rows, if any."""
        if self._keys:
            self._table.put(self._keys, np.concatenate(self._rows))
        self._keys, self._rows, self._since = [], [], time.monotonic()
