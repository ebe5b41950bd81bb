"""Pictures to embeddings, in batches, cached by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_memory

from ._inputs import as_images
from ._reading import image_digest, pixel_digest, read_image

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone


class MemoryLike(Protocol):
    """What :class:`joblib.Memory` is to us."""

    def cache(self, func: Any, *, ignore: list[str]) -> Any:
        """Wrap a function so that its results are kept."""
        ...


def encode_images(
    images: Any,
    backbone: Backbone,
    *,
    batch_size: int = 64,
    n_views: int = 1,
    random_state: int | np.random.RandomState | None = None,
    memory: str | os.PathLike[str] | MemoryLike | None = None,
    verbose: int = 0,
) -> NDArray[np.float32]:
    """Embed pictures with a frozen CLIP.

    Parameters
    ----------
    images : pictures
        A list, 1-D array or Series of paths, :class:`ImagePaths`, a list of PIL images, or uint8 arrays
        (n, height, width) or (n, height, width, 3).
    backbone : Backbone
        The CLIP, as :func:`clipcal.backbones.open_backbone` gives it.
    batch_size : int, default=64
        Pictures that pass the image tower at once, at least 1. It changes speed and memory only.
    n_views : int, default=1
        1 embeds each picture once, by the CLIP's own evaluation transform. More embeds that many random crops
        of each.
    random_state : int, RandomState or None, default=None
        What the crops depend on, together with the pixels: the same picture gets the same crops wherever it
        stands. Unused for ``n_views=1``.
    memory : str, Path, joblib.Memory or None, default=None
        Where results are kept. A call is found again as a whole, by what the pictures and the CLIP contain: a
        file may move, and `batch_size` and device may change; one picture more is another call.
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
    if memory is None:
        return _encode(pictures, backbone, batch_size, verbose, n_views, seed, "")
    store: MemoryLike = check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
    content = hashlib.sha256()
    for i in range(len(pictures)):
        content.update(image_digest(pictures, i))
    # bfloat16 gives other numbers than float32, the device alone does not.
    key = f"{backbone.fingerprint} {getattr(backbone, 'precision', 'fp32')} {content.hexdigest()}"
    cached = store.cache(_encode, ignore=["pictures", "backbone", "batch_size", "verbose"])
    return cached(pictures, backbone, batch_size, verbose, n_views, seed, key)


def _encode(
    pictures: Sequence[Any] | NDArray[Any],
    backbone: Backbone,
    batch_size: int,
    verbose: int,
    n_views: int,
    seed: int,
    key: str,
) -> NDArray[np.float32]:
    """Encode in batches; `key` stands for the arguments that a cache leaves out."""
    # Each picture brings n_views crops, and the tower should still see about batch_size at once.
    step = max(1, batch_size // n_views)
    out = np.empty((len(pictures), n_views, backbone.embedding_dim), dtype=np.float32)
    for start, pixels in _batches(pictures, backbone, step, n_views, seed, verbose):
        encoded = backbone.encode_images(pixels.flatten(0, 1)).cpu().numpy()
        out[start : start + len(pixels)] = encoded.reshape(len(pixels), n_views, -1)
    return out[:, 0].copy() if n_views == 1 else out


def _batches(
    pictures: Sequence[Any] | NDArray[Any],
    backbone: Backbone,
    step: int,
    n_views: int,
    seed: int,
    verbose: int,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the first position and the pixels (n, n_views, 3, height, width) of each batch.

    The next batch is decoded in threads while the tower works on this one; Pillow lets go of the
    interpreter lock for most of its work.
    """
    import torch
    from tqdm.auto import tqdm

    edges = [*range(0, len(pictures), step), len(pictures)]
    # An opened but unread PIL image must not be read by two threads, and a resampled list holds it twice.
    n_threads = 1 if isinstance(pictures[0], Image.Image) else min(8, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(n_threads) as pool,
        tqdm(total=len(pictures), desc="Encoding images", unit="img", disable=verbose < 1) as bar,
    ):

        def submit(start: int, stop: int) -> list[Future[torch.Tensor]]:
            return [pool.submit(_views, pictures, i, backbone, n_views, seed) for i in range(start, stop)]

        spans = list(pairwise(edges))
        waiting = submit(*spans[0])
        try:
            for k, (start, stop) in enumerate(spans):
                current, waiting = waiting, submit(*spans[k + 1]) if k + 1 < len(spans) else []
                yield start, torch.stack([future.result() for future in current])
                bar.update(stop - start)
        finally:
            for future in waiting:
                future.cancel()


def _views(
    pictures: Sequence[Any] | NDArray[Any], i: int, backbone: Backbone, n_views: int, seed: int
) -> torch.Tensor:
    """Turn one picture into pixels (n_views, 3, height, width)."""
    import torch

    image = read_image(pictures, i)
    if n_views == 1:
        return backbone.preprocess(image)[None]
    digest = hashlib.sha256(seed.to_bytes(8, "little") + pixel_digest(image)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.stack([backbone.augment(image, generator) for _ in range(n_views)])
