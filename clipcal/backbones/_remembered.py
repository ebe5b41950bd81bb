"""What a cache remembers of a backbone, so that finding everything in it loads no weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clipcal.backbones._names import BackboneName
from clipcal.caching import FeatureCache
from clipcal.exceptions import BackboneError

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipcal.backbones._protocol import Backbone

_NUMBERS = ("embedding_dim", "token_dim", "context_length", "n_start_tokens", "logit_scale")


class RememberedBackbone:
    """A backbone that is known by its facts, and opened when it has to encode or to transform.

    Parameters
    ----------
    name : str
        What opens it.
    parts : BackboneName
        The name taken apart.
    facts : dict
        What :func:`recall` gives.
    cache : FeatureCache
        Where the facts are from.
    really_open : callable
        Gives the backbone itself.
    device : torch.device
        Where it will run.
    precision : {"fp32", "bf16"}
        Its arithmetic.
    """

    def __init__(
        self,
        name: str,
        parts: BackboneName,
        facts: dict[str, Any],
        cache: FeatureCache,
        really_open: Callable[[], Backbone],
        device: torch.device,
        precision: str,
    ) -> None:
        self.name = name
        self.device = device
        self.precision = precision
        self.fingerprint: str = facts["fingerprint"]
        self.embedding_dim: int = facts["embedding_dim"]
        self.token_dim: int = facts["token_dim"]
        self.context_length: int = facts["context_length"]
        self.n_start_tokens: int = facts["n_start_tokens"]
        self.logit_scale: float = facts["logit_scale"]
        self._parts = parts
        self._cache = cache
        self._really_open = really_open
        self._opened: Backbone | None = None
        self._lock = threading.Lock()

    def preprocess(self, image: Image) -> torch.Tensor:
        """Apply the model's evaluation transform to a picture: (3, height, width)."""
        return self._backbone().preprocess(image)

    def augment(self, image: Image, generator: torch.Generator) -> torch.Tensor:
        """Draw a random crop of a picture: (3, height, width)."""
        return self._backbone().augment(image, generator)

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels (n, 3, height, width) as (n, embedding_dim), without a graph."""
        return self._backbone().encode_images(pixels)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Turn texts into token ids (n, length) on the device."""
        return self._backbone().tokenize(texts)

    def text_lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Count the positions that hold text: (n,)."""
        return self._backbone().text_lengths(tokens)

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look up token embeddings (n, length, token_dim)."""
        return self._backbone().embed_tokens(tokens)

    def encode_text(self, token_embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Embed prompts (n, length, token_dim) as (n, embedding_dim)."""
        return self._backbone().encode_text(token_embeddings, tokens)

    def __getattr__(self, name: str) -> Any:
        # What copying, pickling and the registry only try must not load weights.
        if name.startswith("_") or name == "for_width":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self._backbone(), name)

    def _backbone(self) -> Backbone:
        with self._lock:
            if self._opened is None:
                opened = self._really_open()
                remember(self._cache, self._parts, opened)
                if opened.fingerprint != self.fingerprint:
                    raise BackboneError(
                        f"The weights of backbone={self.name!r} are others than those that {self._cache!r} "
                        "remembered under this name, although their files look the same. The cache has been "
                        "corrected and nothing was mixed; call again, and fit again what was fitted before."
                    )
                self._opened = opened
            return self._opened

    def __repr__(self) -> str:
        return f"RememberedBackbone({self.name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    def __sklearn_clone__(self) -> RememberedBackbone:
        return self

    def __copy__(self) -> RememberedBackbone:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RememberedBackbone:
        return self

    def __reduce__(self) -> Any:
        from clipcal.backbones._registry import reopen_backbone  # the registry imports this module

        location = str(self._cache.location)
        return reopen_backbone, (self.name, str(self.device), self.precision, location)


def recall(cache: FeatureCache, parts: BackboneName) -> dict[str, Any] | None:
    """Return what is known of a backbone, or None if nothing is or its files have changed."""
    facts = cache.note(_subject(parts))
    if facts is None or not {"fingerprint", "files", "reader", *_NUMBERS} <= facts.keys():
        return None
    now = {file: _stamp(Path(file)) for file in facts["files"]}
    return facts if facts["reader"] == _reader() and facts["files"] == now else None


def remember(cache: FeatureCache, parts: BackboneName, backbone: Backbone) -> None:
    """Note what an opened backbone is, unless that is known."""
    files = getattr(backbone, "files", None)
    if not files:
        return
    facts = {name: getattr(backbone, name) for name in ("fingerprint", *_NUMBERS)}
    facts |= {"name": backbone.name, "files": files, "reader": _reader()}
    if cache.note(_subject(parts)) != facts:
        cache.write_note(_subject(parts), facts)


def file_stamps(parts: BackboneName, checkpoint: Path) -> dict[str, Any]:
    """Return sizes and times that change when a name comes to mean other weights.

    To be taken before the weights are read: what is written to a file afterwards is then noticed.
    """
    watched = [checkpoint]
    if parts.kind == "folder":
        # The names in it too, as one more file may be chosen in the place of another.
        watched = [Path(parts.source), *sorted(Path(parts.source).iterdir())]
    elif parts.kind == "hub":
        watched.append(checkpoint.parent / "open_clip_config.json")
    if checkpoint.parent.parent.name == "snapshots":
        # models--org--name/snapshots/<commit>/file, where refs/main says which commit.
        refs = checkpoint.parent.parent.parent / "refs"
        watched += sorted(path for path in refs.rglob("*") if path.is_file())
    return {str(path): _stamp(path) for path in watched}


def _stamp(path: Path) -> Any:
    try:
        if path.is_dir():
            return sorted(child.name for child in path.iterdir())
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _reader() -> str:
    """Name the version of open_clip: its configurations are part of what a name means."""
    try:
        return f"open_clip_torch {version('open_clip_torch')}"
    except PackageNotFoundError:
        return "open_clip_torch"


def _subject(parts: BackboneName) -> str:
    return f"backbone {parts.kind} {parts.source} {parts.architecture}"
