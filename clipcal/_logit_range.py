"""Map logits to another range, for NumPy arrays and torch tensors alike."""

from __future__ import annotations

from typing import Any

__all__ = ["match_range"]

# The width of a range of logits is at least this, because logits that are all equal are divided by it.
_SMALLEST = 1e-6


def match_range(logits: Any, ends: tuple[Any, Any], new_ends: tuple[Any, Any]) -> Any:
    """Map the logits of each sample linearly so that their range becomes another one.

    Parameters
    ----------
    logits : ndarray or Tensor of shape (n_samples, n_classes)
        Logits.
    ends : tuple of two ndarrays or Tensors of shape (n_samples, 1)
        The smallest and the highest logit of each sample.
    new_ends : tuple of two ndarrays or Tensors of shape (n_samples, 1)
        The values to which these two are mapped.

    Returns
    -------
    mapped : ndarray or Tensor of shape (n_samples, n_classes)
        ``(z - low) / (high - low) * (new_high - new_low) + new_low``. Logits that are all equal are mapped to
        `new_low`.
    """
    (low, high), (new_low, new_high) = ends, new_ends
    return (logits - low) / (high - low).clip(min=_SMALLEST) * (new_high - new_low) + new_low
