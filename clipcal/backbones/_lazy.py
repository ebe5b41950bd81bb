"""A backbone whose weights are loaded at the first use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from clipcal.backbones._copies import Uncopied, reopen_backbone
from clipcal.backbones._protocol import METHODS

if TYPE_CHECKING:
    from clipcal.backbones._protocol import Backbone


class LazyBackbone(Uncopied):
    """Proxy of a backbone whose attributes are recorded in a cache.

    The backbone is opened at the first use of one of its methods, or of an attribute that is not in `known`.

    Parameters
    ----------
    known : mapping
        Attributes by name, including those of :class:`Backbone` and ``precision``.
    open_it : callable
        ``open_it()`` returns the backbone.
    memory : str
        The cache; part of the pickle, so that the unpickled backbone is lazy too.
    """

    def __init__(self, known: Mapping[str, Any], open_it: Callable[[], Backbone], memory: str) -> None:
        vars(self).update(known)
        self._open_it = open_it
        self._memory = memory
        self._opened: Backbone | None = None
        self._lock = threading.Lock()

    def _backbone(self) -> Backbone:
        with self._lock:
            if self._opened is None:
                self._opened = self._open_it()
            return self._opened

    def __getattr__(self, name: str) -> Any:
        # Copying, pickling and open_backbone look up these names, which must not load the weights.
        if name.startswith("_") or name == "for_width":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self._backbone(), name)

    def __repr__(self) -> str:
        return f"LazyBackbone({self.name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    def __reduce__(self) -> Any:
        return reopen_backbone, (self.name, str(self.device), self.precision, self._memory)


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: LazyBackbone, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._backbone(), name)(*args, **kwargs)

    method.__name__ = name
    return method


# Set on the class, as isinstance(..., Backbone) does not use __getattr__.
for _name in METHODS:
    setattr(LazyBackbone, _name, _forwarded(_name))
