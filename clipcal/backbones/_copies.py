"""Copies of frozen backbones: none within a process, and by name in another one."""

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
    """Mixin whose copies and clones are the object itself: a copy of frozen weights only costs memory."""

    def __sklearn_clone__(self) -> Self:
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def opens_pickles(opener: _Opener) -> _Opener:
    """Let a function open pickled backbones; backbones do not import it, as it imports backbones."""
    _openers[:] = [opener]
    return opener


def reopen_backbone(name: str, device: str, precision: str, memory: MemoryLike | None = None) -> Backbone:
    """Open a pickled backbone: where it was, or on the best device of a machine that has no such device."""
    try:
        resolve_device(device)
    except BackboneError:
        device, precision = "auto", "auto"
    return _openers[0](name, device=device, precision=precision, memory=memory)
