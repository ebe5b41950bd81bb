"""From torch tensors to arrays, without torch."""

from __future__ import annotations

from typing import Any

__all__ = ["to_numpy"]


def to_numpy(values: Any) -> Any:
    """Return a torch tensor as an array, and anything else as it is.

    NumPy by itself refuses tensors that carry a graph, live on another device or hold bfloat16. torch
    need not be imported to convert them: whoever has a tensor has imported it.

    Parameters
    ----------
    values : object
        A tensor, or whatever else a caller passed on.

    Returns
    -------
    values : object
        For a tensor an ndarray on the CPU, detached from its graph; float32 where NumPy lacks the type,
        as it lacks bfloat16 and the 8-bit floats, and else of the tensor's own type. Memory is shared
        where possible.

    Examples
    --------
    >>> import torch
    >>> from clipcal._arrays import to_numpy
    >>> to_numpy(torch.tensor([0.25, 0.75], dtype=torch.bfloat16, requires_grad=True))
    array([0.25, 0.75], dtype=float32)
    >>> to_numpy([0.25, 0.75])
    [0.25, 0.75]
    """
    if not all(hasattr(values, name) for name in ("detach", "cpu", "dtype")):
        return values
    tensor = values.detach().cpu()
    try:
        # Lazily conjugated and negated tensors are resolved.
        return tensor.numpy(force=True)
    except TypeError:
        return tensor.float().numpy(force=True)
