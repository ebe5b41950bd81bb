"""How many threads a computation is worth.

Threads that share an operation wait for each other at its end, and they wait by spinning. Where operations
are far shorter than a time slice, one other busy process makes each wait as long as a time slice, and what
took half a second takes half a minute. So small operations are computed by one thread, and rows that do not
depend on each other are shared out once, not operation by operation.
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

# Multiply-adds of a computation's largest matrix product. Below the first number, about a millisecond, one
# thread computes all of it; above, each thread gets at least the second.
_WORTH_THREADS = 2**25
_WORTH_A_THREAD = 2**22
# Rows are shared out, in place of operations, as long as a product takes a few milliseconds.
_WORTH_SHARING = 2**28
# A part of fewer rows than this costs more in calls than it gains.
_MIN_ROWS = 8
_MAX_PARTS = 8

_lock = threading.Lock()


def product_size(n_rows: int, width: int) -> int:
    """Return the multiply-adds of the largest matrix product of a transformer block, that of its MLP.

    Parameters
    ----------
    n_rows : int
        Tokens, of all texts or images together.
    width : int
        Width of the tower.

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
    """Return the same for an image tower, infinity if it is no ViT."""
    positions = getattr(visual, "positional_embedding", None)
    if positions is None or positions.ndim != 2:
        return math.inf
    n_tokens, width = positions.shape
    return product_size(n_images * n_tokens, width)


def usable_threads() -> int:
    """Return how many threads torch may use: no more than the caller allows, and than there are cores.

    A container sees all cores of its machine, and may use some of them only.
    """
    return min(_own_threads(), cpu_count())


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Compute with as many threads as pay; what other threads compute with does not change.

    Parameters
    ----------
    work : float
        Multiply-adds of the largest matrix product, see :func:`product_size`; infinity takes all threads that
        may be used: no more than ``torch.get_num_threads()``, and than the cores that the process may use.

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
    """Compute with at most so many threads, in the calling thread alone; a lower number of its own stays."""
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
    """Let the calling thread compute alone from now on; for the start of threads that end with their pool."""
    if _own_threads() > 1:
        _set_threads(1)


def join_parts(encode: Callable[[slice], torch.Tensor], costs: Sequence[int], work: float) -> torch.Tensor:
    """Encode rows that do not depend on each other, small ones shared out over threads.

    Parameters
    ----------
    encode : callable
        ``encode(rows)`` gives the features of some rows, in order, without a graph. It is called from
        several threads, and must set what torch keeps for each thread, such as ``no_grad``.
    costs : sequence of int, length n_rows
        What each row costs, in any unit.
    work : float
        Multiply-adds of the largest matrix product, all rows together.

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
    # The calling thread works too.
    with ThreadPoolExecutor(len(parts) - 1 or 1, initializer=single_threaded) as pool, limit_threads(1):
        others = [pool.submit(encode, rows) for rows in parts[1:]]
        return torch.cat([encode(parts[0]), *(other.result() for other in others)])


def _own_threads() -> int:
    """Return the calling thread's number of threads, which a thread that is new to torch takes over now."""
    with _lock:
        return torch.get_num_threads()


def _set_threads(n_threads: int) -> None:
    """Set the calling thread's number of threads, and that of no other.

    ``torch.set_num_threads`` also decides for every thread that starts later. What it decided before is read
    and set again in a new thread, whose own number ends with it.
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
