"""Load a CLIP model of open_clip by the name of the backbone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from clipcal.backbones._fingerprint import has_quick_gelu
from clipcal.backbones._hub import CONFIG_FILE, Hub, cached_file
from clipcal.backbones._names import (
    BackboneName,
    find_in_folder,
    other_weights,
    parse_name,
    read_config,
    unavailable,
    unknown_architecture,
    unknown_tag,
    unreadable,
)
from clipcal.backbones._notes import file_stamps
from clipcal.backbones._open_clip import OpenClipBackbone, unsupported_text_tower
from clipcal.backbones._torchscript import OPENAI_NUMBERS, Archive, is_torchscript, read_torchscript
from clipcal.exceptions import BackboneError


def load_open_clip(
    name: str, *, device: str | torch.device = "auto", precision: str = "auto"
) -> OpenClipBackbone:
    """Load a backbone by name.

    Parameters
    ----------
    name : str
        ``"mini"``, ``"ARCHITECTURE/TAG"``, ``"hf-hub:org/name"``, ``"local-dir:path"`` or
        ``"ARCHITECTURE:path"``.
    device, precision
        See :class:`OpenClipBackbone`.

    Returns
    -------
    OpenClipBackbone
        A new instance; the registry keeps one per process.

    Raises
    ------
    BackboneError
        If the name is invalid, or the model is not supported.
    WeightsUnavailableError
        If the weights cannot be found, downloaded or read.
    """
    hub = Hub()
    model_cfg, preprocess_cfg, checkpoint, tokenizer_source = _locate(name, parts := parse_name(name), hub)
    files = file_stamps(parts, checkpoint)
    text_cfg = model_cfg.get("text_cfg", {})
    if text_cfg.get("hf_model_name"):
        raise unsupported_text_tower("HFTextEncoder", f"backbone={name!r}")
    model = _build(name, model_cfg)
    _load_weights(name, model, checkpoint)
    preprocess_cfg = merge_preprocess_dict(asdict(PreprocessCfg()), preprocess_cfg)
    preprocess_cfg["size"] = getattr(model.visual, "image_size", preprocess_cfg["size"])
    open_clip.set_model_preprocess_cfg(model, preprocess_cfg)
    tokenizer = _tokenizer(name, text_cfg, tokenizer_source, hub)
    backbone = OpenClipBackbone(model, tokenizer, name=name, device=device, precision=precision)
    backbone.files = files
    return backbone


def _locate(
    name: str, parts: BackboneName, hub: Hub
) -> tuple[dict[str, Any], dict[str, Any], Path, str | None]:
    """Return model configuration, preprocessing configuration, checkpoint file, and tokenizer folder."""
    if parts.kind == "folder":
        config, checkpoint = find_in_folder(name, parts.source)
        return *read_config(name, config), checkpoint, parts.source
    if parts.kind == "hub":
        download = partial(download_pretrained_from_hf, parts.source)
        try:
            config = hub.fetch(partial(download, filename=CONFIG_FILE), parts.source, CONFIG_FILE)
            checkpoint = hub.fetch(download, parts.source)
        except Exception as error:
            looked = f"{hub.endpoint}/{parts.source} and the Hugging Face cache"
            raise unavailable(name, looked, error) from error
        return *read_config(name, config), checkpoint, None
    model_cfg = open_clip.get_model_config(parts.architecture)
    if model_cfg is None:
        raise unknown_architecture(name, parts.architecture, open_clip.list_models())
    if parts.kind == "file":
        if not Path(parts.source).is_file():
            raise unavailable(name, parts.source, "There is no such file.")
        return model_cfg, {}, Path(parts.source), None
    pretrained_cfg = open_clip.get_pretrained_cfg(parts.architecture, parts.source)
    if not pretrained_cfg:
        raise unknown_tag(name, parts, open_clip.list_pretrained_tags_by_model(parts.architecture))
    if model_cfg.get("text_cfg", {}).get("hf_model_name"):
        raise unsupported_text_tower("HFTextEncoder", f"backbone={name!r}")
    # open_clip only warns if weights trained with QuickGELU are loaded into an architecture without it, which
    # degrades the embeddings.
    if pretrained_cfg.get("quick_gelu"):
        model_cfg["quick_gelu"] = True
    return model_cfg, pretrained_cfg, _fetch_tag(name, parts, pretrained_cfg, hub), None


def _fetch_tag(name: str, parts: BackboneName, pretrained_cfg: dict[str, Any], hub: Hub) -> Path:
    """Return the checkpoint of a tag, from the hub if possible, as in open_clip."""
    download = partial(download_pretrained, pretrained_cfg)
    on_hub, url = pretrained_cfg.get("hf_hub"), pretrained_cfg.get("url")
    looked = f"{f'{hub.endpoint}/{on_hub}' if on_hub else url} and the local cache"
    try:
        if on_hub:
            repository, _, filename = on_hub.rpartition("/")
            return hub.fetch(download, repository, filename)
        return hub.fetch_url(download, url) if url else Path(download())
    except Exception as error:
        reason = str(error)
        if url and cached_file(url).is_file():
            quick = f"{parts.architecture}-quickgelu"
            known = pretrained_cfg.get("quick_gelu") and open_clip.get_model_config(quick)
            architecture = quick if known else parts.architecture
            reason += f" A cached file can be opened with backbone='{architecture}:{cached_file(url)}'."
        raise unavailable(name, looked, reason) from error


def _build(name: str, model_cfg: dict[str, Any]) -> Any:
    """Build the model of a configuration without weights, keeping the global random state of torch."""
    model_cfg = copy.deepcopy(model_cfg)
    custom_text = model_cfg.pop("custom_text", False)
    if "timm_model_name" in model_cfg.get("vision_cfg", {}):
        model_cfg["vision_cfg"]["timm_model_pretrained"] = False
    model_class = open_clip.CLIP
    if custom_text:
        model_class = open_clip.CoCa if "multimodal_cfg" in model_cfg else open_clip.CustomTextCLIP
    try:
        with torch.random.fork_rng(devices=[]):
            return model_class(**model_cfg)
    except Exception as error:
        raise BackboneError(
            f"backbone={name!r}: open_clip cannot build the model of this configuration. Reason: {error}"
        ) from error


def _load_weights(name: str, model: Any, checkpoint: Path) -> None:
    """Load the tensors of a checkpoint file into a model, without running code from the file."""
    try:
        archive = read_torchscript(checkpoint) if is_torchscript(checkpoint) else None
        if archive is None:
            open_clip.load_checkpoint(model, str(checkpoint), strict=True, weights_only=True)
    except Exception as error:
        raise unreadable(name, checkpoint, error) from error
    if archive is not None:
        _load_archive(name, model, checkpoint, archive)


def _load_archive(name: str, model: Any, checkpoint: Path, archive: Archive) -> None:
    """Load the tensors of a TorchScript archive, if the model has their architecture and activation."""
    own = model.state_dict()
    # Constants of OpenAI's models, and attention masks, which TorchScript saves and open_clip computes.
    extra = OPENAI_NUMBERS | {key for key, _ in model.named_buffers()} - own.keys()
    tensors = {key: tensor for key, tensor in archive.tensors.items() if key not in extra}
    fits = _shapes(tensors) == _shapes(own)
    quick = archive.quick_gelu
    if fits and quick in (None, has_quick_gelu(model)):
        model.load_state_dict(tensors)
        return
    if fits:
        trained, computed = ("QuickGELU", "GELU") if quick else ("GELU", "QuickGELU")
        why = f"were trained with {trained}, and using them with {computed} degrades the embeddings"
    else:
        why = "belong to another architecture"
    raise other_weights(name, checkpoint, why, _architectures(tensors, quick))


def _architectures(tensors: dict[str, torch.Tensor], quick_gelu: bool | None) -> list[str]:
    """Return the architectures of open_clip that have exactly these tensors."""
    found = []
    for architecture in open_clip.list_models():
        cfg = open_clip.get_model_config(architecture)
        if cfg.get("custom_text") or cfg["text_cfg"].keys() & {"hf_model_name"}:
            continue  # not of the class CLIP, which OpenAI's files require
        if quick_gelu in (None, cfg.get("quick_gelu", False)) and cfg["embed_dim"] == _embed_dim(tensors):
            with torch.device("meta"):
                shapes = _shapes(open_clip.CLIP(**cfg).state_dict())
            found += [architecture] if shapes == _shapes(tensors) else []
    return found


def _embed_dim(tensors: dict[str, torch.Tensor]) -> int | None:
    projection = tensors.get("text_projection")
    return None if projection is None or projection.ndim != 2 else projection.shape[1]


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in tensors.items()}


def _tokenizer(
    name: str, text_cfg: dict[str, Any], source: str | None, hub: Hub
) -> Callable[..., torch.Tensor]:
    kwargs: dict[str, Any] = dict(text_cfg.get("tokenizer_kwargs") or {})
    context_length = text_cfg.get("context_length", 77)
    hub_name = text_cfg.get("hf_tokenizer_name")
    if not hub_name:
        return SimpleTokenizer(context_length=context_length, **kwargs)
    failure = "" if source else hub.failure
    if failure:
        kwargs["local_files_only"] = True
    mode = text_cfg.get("tokenizer_mode")
    try:
        return HFTokenizer(source or hub_name, context_length=context_length, tokenizer_mode=mode, **kwargs)
    except ImportError as error:
        raise BackboneError(
            f"backbone={name!r} requires a Hugging Face tokenizer. Install it with: pip install transformers"
        ) from error
    except Exception as error:
        raise unavailable(name, f"tokenizer {source or hub_name!r}", failure or error) from error
