"""Read the tensors of a TorchScript archive without running code from it."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

# File that torch.jit.save writes and torch.save does not.
_MARK = "/constants.pkl"
_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
# Constants in OpenAI's archives. All of OpenAI's models were trained with QuickGELU.
OPENAI_NUMBERS = frozenset({"context_length", "input_resolution", "vocab_size"})
_LISTS = {"build_boollist", "build_doublelist", "build_intlist", "build_tensorlist"}


@dataclass(frozen=True)
class Archive:
    """Content of a TorchScript archive.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Parameters and buffers by their dotted names, on the CPU, in the dtype of the file.
    module_types : frozenset of str
        Class names of the modules, such as ``"QuickGELU"``.
    """

    tensors: dict[str, torch.Tensor]
    module_types: frozenset[str]

    @property
    def quick_gelu(self) -> bool | None:
        """Whether the tensors were trained with QuickGELU; None if unknown."""
        if "QuickGELU" in self.module_types or "GELU" in self.module_types:
            return "QuickGELU" in self.module_types
        return True if self.tensors.keys() >= OPENAI_NUMBERS else None


def is_torchscript(path: Path) -> bool:
    """Whether a file was written by ``torch.jit.save``, as OpenAI's weights were."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _root(archive) is not None


def read_torchscript(path: Path) -> Archive:
    """Read the tensors of a TorchScript archive.

    ``torch.jit.load`` would compile the code of the archive, and a plain unpickler would call any function
    that the file names. Here, modules are read as plain containers of attributes, and only the classes and
    functions listed in this module are allowed.

    Parameters
    ----------
    path : Path
        The archive.

    Returns
    -------
    Archive
        The tensors and the class names of the modules.

    Raises
    ------
    ValueError
        If the archive is damaged, or uses a class or function that is not allowed.
    """
    module_types: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            module = _Unpickler(_entry(archive, f"{root}/data.pkl"), module_types).load()
            return Archive(dict(_Reader(archive, f"{root}/data/").tensors(module)), frozenset(module_types))
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _root(archive: zipfile.ZipFile) -> str | None:
    """Return the top folder of a TorchScript archive; None for other archives."""
    roots = (name.removesuffix(_MARK) for name in archive.namelist() if name.endswith(_MARK))
    return next((root for root in roots if "/" not in root), None)


def _entry(archive: zipfile.ZipFile, name: str, n_bytes: int | None = None) -> bytes:
    """Read an entry; compressed entries, which torch does not write, are rejected as possible zip bombs."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{name} is compressed")
    if n_bytes is not None and n_bytes != info.file_size:
        raise ValueError(f"{name} has {info.file_size} bytes, not {n_bytes}")
    return archive.read(info)


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype
    n_elements: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """Placeholder for a module of the archive."""

    __slots__ = ("attributes",)

    def __setstate__(self, state: Any) -> None:
        self.attributes = dict(state)


class _Function:
    """A function that a pickle may call; unlike a plain function, its attributes cannot be set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


class _Unpickler(pickle.Unpickler):
    """Unpickler for placeholder modules, tensor descriptions and containers only."""

    def __init__(self, data: bytes, module_types: set[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._module_types = module_types

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            self._module_types.add(name)
            return _Module
        if module == "torch" and name in _DTYPES:
            return name
        if module == "torch.jit._pickle" and name in _LISTS:
            return _Function(list)
        functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): dict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *args: _Tensor(*args[:4]),
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
        }
        if (module, name) not in functions:
            raise pickle.UnpicklingError(f"it uses {module}.{name}, which is not allowed")
        return _Function(functions[module, name])

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, n_elements = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"it uses {pid!r}, which is not a storage")
        return _Storage(str(key), _DTYPES[storage_type], int(n_elements))


class _Reader:
    """Load the tensors that an unpickled archive describes."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder
        self._storages: dict[_Storage, torch.Tensor] = {}
        self._seen: set[int] = set()

    def tensors(self, module: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the names and tensors of a module and its submodules."""
        if not isinstance(module, _Module) or id(module) in self._seen:
            raise ValueError(f"{prefix or 'its content'} is not a module, or a module that occurs twice")
        self._seen.add(id(module))
        for name, value in module.attributes.items():
            if isinstance(value, _Tensor):
                yield prefix + name, self._tensor(value)
            elif isinstance(value, _Module):
                yield from self.tensors(value, f"{prefix}{name}.")

    def _tensor(self, tensor: _Tensor) -> torch.Tensor:
        # as_strided raises if sizes and strides exceed the storage.
        return self._storage(tensor.storage).as_strided(tensor.size, tensor.stride, tensor.offset)

    def _storage(self, storage: _Storage) -> torch.Tensor:
        if storage not in self._storages:
            n_bytes = storage.n_elements * storage.dtype.itemsize
            data = bytearray(_entry(self._archive, self._folder + storage.key, n_bytes))
            flat = (
                torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
            )
            self._storages[storage] = flat
        return self._storages[storage]
