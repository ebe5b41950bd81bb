"""Random numbers for torch from scikit-learn's ``random_state``."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils import check_random_state

__all__ = ["torch_generator"]


def torch_generator(
    random_state: int | np.random.RandomState | None, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator of its own on a device; torch's global ones are neither read nor written."""
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    return torch.Generator(device).manual_seed(int(seed))
