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
    """Open a frozen CLIP by name, or take one that is already there.

    Parameters
    ----------
    spec : str or Backbone
        A name or an object. The names are

        - ``"mini"``: the small CLIP that comes with the package;
        - ``"ARCHITECTURE/TAG"``: any pair of open_clip, as in ``"ViT-B-16/openai"``;
        - ``"hf-hub:org/name"``: an open_clip repository on the Hugging Face hub;
        - ``"local-dir:path"``: a folder with ``open_clip_config.json`` (or ``config.json``) and weights;
        - ``"ARCHITECTURE:path"``: a checkpoint file, as in ``"ViT-B-16:weights.safetensors"``; see Notes.

        A name is opened once per process, device and precision. An object is returned as it is, or fitted to
        `n_features` if it has ``for_width``; `device` and `precision` are then its own affair.
    device : str or torch.device, default="auto"
        Where to run; see :func:`resolve_device`.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        The arithmetic of the towers; ``"auto"`` is bfloat16 on CUDA devices that have it, float32 elsewhere.
    n_features : int or None, default=None
        The width of the embeddings that the backbone has to agree with, if there are any.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        A cache of features. What a backbone opened by name is, is noted there too, and as long as its files
        stay as they were, its weights are next time loaded only when something has to be encoded.

    Returns
    -------
    Backbone
        The frozen CLIP.

    Raises
    ------
    BackboneError
        If `spec` leads nowhere, the weights are those of another architecture, or the width is not
        `n_features`.
    WeightsUnavailableError
        If the weights cannot be found, fetched or read. A hub that cannot be connected to is noticed within
        seconds; what is in its cache is then opened without it.

    Notes
    -----
    A checkpoint file is safetensors, tensors saved with ``torch.save``, or an archive such as those that the
    ``clip`` package of OpenAI keeps in ``~/.cache/clip``. Nothing in a file is run: an archive of TorchScript
    is read for its tensors alone, and a pickle that asks for more than tensors is refused.

    Weights do not say whether they were trained with QuickGELU, the architecture does. Those of OpenAI were,
    and are opened with ``"ViT-B-16-quickgelu:~/.cache/clip/ViT-B-16.pt"``. TorchScript does say it, and an
    architecture that computes something else is then refused.

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
            f"{backbone.embedding_dim}; make them with CLIPImageEncoder(backbone={name!r})."
        )
    return backbone


def _open_name(name: str, device: str | torch.device, precision: str, cache: FeatureCache | None) -> Backbone:
    resolved = resolve_device(device)
    arithmetic = resolve_precision(precision, resolved)
    # "cuda" and "cuda:0" are one device.
    parts = parse_name(name)
    key = (parts, f"{resolved.type}:{resolved.index or 0}", arithmetic)
    if cache is not None and key not in _loaded:
        facts = recall(cache, parts)
        if facts is not None:
            return _lazily(name, resolved, arithmetic, cache, facts)
    with _lock:
        if key not in _loaded:
            # Takes seconds to import, and a hit of the cache does not need it.
            from clipcal.backbones._loading import load_open_clip

            _loaded[key] = load_open_clip(name, device=resolved, precision=arithmetic)
        backbone = _loaded[key]
    if cache is not None:
        remember(cache, parts, backbone)
    return backbone


def _lazily(
    name: str, device: torch.device, precision: str, cache: FeatureCache, facts: dict[str, Any]
) -> Backbone:
    """Return a backbone that a cache has a note on, without loading its weights."""

    def open_it() -> Backbone:
        backbone = open_backbone(name, device=device, precision=precision)
        remember(cache, parse_name(name), backbone)
        if backbone.fingerprint != facts["fingerprint"]:
            raise BackboneError(
                f"The weights of backbone={name!r} are others than those that {cache!r} remembered under "
                "this name, although their files look the same. The cache has been corrected and nothing was "
                "mixed; call again, and fit again what was fitted before."
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
            f"backbone must be a name or an object with the members of clipcal.backbones.Backbone, got "
            f"{type(spec).__name__}, which lacks {', '.join(missing) or 'an instance'}.{hint}"
        )
    return spec
