"""Frozen CLIP models with a common interface."""

from typing import TYPE_CHECKING, Any

from clipcal import _progress as _progress  # before open_clip; it says why
from clipcal.backbones._device import autocast, resolve_device, resolve_precision, upload
from clipcal.backbones._packing import Packing
from clipcal.backbones._protocol import Backbone
from clipcal.backbones._registry import open_backbone
from clipcal.backbones._threads import product_size, single_threaded, threads_for

if TYPE_CHECKING:
    from clipcal.backbones._open_clip import OpenClipBackbone as OpenClipBackbone

__all__ = [
    "Backbone",
    "OpenClipBackbone",
    "Packing",
    "autocast",
    "open_backbone",
    "product_size",
    "resolve_device",
    "resolve_precision",
    "single_threaded",
    "threads_for",
    "upload",
]


def __getattr__(name: str) -> Any:
    # open_clip takes seconds to import and is not needed for user-defined backbones.
    if name == "OpenClipBackbone":
        from clipcal.backbones._open_clip import OpenClipBackbone

        return OpenClipBackbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
