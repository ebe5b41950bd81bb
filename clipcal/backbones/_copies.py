"""Copying and pickling of frozen backbones: copies are the same object, and pickles store the name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from clipcal.backbones._device import resolve_device
from clipcal.exceptions import BackboneError

if TYPE_CHECKING:
    from clipcal.backbones._protocol import Backbone
    from clipcal.caching import MemoryLike

_Opener = TypeVar("_Opener", bound="Callable[..., Backbone]")

_openers: list[Callable[..., Backbone]] = []


class Uncopied:
    """Mixin whose copies and clones are the object itself, as copies of frozen weights would waste memory."""

    def __sklearn_clone__(self) -> Self:
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def opens_pickles(opener: _Opener) -> _Opener:
    """Register the function that opens pickled backbones; importing it here would be a cycle."""
    _openers[:] = [opener]
    return opener


def reopen_backbone(name: str, device: str, precision: str, memory: MemoryLike | None = None) -> Backbone:
    """Open a pickled backbone on its device, or on the best available device if that is missing."""
    try:
        resolve_device(device)
    except BackboneError:
        device, precision = "auto", "auto"
    return _openers[0](name, device=device, precision=precision, memory=memory)
