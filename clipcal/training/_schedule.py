"""The learning rate of each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "constant_with_warmup", "cosine_with_warmup"]


def cosine_with_warmup(
    n_epochs: int, learning_rate: float, *, n_warmup: int = 1, warmup_rate: float = 1e-5
) -> list[float]:
    """Return the learning rate of each epoch: constant warm-up, then cosine annealing.

    The cosine starts after the warm-up, but its period is the total number of epochs, as in the code of the
    authors of CoOp. The last rate is therefore slightly above zero. There is no warm-up if
    ``n_epochs <= n_warmup``.

    Parameters
    ----------
    n_epochs : int
        Number of epochs.
    learning_rate : float
        Highest learning rate.
    n_warmup : int, default=1
        Number of warm-up epochs.
    warmup_rate : float, default=1e-5
        Learning rate of the warm-up epochs.

    Returns
    -------
    rates : list of float, length n_epochs

    Examples
    --------
    >>> from clipcal.training import cosine_with_warmup
    >>> [round(rate, 6) for rate in cosine_with_warmup(5, 0.0035)]
    [1e-05, 0.0035, 0.003166, 0.002291, 0.001209]
    """
    if n_epochs <= n_warmup:
        n_warmup = 0
    return [
        warmup_rate
        if epoch < n_warmup
        else learning_rate * (1 + math.cos(math.pi * (epoch - n_warmup) / n_epochs)) / 2
        for epoch in range(n_epochs)
    ]


def constant_with_warmup(
    n_epochs: int, learning_rate: float, *, n_warmup: int = 1, warmup_rate: float = 1e-5
) -> list[float]:
    """Return the learning rate of each epoch: constant warm-up, then a constant rate.

    Parameters
    ----------
    n_epochs : int
        Number of epochs.
    learning_rate : float
        Learning rate after the warm-up.
    n_warmup : int, default=1
        Number of warm-up epochs. There is no warm-up if ``n_epochs <= n_warmup``.
    warmup_rate : float, default=1e-5
        Learning rate of the warm-up epochs.

    Returns
    -------
    rates : list of float, length n_epochs

    Examples
    --------
    >>> from clipcal.training import constant_with_warmup
    >>> constant_with_warmup(3, 0.002)
    [1e-05, 0.002, 0.002]
    """
    if n_epochs <= n_warmup:
        n_warmup = 0
    return [warmup_rate] * n_warmup + [learning_rate] * (n_epochs - n_warmup)


SCHEDULES: dict[str, Callable[..., list[float]]] = {
    "cosine": cosine_with_warmup,
    "constant": constant_with_warmup,
}
