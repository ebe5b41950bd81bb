"""Map logits to another range, for NumPy arrays and torch tensors alike."""

from __future__ import annotations

from typing import Any

__all__ = ["match_range"]


def match_range(
    logits: Any, ends: tuple[Any, Any], new_ends: tuple[Any, Any], *, smallest_range: float = 0.0
) -> Any:
    """Map the logits of each sample linearly so that their range becomes another one.

    Parameters
    ----------
    logits : ndarray or Tensor of shape (n_samples, n_classes)
        Logits.
    ends : tuple of two ndarrays or Tensors of shape (n_samples, 1)
        The smallest and the highest logit of each sample.
    new_ends : tuple of two ndarrays or Tensors of shape (n_samples, 1)
        The values to which these two are mapped.
    smallest_range : float, default=0.0
        A smaller ``high - low`` is replaced by this value in the denominator. The derivatives of the mapped
        logits are inversely proportional to it, so training needs a positive value.

    Returns
    -------
    mapped : ndarray or Tensor of shape (n_samples, n_classes)
        ``(z - low) / (high - low) * (new_high - new_low) + new_low``. Logits that are all equal are mapped to
        `new_low`.
    """
    (low, high), (new_low, new_high) = ends, new_ends
    width = (high - low).clip(min=smallest_range)
    # A width of 0 becomes 1: all logits are equal to `low`, so the quotient is 0 instead of 0 / 0.
    return (logits - low) / (width + (width == 0)) * (new_high - new_low) + new_low
