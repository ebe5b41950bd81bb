"""Parse backbone names, locate local files, and build the errors for both."""

from __future__ import annotations

import difflib
import json
import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcal.exceptions import BackboneError, WeightsUnavailableError

MINI = "mini"
HUB_PREFIX = "hf-hub:"
FOLDER_PREFIX = "local-dir:"
MINI_FOLDER = Path(__file__).parent / "mini"

_FORMS = (
    "Backbone names are 'mini', 'ARCHITECTURE/TAG' (as in 'ViT-B-16/openai'), 'hf-hub:org/name', "
    "'local-dir:path', or 'ARCHITECTURE:path' for a checkpoint file (as in 'ViT-B-16:weights.safetensors')."
)
_CONFIG_FILES = ("open_clip_config.json", "config.json")
_CHECKPOINT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "weights.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


@dataclass(frozen=True)
class BackboneName:
    """A parsed backbone name.

    Attributes
    ----------
    kind : {"folder", "hub", "tag", "file"}
        Type of the source of the weights.
    source : str
        The folder, the repository on the hub, the tag, or the checkpoint file.
    architecture : str
        The open_clip architecture; empty if a configuration file next to the weights defines it.
    """

    kind: str
    source: str
    architecture: str = ""


def parse_name(name: str) -> BackboneName:
    """Parse a backbone name.

    Parameters
    ----------
    name : str
        ``"mini"``, ``"ARCHITECTURE/TAG"``, ``"hf-hub:org/name"``, ``"local-dir:path"`` or
        ``"ARCHITECTURE:path"``.

    Returns
    -------
    BackboneName
        The parsed name. Paths are absolute, so equal results refer to the same weights.

    Raises
    ------
    BackboneError
        If `name` has none of these forms.
    """
    if name == MINI:
        return BackboneName("folder", str(MINI_FOLDER))
    prefix, colon, rest = name.partition(":")
    if colon:
        if not rest or not prefix:
            raise BackboneError(f"backbone={name!r} is empty on one side of the colon. {_FORMS}")
        if prefix + colon == HUB_PREFIX:
            return BackboneName("hub", rest)
        path = os.path.abspath(os.path.expanduser(rest))
        if prefix + colon == FOLDER_PREFIX:
            return BackboneName("folder", path)
        return BackboneName("file", path, clean_architecture(prefix))
    architecture, slash, tag = name.rpartition("/")
    if not slash or not architecture or not tag:
        return BackboneName("tag", "", clean_architecture(name.strip("/")))
    return BackboneName("tag", tag, clean_architecture(architecture))


def clean_architecture(architecture: str) -> str:
    """Convert an architecture to open_clip's spelling, such as ``"ViT-B/16"`` to ``"ViT-B-16"``."""
    return architecture.replace("/", "-")


def near(word: str, candidates: Iterable[str]) -> str:
    """Return a "Did you mean" sentence with the candidates similar to `word`; empty if there are none."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(by_lower[match]) for match in close)}?" if close else ""


def unknown_architecture(name: str, architecture: str, known: Iterable[str]) -> BackboneError:
    """Return the error for an architecture that open_clip does not have."""
    suggestion = near(architecture, [*known, MINI])
    return BackboneError(
        f"backbone={name!r}: open_clip has no architecture {architecture!r}.{suggestion} {_FORMS}"
    )


def unknown_tag(name: str, parts: BackboneName, tags: Iterable[str]) -> BackboneError:
    """Return the error for a tag that open_clip does not have for the architecture."""
    tags = sorted(tags)
    listed = ", ".join(tags) if tags else "none"
    problem = f"has no weights {parts.source!r} for" if parts.source else "needs a tag for the weights of"
    return BackboneError(
        f"backbone={name!r}: open_clip {problem} {parts.architecture}.{near(parts.source, tags)} "
        f"Tags of {parts.architecture}: {listed}. {_FORMS}"
    )


def unavailable(name: str, looked: str, cause: object) -> WeightsUnavailableError:
    """Return the error for weights that could not be found or downloaded."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    reason = " ".join(line.strip() for line in lines[:3])
    return WeightsUnavailableError(
        f"The weights of backbone={name!r} could not be loaded. Looked in: {looked}. Reason: {reason} "
        "To work offline, either fill the Hugging Face cache on a machine with a network and set "
        "HF_HUB_OFFLINE=1; or put configuration and weights in a folder and pass backbone='local-dir:path'; "
        "or pass a checkpoint file, such as backbone='ViT-B-16-quickgelu:~/.cache/clip/ViT-B-16.pt', where "
        "OpenAI's clip.load stores its weights; or use the packaged backbone='mini'."
    )


def unreadable(name: str, checkpoint: Path, cause: object) -> WeightsUnavailableError:
    """Return the error for a checkpoint file from which the tensors of the model cannot be read."""
    text = str(cause)
    if "loading state_dict" in text:
        what = "does not hold the tensors of this architecture"
        advice = (
            "The architecture is defined by the name, as in backbone='ViT-B-16:path', or by the "
            "configuration file next to the weights."
        )
    else:
        what = "is damaged or holds more than tensors; no code in it was run"
        advice = (
            "If you trust its source, save its tensors with safetensors.torch.save_file(state_dict, "
            "'weights.safetensors') and open that file."
        )
    # torch's message first recommends loading the file with weights_only=False; skip that part.
    reason = textwrap.shorten(text[max(text.find("WeightsUnpickler error:"), 0) :], 400, placeholder=" [...]")
    return WeightsUnavailableError(
        f"backbone={name!r}: {checkpoint} {what}. Reason: {reason.rstrip('.') or 'it is empty'}. {advice}"
    )


def other_weights(name: str, checkpoint: Path, why: str, architectures: Sequence[str]) -> BackboneError:
    """Return the error for weights that do not match the requested architecture."""
    advice = (
        "No architecture of open_clip has exactly these tensors; put them in a folder with their own "
        "configuration and pass backbone='local-dir:path'."
    )
    if architectures:
        names = " or ".join(f"'{architecture}:{checkpoint}'" for architecture in architectures)
        advice = f"Use backbone={names}."
        if name.startswith(FOLDER_PREFIX):
            advice += f" For a folder, use the model_cfg of {architectures[0]} in its configuration."
    return BackboneError(f"backbone={name!r}: the weights in {checkpoint} {why}. {advice}")


def find_in_folder(name: str, folder: str) -> tuple[Path, Path]:
    """Find the configuration and the weights in a folder.

    Parameters
    ----------
    name : str
        The backbone name, for error messages.
    folder : str
        The folder.

    Returns
    -------
    tuple of Path
        Configuration file and checkpoint file.

    Raises
    ------
    WeightsUnavailableError
        If the folder, configuration or weights are missing, or several files could be the weights.
    """
    root = Path(folder)
    if not root.is_dir():
        raise unavailable(name, folder, "There is no such folder.")
    configs = [root / file for file in _CONFIG_FILES if (root / file).is_file()]
    if not configs:
        reason = f"The folder holds neither {' nor '.join(_CONFIG_FILES)}."
        for file in sorted(root.glob("*.pt"))[:1]:
            reason += f" To open a single file, give its architecture, as in backbone='ViT-B-16:{file}'."
        raise unavailable(name, folder, reason)
    checkpoints = [root / file for file in _CHECKPOINT_FILES if (root / file).is_file()]
    if not checkpoints:
        for suffix in ("safetensors", "bin", "pth", "pt"):
            checkpoints = checkpoints or sorted(root.glob(f"*.{suffix}"))
        if len(checkpoints) > 1:
            listed = ", ".join(path.name for path in checkpoints)
            raise unavailable(name, folder, f"Several files could be the weights: {listed}.")
    if not checkpoints:
        raise unavailable(name, folder, "The folder holds no weights (*.safetensors, *.bin, *.pth, *.pt).")
    return configs[0], checkpoints[0]


def read_config(name: str, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the model and preprocessing configuration of an open_clip configuration file.

    Raises
    ------
    WeightsUnavailableError
        If the file is not an open_clip configuration.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return dict(config["model_cfg"]), dict(config.get("preprocess_cfg") or {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsUnavailableError(
            f"backbone={name!r}: {path} is not an open_clip configuration: JSON with 'model_cfg' "
            f"(embed_dim, vision_cfg, text_cfg) and 'preprocess_cfg'. Reason: {type(error).__name__}: {error}"
        ) from error
