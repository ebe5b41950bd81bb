"""Record the attributes of backbones in a cache, and detect changes of their files."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipcal.backbones._names import BackboneName
from clipcal.caching import FeatureCache

if TYPE_CHECKING:
    from clipcal.backbones._protocol import Backbone

# Attributes of a Backbone that do not depend on device and precision.
KNOWN_ATTRIBUTES = (
    "fingerprint",
    "embedding_dim",
    "token_dim",
    "context_length",
    "n_start_tokens",
    "logit_scale",
)


def recall(cache: FeatureCache, parts: BackboneName) -> dict[str, Any] | None:
    """Return the recorded attributes of a backbone; None if there are none or the files have changed."""
    facts = cache.note(_subject(parts))
    if facts is None or not {"files", "reader", *KNOWN_ATTRIBUTES} <= facts.keys():
        return None
    now = {file: _stamp(Path(file)) for file in facts["files"]}
    return facts if facts["reader"] == _reader() and facts["files"] == now else None


def remember(cache: FeatureCache, parts: BackboneName, backbone: Backbone) -> None:
    """Record the attributes of an opened backbone, unless they are recorded already."""
    files = getattr(backbone, "files", None)
    if not files:
        return
    facts = {name: getattr(backbone, name) for name in KNOWN_ATTRIBUTES}
    facts |= {"name": backbone.name, "files": files, "reader": _reader()}
    if cache.note(_subject(parts)) != facts:
        cache.write_note(_subject(parts), facts)


def file_stamps(parts: BackboneName, checkpoint: Path) -> dict[str, Any]:
    """Return sizes and modification times of the files that determine the weights.

    Call this before reading the weights, so that later changes of a file are detected.
    """
    watched = [checkpoint]
    if parts.kind == "folder":
        # Also the file names, as an additional file may be selected in place of the current one.
        watched = [Path(parts.source), *sorted(Path(parts.source).iterdir())]
    elif parts.kind == "hub":
        watched.append(checkpoint.parent / "open_clip_config.json")
    if checkpoint.parent.parent.name == "snapshots":
        # The path is models--org--name/snapshots/<commit>/file, and refs/main holds the commit.
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
    """Return the version of open_clip, as its configurations determine the model."""
    try:
        return f"open_clip_torch {version('open_clip_torch')}"
    except PackageNotFoundError:
        return "open_clip_torch"


def _subject(parts: BackboneName) -> str:
    return f"backbone {parts.kind} {parts.source} {parts.architecture}"
