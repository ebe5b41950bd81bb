"""Zero-shot text features, with caching."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipcal._progress import progress_bar
from clipcal.backbones import Backbone, encode_fixed, precision_of
from clipcal.caching import FeatureCache, MemoryLike, as_cache
from clipcal.exceptions import ClassNameError
from clipcal.text import fill, find_templates

__all__ = ["zero_shot_features"]

# Minimum number of names for caching in the process; fewer names are encoded again.
_TABLE_SIZE = 1000
_MAX_TABLES = 2
# Number of new texts that are encoded and written to a cache on disk together.
_PIECE = 4096
_tables: OrderedDict[tuple[Hashable, ...], NDArray[np.float32]] = OrderedDict()


def zero_shot_features(
    backbone: Backbone,
    names: Sequence[str],
    template: str | Sequence[str],
    *,
    normalize: bool = True,
    skip_long: bool = False,
    memory: MemoryLike | None = None,
    verbose: int = 0,
) -> Tensor:
    """Encode names in one or several templates with the frozen text tower.

    With several templates, the feature of a name is the normalized mean of its normalized features. The
    memory does not depend on the number of templates, but the time is proportional to it.

    With ``memory``, the features of each text are cached on disk. Without it, the results of the last two
    calls with at least 1000 names are cached in the process.

    Parameters
    ----------
    backbone : Backbone
        The frozen CLIP.
    names : sequence of str, length n_names
        Names to encode.
    template : str or sequence of str
        A template with one ``{}``, the name of a known template, or a sequence of these; see
        :func:`clipcal.text.find_templates`.
    normalize : bool, default=True
        Whether features are normalized. If False, the feature of a name is the mean of the features of its
        texts without any normalization, which some methods start from.
    skip_long : bool, default=False
        Whether the features of names that are too long in any of the templates are zeros. If False, such
        names raise an error.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Cache on disk; see :class:`clipcal.FeatureCache`.
    verbose : int, default=0
        If at least 1, a progress bar is shown for long lists.

    Returns
    -------
    features : Tensor, shape (n_names, embedding_dim)
        Features in float32, of unit length if `normalize` is True, on the device of the backbone.

    Raises
    ------
    ClassNameError
        If a template is invalid, or a name is too long and `skip_long` is False.

    Examples
    --------
    >>> from clipcal.backbones import open_backbone
    >>> from clipcal.methods import zero_shot_features
    >>> backbone = open_backbone("mini", device="cpu")
    >>> zero_shot_features(backbone, ["star", "cross"], ["a photo of a {}.", "dtd"]).shape
    torch.Size([2, 128])
    """
    templates = find_templates(template)
    cache = as_cache(memory)
    large = len(names) >= _TABLE_SIZE

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        if cache is not None:
            return _look_up(cache, backbone, texts, skip_long, verbose, normalize=normalize)
        progress = large and verbose >= 1
        return _encode(backbone, texts, normalize=normalize, skip_long=skip_long, progress=progress)

    if cache is not None or not large:
        features = _ensemble(encode, templates, names, normalize=normalize)
        return torch.from_numpy(features).to(backbone.device)
    # The precision is part of the key, because features in bfloat16 and float32 differ.
    key = (backbone.fingerprint, precision_of(backbone), templates, tuple(names), skip_long, normalize)
    # Removed before use, because another thread may add or drop tables at any time.
    table = _tables.pop(key, None)
    if table is None:
        table = _ensemble(encode, templates, names, normalize=normalize)
    _tables[key] = table
    while len(_tables) > _MAX_TABLES:
        _tables.popitem(last=False)
    return torch.from_numpy(table).to(backbone.device)


def _ensemble(
    encode: Callable[[Sequence[str]], NDArray[np.float32]],
    templates: Sequence[str],
    names: Sequence[str],
    *,
    normalize: bool,
) -> NDArray[np.float32]:
    """Return means over templates, or zeros for names whose features are zeros in any of them."""
    total = encode(fill(templates[0], names))
    if len(templates) == 1:
        return total
    complete = total.any(axis=1)
    for template in templates[1:]:
        features = encode(fill(template, names))
        complete &= features.any(axis=1)
        total += features
    total[~complete] = 0
    if not normalize:
        return total / np.float32(len(templates))
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, lengths, out=total, where=lengths > 0)


def _look_up(
    cache: FeatureCache,
    backbone: Backbone,
    texts: Sequence[str],
    skip_long: bool,
    verbose: int,
    *,
    normalize: bool,
) -> NDArray[np.float32]:
    """Return cached features of texts, encoding and caching those that are missing."""
    table = cache.table(
        "texts" if normalize else "raw texts",
        width=backbone.embedding_dim,
        fingerprint=backbone.fingerprint,
        precision=precision_of(backbone),
        backbone=backbone.name,
    )
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    features, found = table.get(keys)
    if not skip_long:
        # Zeros mark a text that is too long. Encoding it again raises an informative error.
        found &= features.any(axis=1)
    absent: list[int] = np.flatnonzero(~found).tolist()
    missing = {keys[i]: i for i in absent}
    if not missing:
        return features
    # Sorted by length to reduce padding, and cached in pieces so that an interrupted run can be continued.
    order = sorted(missing.values(), key=lambda i: len(texts[i]))
    encoded = np.empty((len(order), table.width), dtype=np.float32)
    starts = range(0, len(order), _PIECE)
    for start in progress_bar(starts, shown=verbose >= 1, description="Encoding nouns", unit="batch"):
        rows = order[start : start + _PIECE]
        piece = _encode(backbone, [texts[i] for i in rows], normalize=normalize, skip_long=skip_long)
        table.put([keys[i] for i in rows], piece)
        encoded[start : start + len(rows)] = piece
    place = {keys[i]: number for number, i in enumerate(order)}
    for i in absent:
        features[i] = encoded[place[keys[i]]]
    return features


@torch.no_grad()
def _encode(
    backbone: Backbone,
    texts: Sequence[str],
    *,
    normalize: bool,
    skip_long: bool = False,
    progress: bool = False,
    batch_size: int = 512,
) -> NDArray[np.float32]:
    # Sorted by length, because a batch is padded to its longest text.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    features = np.zeros((len(texts), backbone.embedding_dim), dtype=np.float32)
    starts = range(0, len(texts), batch_size)
    for start in progress_bar(starts, shown=progress, description="Encoding nouns", unit="batch"):
        rows = order[start : start + batch_size]
        try:
            tokens = backbone.tokenize([texts[i] for i in rows])
        except ClassNameError:
            if not skip_long:
                raise
            rows = [i for i in rows if _fits(backbone, texts[i])]
            if not rows:
                continue
            tokens = backbone.tokenize([texts[i] for i in rows])
        encoded = encode_fixed(backbone, tokens).float()
        features[rows] = (nn.functional.normalize(encoded, dim=-1) if normalize else encoded).cpu().numpy()
    return features


def _fits(backbone: Backbone, text: str) -> bool:
    try:
        backbone.tokenize([text])
    except ClassNameError:
        return False
    return True
