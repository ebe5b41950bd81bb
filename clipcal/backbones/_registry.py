"""One loaded copy of each backbone per process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from clipcal.backbones._copies import opens_pickles
from clipcal.backbones._device import resolve_device, resolve_precision
from clipcal.backbones._lazy import LazyBackbone
from clipcal.backbones._names import BackboneName, parse_name
from clipcal.backbones._notes import KNOWN_ATTRIBUTES, recall, remember
from clipcal.backbones._protocol import ATTRIBUTES, METHODS
from clipcal.caching import MemoryLike, as_cache
from clipcal.exceptions import BackboneError

if TYPE_CHECKING:
    import torch

    from clipcal.backbones._protocol import Backbone
    from clipcal.caching import FeatureCache

_loaded: dict[tuple[BackboneName, str, str], Backbone] = {}
_lock = threading.RLock()


@opens_pickles
def open_backbone(
    spec: str | Backbone,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    n_features: int | None = None,
    memory: MemoryLike | None = None,
) -> Backbone:
    """Open a frozen CLIP model by name, or return a given one.

    Parameters
    ----------
    spec : str or Backbone
        A name or an object. The names are

        - ``"mini"``: the small CLIP model in the package;
        - ``"ARCHITECTURE/TAG"``: any such pair of open_clip, as in ``"ViT-B-16/openai"``;
        - ``"hf-hub:org/name"``: an open_clip repository on the Hugging Face hub;
        - ``"local-dir:path"``: a folder with ``open_clip_config.json`` (or ``config.json``) and weights;
        - ``"ARCHITECTURE:path"``: a checkpoint file, as in ``"ViT-B-16:weights.safetensors"``; see Notes.

        A name is opened once per process, device and precision. An object is returned unchanged, or converted
        to the width `n_features` if it has ``for_width``; `device` and `precision` are ignored.
    device : str or torch.device, default="auto"
        Device to run on; see :func:`resolve_device`.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Precision of the towers; ``"auto"`` is bfloat16 on CUDA devices that support it natively, float32
        otherwise.
    n_features : int or None, default=None
        Required width of the embeddings.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        A feature cache. The attributes of a backbone opened by name are recorded there. As long as its files
        do not change, later calls load the weights only when something is encoded.

    Returns
    -------
    Backbone
        The frozen CLIP model.

    Raises
    ------
    BackboneError
        If `spec` is invalid, the weights belong to another architecture, or the width is not `n_features`.
    WeightsUnavailableError
        If the weights cannot be found, downloaded or read. If the hub is unreachable, which is detected
        within seconds, cached files are used.

    Notes
    -----
    A checkpoint file is safetensors, tensors saved with ``torch.save``, or a TorchScript archive such as
    those of OpenAI's ``clip`` package in ``~/.cache/clip``. No code from the file is run: only the tensors of
    a TorchScript archive are read, and pickles with other content raise an error.

    The architecture, not the weights, determines whether QuickGELU is used. OpenAI's models were trained with
    QuickGELU, and are opened with ``"ViT-B-16-quickgelu:~/.cache/clip/ViT-B-16.pt"``. TorchScript archives
    contain this information, so an architecture with another activation raises an error.

    Examples
    --------
    >>> from clipcal.backbones import open_backbone
    >>> backbone = open_backbone("mini", device="cpu")
    >>> tokens = backbone.tokenize(["a red circle"])
    >>> backbone.encode_text(backbone.embed_tokens(tokens), tokens).shape == (1, backbone.embedding_dim)
    True
    """
    if isinstance(spec, str):
        backbone = _open_name(spec, device, precision, as_cache(memory))
    else:
        backbone = _check_object(spec)
    if n_features is None:
        return backbone
    for_width = getattr(backbone, "for_width", None)
    if for_width is not None:
        return for_width(n_features)
    if n_features != backbone.embedding_dim:
        name = backbone.name or type(backbone).__name__
        raise BackboneError(
            f"X has {n_features} features, but the embeddings of backbone {name!r} have "
            f"{backbone.embedding_dim}; compute them with CLIPImageEncoder(backbone={name!r})."
        )
    return backbone


def _open_name(name: str, device: str | torch.device, precision: str, cache: FeatureCache | None) -> Backbone:
    resolved = resolve_device(device)
    arithmetic = resolve_precision(precision, resolved)
    # "cuda" and "cuda:0" are the same device.
    parts = parse_name(name)
    key = (parts, f"{resolved.type}:{resolved.index or 0}", arithmetic)
    if cache is not None and key not in _loaded:
        facts = recall(cache, parts)
        if facts is not None:
            return _lazily(name, resolved, arithmetic, cache, facts)
    with _lock:
        if key not in _loaded:
            # The import takes seconds and is not needed for cache hits.
            from clipcal.backbones._loading import load_open_clip

            _loaded[key] = load_open_clip(name, device=resolved, precision=arithmetic)
        backbone = _loaded[key]
    if cache is not None:
        remember(cache, parts, backbone)
    return backbone


def _lazily(
    name: str, device: torch.device, precision: str, cache: FeatureCache, facts: dict[str, Any]
) -> Backbone:
    """Return a backbone that is recorded in a cache, without loading its weights."""

    def open_it() -> Backbone:
        backbone = open_backbone(name, device=device, precision=precision)
        remember(cache, parse_name(name), backbone)
        if backbone.fingerprint != facts["fingerprint"]:
            raise BackboneError(
                f"The weights of backbone={name!r} differ from those recorded in {cache!r}, although sizes "
                "and times of the files are unchanged. The cache was corrected, and no features were mixed; "
                "call again, and refit estimators that were fitted before."
            )
        return backbone

    known = {attribute: facts[attribute] for attribute in KNOWN_ATTRIBUTES}
    known |= {"name": name, "device": device, "precision": precision}
    return cast("Backbone", LazyBackbone(known, open_it, str(cache.location)))


def _check_object(spec: Any) -> Backbone:
    missing = [method for method in METHODS if not callable(getattr(spec, method, None))]
    missing += [name for name in ATTRIBUTES if not hasattr(spec, name)]
    if isinstance(spec, type) or missing:
        hint = ""
        if hasattr(spec, "encode_image"):
            hint = " Wrap an open_clip model first: OpenClipBackbone(model, tokenizer, preprocess)."
        raise BackboneError(
            f"backbone must be a name or an object with the members of clipcal.backbones.Backbone; got "
            f"{type(spec).__name__}, which lacks {', '.join(missing) or 'an instance'}.{hint}"
        )
    return spec
