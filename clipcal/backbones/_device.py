"""Where a CLIP runs, and in which arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from clipcal.exceptions import BackboneError

PRECISIONS = ("auto", "fp32", "bf16")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn a device request into a device of this machine.

    Parameters
    ----------
    device : str or torch.device, default="auto"
        ``"auto"`` takes CUDA if there is one, then Apple's MPS, then the CPU. Anything else is
        what :class:`torch.device` understands: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Returns
    -------
    torch.device
        A device that this machine has.

    Raises
    ------
    BackboneError
        If the request is not a device, or this machine does not have it.

    Examples
    --------
    >>> from clipcal.backbones import resolve_device
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise BackboneError(
            f"device={device!r} is not a device. Use 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps'."
        ) from error
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise BackboneError(
            f"device={str(device)!r} is not supported. Use 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps'."
        )
    if resolved.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if n_devices <= (resolved.index or 0):
            raise BackboneError(
                f"device={str(device)!r} was asked for, but torch sees {n_devices} CUDA device(s) here. "
                "Use device='auto' to take the best device that is present."
            )
    elif resolved.type == "mps" and not torch.backends.mps.is_available():
        raise BackboneError(
            "device='mps' was asked for, but torch has no MPS here. "
            "Use device='auto' to take the best device that is present."
        )
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn a precision request into ``"fp32"`` or ``"bf16"``.

    Parameters
    ----------
    precision : {"auto", "fp32", "bf16"}
        ``"auto"`` is bfloat16 autocast on a CUDA device that computes in it natively, float32 elsewhere.
    device : torch.device
        The device that the model runs on.

    Returns
    -------
    str
        ``"fp32"`` or ``"bf16"``.

    Raises
    ------
    BackboneError
        If `precision` is none of the three.
    """
    if precision not in PRECISIONS:
        raise BackboneError(f"precision={precision!r} is not one of {', '.join(map(repr, PRECISIONS))}.")
    if precision != "auto":
        return precision
    # Older cards only emulate bfloat16, which is slower than float32 and less exact.
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Open the arithmetic that `precision` names on `device`.

    Parameters
    ----------
    device : torch.device
        The device that the model runs on.
    precision : {"fp32", "bf16"}
        A resolved precision. ``"fp32"`` also shuts out an autocast that the caller has open.

    Returns
    -------
    context manager
        To be entered around the forward pass.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a tensor of the CPU to a device, without waiting for what a GPU is doing.

    Parameters
    ----------
    tensor : Tensor
        On the CPU.
    device : torch.device
        Where to.

    Returns
    -------
    Tensor
        The copy, or the tensor itself on the CPU.
    """
    # CUDA takes ordinary memory into a buffer of its own before it returns; MPS may read it after it is gone.
    return tensor.to(device, non_blocking=device.type == "cuda")
