"""Device and precision of a CLIP model."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from clipcal.exceptions import BackboneError

PRECISIONS = ("auto", "fp32", "bf16")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Resolve a device and check that it is available.

    Parameters
    ----------
    device : str or torch.device, default="auto"
        ``"auto"`` is the first available of CUDA, Apple's MPS and the CPU. Otherwise an argument of
        :class:`torch.device`: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Returns
    -------
    torch.device
        An available device.

    Raises
    ------
    BackboneError
        If `device` is not a device, or is not available on this machine.

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
                f"device={str(device)!r} is not available: torch finds {n_devices} CUDA device(s). "
                "Use device='auto' for the best available device."
            )
    elif resolved.type == "mps" and not torch.backends.mps.is_available():
        raise BackboneError(
            "device='mps' is not available: torch finds no MPS device. "
            "Use device='auto' for the best available device."
        )
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve a precision to ``"fp32"`` or ``"bf16"``.

    Parameters
    ----------
    precision : {"auto", "fp32", "bf16"}
        ``"auto"`` is bfloat16 autocast on CUDA devices that support it natively, float32 otherwise.
    device : torch.device
        The device that the model runs on.

    Returns
    -------
    str
        ``"fp32"`` or ``"bf16"``.

    Raises
    ------
    BackboneError
        If `precision` is not one of the three.

    Examples
    --------
    >>> import torch
    >>> from clipcal.backbones import resolve_precision
    >>> resolve_precision("auto", torch.device("cpu"))
    'fp32'
    """
    if precision not in PRECISIONS:
        choices = ", ".join(map(repr, PRECISIONS))
        raise BackboneError(f"precision must be one of {choices}; got {precision!r}.")
    if precision != "auto":
        return precision
    # Older GPUs emulate bfloat16, which is slower and less accurate than float32.
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the autocast context for a forward pass.

    Parameters
    ----------
    device : torch.device
        The device that the model runs on.
    precision : {"fp32", "bf16"}
        A resolved precision. ``"fp32"`` disables autocast, even if the caller has enabled it.

    Returns
    -------
    context manager
        Context for the forward pass.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to a device without synchronizing with a GPU.

    Parameters
    ----------
    tensor : Tensor
        A tensor on the CPU.
    device : torch.device
        The target device.

    Returns
    -------
    Tensor
        The copy, or the tensor itself if the device is the CPU.
    """
    # CUDA copies pageable memory to a staging buffer before it returns, so the source may be freed. MPS may
    # still read the source after that.
    return tensor.to(device, non_blocking=device.type == "cuda")
