"""Frozen CLIP models with a common interface."""

from typing import TYPE_CHECKING, Any

from clipcal import _progress as _progress  # must precede open_clip, see there

# The names that are repeated are used by other packages and are not public.
from clipcal.backbones._capabilities import n_text_blocks as n_text_blocks
from clipcal.backbones._capabilities import precision_of as precision_of
from clipcal.backbones._capabilities import shares_prefix as shares_prefix
from clipcal.backbones._capabilities import text_bytes_per_token as text_bytes_per_token
from clipcal.backbones._device import resolve_device, resolve_precision
from clipcal.backbones._device import upload as upload
from clipcal.backbones._fixed_text import encode_fixed as encode_fixed
from clipcal.backbones._hub import cached_checkpoints as cached_checkpoints
from clipcal.backbones._hub import cached_models as cached_models
from clipcal.backbones._hub import hub_cache as hub_cache
from clipcal.backbones._hub import url_cache as url_cache
from clipcal.backbones._packing import Packing as Packing
from clipcal.backbones._protocol import Backbone
from clipcal.backbones._registry import open_backbone
from clipcal.backbones._threads import limit_threads as limit_threads
from clipcal.backbones._threads import product_size as product_size
from clipcal.backbones._threads import single_threaded as single_threaded
from clipcal.backbones._threads import threads_for as threads_for

if TYPE_CHECKING:
    from clipcal.backbones._open_clip import OpenClipBackbone as OpenClipBackbone

__all__ = [
    "Backbone",
    "OpenClipBackbone",
    "open_backbone",
    "resolve_device",
    "resolve_precision",
]


def __getattr__(name: str) -> Any:
    # open_clip takes seconds to import and is not needed for user-defined backbones.
    if name == "OpenClipBackbone":
        from clipcal.backbones._open_clip import OpenClipBackbone

        return OpenClipBackbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
