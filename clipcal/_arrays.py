"""Convert torch tensors and NumPy's variable-width strings to ordinary arrays, without importing torch."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["plain_labels", "to_numpy"]


def to_numpy(values: Any) -> Any:
    """Convert a torch tensor to an array; return anything else unchanged.

    NumPy cannot convert tensors that require gradients, are on another device or have dtype bfloat16.

    Parameters
    ----------
    values : object
        A tensor or any other object.

    Returns
    -------
    values : object
        For a tensor, a detached ndarray on the CPU, of the same dtype, or float32 if NumPy does not have
        the dtype (bfloat16 and 8-bit floats). Memory is shared if possible.

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
        # force=True also resolves lazily conjugated and negated tensors.
        return tensor.numpy(force=True)
    except TypeError:
        return tensor.float().numpy(force=True)


def plain_labels(labels: Any) -> Any:
    """Convert labels in tensors and ``StringDType`` arrays to arrays that scikit-learn supports.

    Parameters
    ----------
    labels : object
        Labels.

    Returns
    -------
    labels : object
        For a tensor, the result of :func:`to_numpy`; for an array of ``numpy.dtypes.StringDType``, an array
        of fixed-width strings, or of objects if some are missing. Anything else is returned unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal._arrays import plain_labels
    >>> plain_labels(np.array(["cat", "mouse"], dtype=np.dtypes.StringDType()))
    array(['cat', 'mouse'], dtype='<U5')
    """
    labels = to_numpy(labels)
    if getattr(getattr(labels, "dtype", None), "kind", None) != "T":
        return labels
    objects = np.asarray(labels, dtype=object)
    text = all(isinstance(label, str) for label in objects.ravel().tolist())
    return objects.astype(str) if text else objects
