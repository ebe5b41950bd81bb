"""From torch tensors and NumPy's newer strings to the arrays that scikit-learn knows, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["plain_labels", "to_numpy"]


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


def plain_labels(labels: Any) -> Any:
    """Return labels of a type that scikit-learn knows: tensors and ``StringDType`` as ordinary arrays.

    Parameters
    ----------
    labels : object
        Labels as a caller passed them on.

    Returns
    -------
    labels : object
        For a tensor what :func:`to_numpy` returns; for an array of ``numpy.dtypes.StringDType`` one of
        fixed-width strings, or of objects if some are missing. Anything else as it is.

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
