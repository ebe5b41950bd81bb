"""Choose the number of threads of a computation.

Threads that share an operation wait for each other at its end by spinning. If operations are much shorter
than a time slice and another process is busy, each operation may take a whole time slice, and half a second
becomes half a minute. Small operations therefore run in one thread, and independent rows are distributed
over threads once, not in every operation.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from joblib import cpu_count

__all__ = [
    "image_product",
    "join_parts",
    "limit_threads",
    "product_size",
    "single_threaded",
    "threads_for",
    "usable_threads",
]

# Multiply-adds of the largest matrix product. Below the first number, about a millisecond, one thread is
# used; above it, each thread gets at least the second number.
_WORTH_THREADS = 2**25
_WORTH_A_THREAD = 2**22
# Up to this size, a few milliseconds, threads get different rows; above it, they share each operation.
_WORTH_SHARING = 2**28
# For parts with fewer rows, the overhead exceeds the gain.
_MIN_ROWS = 8
_MAX_PARTS = 8

_lock = threading.Lock()


def product_size(n_rows: int, width: int) -> int:
    """Return the multiply-adds of the largest matrix product of a transformer block, which is in its MLP.

    Parameters
    ----------
    n_rows : int
        Number of tokens of all texts or images.
    width : int
        Width of the transformer.

    Returns
    -------
    size : int

    Examples
    --------
    >>> from clipcal.backbones import product_size
    >>> product_size(100, 512)
    104857600
    """
    return 4 * n_rows * width * width


def image_product(visual: Any, n_images: int) -> float:
    """Return :func:`product_size` for an image encoder; infinity if it is not a ViT."""
    positions = getattr(visual, "positional_embedding", None)
    if positions is None or positions.ndim != 2:
        return math.inf
    n_tokens, width = positions.shape
    return product_size(n_images * n_tokens, width)


def usable_threads() -> int:
    """Return the number of threads that torch may use: at most torch's own number and the available cores.

    In a container, torch may count cores of the machine that the container may not use; joblib does not.
    """
    return min(_own_threads(), cpu_count())


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Set the number of threads of torch for a computation, in the calling thread only.

    Parameters
    ----------
    work : float
        Multiply-adds of the largest matrix product, see :func:`product_size`; infinity for all threads, at
        most ``torch.get_num_threads()`` and the number of cores available to the process.

    Examples
    --------
    >>> import torch
    >>> from clipcal.backbones import product_size, threads_for
    >>> with threads_for(product_size(100, 64)):
    ...     torch.get_num_threads()
    1
    """
    n_threads = usable_threads()
    if work < _WORTH_THREADS:
        n_threads = 1
    elif work < n_threads * _WORTH_A_THREAD:
        n_threads = int(work) // _WORTH_A_THREAD
    with limit_threads(n_threads):
        yield


@contextmanager
def limit_threads(n_threads: int) -> Iterator[None]:
    """Limit the number of threads of torch, in the calling thread only; never increases it."""
    before = _own_threads()
    if n_threads >= before:
        yield
        return
    _set_threads(n_threads)
    try:
        yield
    finally:
        _set_threads(before)


def single_threaded() -> None:
    """Set the number of threads of the calling thread to 1, permanently; an initializer for thread pools."""
    if _own_threads() > 1:
        _set_threads(1)


def join_parts(encode: Callable[[slice], torch.Tensor], costs: Sequence[int], work: float) -> torch.Tensor:
    """Encode independent rows, distributed over threads if they are small.

    Parameters
    ----------
    encode : callable
        ``encode(rows)`` returns the features of a slice of rows, in order, without gradients. It is called
        from several threads, and must itself set thread-local state of torch such as ``no_grad``.
    costs : sequence of int, length n_rows
        Relative cost of each row.
    work : float
        Multiply-adds of the largest matrix product for all rows.

    Returns
    -------
    features : Tensor, shape (n_rows, ...)
    """
    n_parts = min(usable_threads(), _MAX_PARTS, len(costs) // _MIN_ROWS)
    if n_parts < 2 or work >= _WORTH_SHARING:
        with threads_for(work):
            return encode(slice(0, len(costs)))
    ends = torch.as_tensor(costs).cumsum(0)
    shares = torch.arange(1, n_parts) * ends[-1] / n_parts
    stops = [0, *(torch.searchsorted(ends, shares) + 1).tolist(), len(costs)]
    parts = [slice(start, stop) for start, stop in pairwise(stops) if stop > start]
    # The calling thread encodes the first part.
    with ThreadPoolExecutor(len(parts) - 1 or 1, initializer=single_threaded) as pool, limit_threads(1):
        others = [pool.submit(encode, rows) for rows in parts[1:]]
        return torch.cat([encode(parts[0]), *(other.result() for other in others)])


def _own_threads() -> int:
    """Return the number of threads of the calling thread, which torch initializes at its first use."""
    with _lock:
        return torch.get_num_threads()


def _set_threads(n_threads: int) -> None:
    """Set the number of threads of the calling thread only.

    ``torch.set_num_threads`` also sets the default of threads that start later. A helper thread reads the
    default before the call and restores it afterwards; its own number of threads ends with it.
    """
    known, changed = threading.Event(), threading.Event()

    def keep_default() -> None:
        default = torch.get_num_threads()
        known.set()
        changed.wait()
        torch.set_num_threads(default)

    with _lock:
        keeper = threading.Thread(target=keep_default, daemon=True)
        keeper.start()
        known.wait()
        try:
            torch.set_num_threads(n_threads)
        finally:
            changed.set()
            keeper.join()
