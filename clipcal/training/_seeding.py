"""Random number generators of torch, seeded by the parameter ``random_state``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state

__all__ = ["seeded", "torch_generator"]

_lock = threading.RLock()
# A prime, added so that the global generator does not repeat the numbers of the other one.
_OFFSET = 1_000_003


def torch_generator(
    random_state: int | np.random.RandomState | None, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a new generator on a device. The global generators of torch are neither read nor changed.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        Seed of the generator, or the source of its seed.
    device : torch.device or str, default="cpu"
        Device of the generator.

    Returns
    -------
    generator : torch.Generator
        The generator.

    Examples
    --------
    >>> import torch
    >>> from clipcal.training import torch_generator
    >>> draws = [torch.rand(2, generator=torch_generator(0)) for _ in range(2)]
    >>> torch.equal(*draws)
    True
    """
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    return torch.Generator(device).manual_seed(int(seed))


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's global CPU generator by the seed of `generator`, and restore it afterwards.

    New modules, such as ``torch.nn.Linear``, draw their initial parameters from the global generator. The
    state of `generator` does not change. Only one thread at a time is inside, as threads share the global
    generator.
    """
    with _lock, torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(generator.initial_seed() + _OFFSET)
        yield
