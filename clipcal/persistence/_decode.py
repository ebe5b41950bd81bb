"""Decode fitted estimators from a document of plain values and named arrays.

Decoding runs no code from a document and opens no other files or backbones. Classes are looked up in a fixed
list of names. Each array may be used only once, so that a small file cannot fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcal._compat import validate_parameters
from clipcal.exceptions import BackboneError
from clipcal.persistence._arrays import NUMBERS, array_of
from clipcal.persistence._checks import check_fitted
from clipcal.persistence._encode import FINGERPRINT, FITTED, LEFT_OUT, MAX_DEPTH
from clipcal.persistence._registry import (
    CLIP_CLASSIFIERS,
    RECORDS,
    find_class,
    is_fittable,
    parameters_of,
)

__all__ = ["Decoder", "Surroundings"]

_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_KINDS = {"b": bool, "i": int, "u": int, "f": float}


class Surroundings(NamedTuple):
    """Values of the parameters that are not stored in a file because they depend on the machine."""

    backbone: Any
    device: Any
    memory: Any


class _NamelessBackbone(NamedTuple):
    kind: str


class Decoder:
    """Create objects from their records.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Arrays of the file.
    surroundings : Surroundings
        Values of the parameters that are not stored in the file.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], surroundings: Surroundings) -> None:
        self._tensors = dict(tensors)
        self._surroundings = surroundings
        self._objects: list[Any] = []
        self._depths: list[int] = []
        self._deepest = 0

    def estimator(self, document: Any) -> Any:
        """Return the last object of a document, which refers to all others.

        Raises
        ------
        BackboneError
            If the file needs a backbone object that was not given.
        ValueError
            If the document is invalid. Other errors are possible as well.
        """
        records = _with_keys(document, {"objects"})["objects"]
        if not isinstance(records, list) or not records:
            raise ValueError("it holds no estimator")
        for record in records:
            self._deepest = 0
            self._objects.append(self._object(record))
            self._depths.append(self._deepest + 1)
            if self._deepest >= MAX_DEPTH:
                raise ValueError("its estimators are nested too deeply")
        if self._tensors:
            raise ValueError(f"its arrays {sorted(self._tensors)[:5]} are not used")
        estimator = self._objects[-1]
        if not is_fittable(type(estimator)) or "fitted" not in records[-1]:
            raise ValueError(f"it holds a {type(estimator).__name__}, which is not a fitted estimator")
        return estimator

    def _object(self, record: Any) -> Any:
        _with_keys(record, {"class", "params"}, {"fitted", "fingerprint"})
        name, params = record["class"], record["params"]
        cls = find_class(name) if isinstance(name, str) else None
        if cls is None:
            raise ValueError(f"it names a class {name!r} that clipcal does not have")
        values = self._parameters(cls, params)
        made = cls(**values)
        if hasattr(made, "_parameter_constraints"):
            validate_parameters(made)
        if "fitted" in record:
            if not is_fittable(cls):
                raise ValueError(f"it has fitted attributes of a {name}, which has none")
            self._set_fitted(made, record["fitted"])
            if cls in CLIP_CLASSIFIERS:
                self._set_fingerprint(made, record.get("fingerprint"))
            check_fitted(made)
        return made

    def _parameters(self, cls: type, params: Any) -> dict[str, Any]:
        known, name = parameters_of(cls), cls.__name__
        if not isinstance(params, dict):
            raise ValueError(f"it has no parameters of {name}")
        unknown = sorted(set(params) - set(known) | set(params) & LEFT_OUT)
        if unknown:
            raise ValueError(f"{name} has no parameters {unknown} in a file of this clipcal")
        values = {key: self._value(item) for key, item in params.items()}
        if "backbone" in known:
            values["backbone"] = self._backbone(values.get("backbone"), name)
        given = self._surroundings._asdict()
        return values | {key: given[key] for key in LEFT_OUT & set(known)}

    def _backbone(self, saved: Any, name: str) -> Any:
        if self._surroundings.backbone is not None:
            return self._surroundings.backbone
        if isinstance(saved, _NamelessBackbone):
            raise BackboneError(
                f"This {name} was saved with a backbone object, a {saved.kind}, that has no name by which it "
                "could be opened again. Pass the object: clipcal.load(path, backbone=...)."
            )
        if not isinstance(saved, str):
            raise ValueError(f"it has no name of the backbone of {name}")
        return saved

    def _set_fitted(self, made: Any, fitted: Any) -> None:
        if not isinstance(fitted, dict) or not fitted:
            raise ValueError(f"it has no fitted attributes of {type(made).__name__}")
        for key, item in fitted.items():
            if not FITTED.fullmatch(key) or hasattr(type(made), key):
                raise ValueError(f"{key!r} is no fitted attribute")
            setattr(made, key, self._value(item))

    def _set_fingerprint(self, made: Any, fingerprint: Any) -> None:
        if not isinstance(fingerprint, str) or not 0 < len(fingerprint) <= 128:
            raise ValueError("it has no fingerprint of the backbone")
        setattr(made, FINGERPRINT, fingerprint)

    def _value(self, node: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("its values are nested too deeply")
        if isinstance(node, list):
            return [self._value(item, depth + 1) for item in node]
        if not isinstance(node, dict):
            return node
        tags = [key for key in node if key.startswith("$")]
        if not tags:
            return {key: self._value(item, depth + 1) for key, item in node.items()}
        reader = _READERS.get(tags[0])
        if len(node) != 1 or reader is None:
            raise ValueError(f"it marks a value with {sorted(node)[:5]}, which means nothing")
        return reader(self, node[tags[0]], depth + 1)

    def _listed(self, content: Any, depth: int, length: int | None = None) -> list[Any]:
        if not isinstance(content, list) or length not in (None, len(content)):
            raise ValueError("a list in it has another form than it should have")
        return [self._value(item, depth) for item in content]

    def _float(self, content: Any, depth: int) -> float:
        return _FLOATS[content]

    def _tuple(self, content: Any, depth: int) -> tuple[Any, ...]:
        return tuple(self._listed(content, depth))

    def _dict(self, content: Any, depth: int) -> dict[Any, Any]:
        pairs = [self._listed(pair, depth, 2) for pair in self._listed_raw(content)]
        found = {key: item for key, item in pairs}
        if len(found) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    def _listed_raw(self, content: Any) -> list[Any]:
        if not isinstance(content, list):
            raise ValueError("a list in it has another form than it should have")
        return content

    def _scalar(self, content: Any, depth: int) -> Any:
        code, value = self._listed(content, depth, 2)
        if code == "U" and isinstance(value, str):
            return np.str_(value)
        if code not in NUMBERS or type(value) is not _KINDS[code[0]]:
            raise ValueError(f"a number of the type {code!r} is {value!r}")
        return np.dtype(code).type(value)

    def _array(self, content: Any, depth: int) -> NDArray[Any]:
        name, code, order = self._listed(content, depth, 3)
        if name not in self._tensors:
            raise ValueError(f"its array {name!r} is missing or used twice")
        return array_of(self._tensors.pop(name), code, order)

    def _object_array(self, content: Any, depth: int) -> NDArray[Any]:
        items = self._listed(content, depth)
        array = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):
            array[i] = item
        return array

    def _path(self, content: Any, depth: int) -> Path:
        return Path(content)

    def _reference(self, content: Any, depth: int) -> Any:
        if type(content) is not int or not 0 <= content < len(self._objects):
            raise ValueError(f"it refers to an object {content!r} that does not come before")
        self._deepest = max(self._deepest, self._depths[content])
        return self._objects[content]

    def _record(self, content: Any, depth: int) -> Any:
        name, items = self._listed(content, depth, 2)
        if name not in RECORDS:
            raise ValueError(f"it names a record {name!r} that clipcal does not have")
        return RECORDS[name](*self._listed_raw(items))

    def _nameless(self, content: Any, depth: int) -> _NamelessBackbone:
        return _NamelessBackbone(str(content))


_READERS: dict[str, Callable[[Decoder, Any, int], Any]] = {
    "$array": Decoder._array,
    "$backbone": Decoder._nameless,
    "$dict": Decoder._dict,
    "$float": Decoder._float,
    "$object": Decoder._reference,
    "$objects": Decoder._object_array,
    "$path": Decoder._path,
    "$record": Decoder._record,
    "$scalar": Decoder._scalar,
    "$tuple": Decoder._tuple,
}


def _with_keys(node: Any, required: set[str], optional: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    """Return a node that has certain keys and no others."""
    keys = set(node) if isinstance(node, dict) else set()
    if not required <= keys or not keys <= required | optional:
        raise ValueError(f"a part of it should have the keys {sorted(required)}; it has {sorted(keys)[:5]}")
    return node
