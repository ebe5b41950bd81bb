"""Text features of the untouched CLIP, and tables of them that are worth keeping."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

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

# Below this many names encoding again is cheaper than bookkeeping.
_TABLE_SIZE = 1000
_MAX_TABLES = 2
# So many new texts are written to a cache together.
_PIECE = 4096
_tables: OrderedDict[tuple[str, ...], NDArray[np.float32]] = OrderedDict()


def zero_shot_features(
    backbone: Backbone,
    names: Sequence[str],
    template: str | Sequence[str],
    *,
    skip_long: bool = False,
    memory: MemoryLike | None = None,
    verbose: int = 0,
) -> Tensor:
    """Encode names in a template, or in several, with the untouched text tower.

    With several templates the feature of a name is the mean of its unit features, brought to unit length
    again. The sum is accumulated template by template, so that memory does not grow with their number. Time
    does: each template encodes all names once.

    With ``memory`` each text is kept on disk and found again by itself. Without it, the last two tables of a
    thousand names and more are kept in the process.

    Parameters
    ----------
    backbone : Backbone
    names : sequence of str, length n_names
    template : str or sequence of str
        A template with one ``{}``, the name of a known one, or several of these; see
        :func:`clipcal.text.find_templates`.
    skip_long : bool, default=False
        Give names that are too long for the backbone, in any of the templates, zeros instead of an error.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Cache on disk; see :class:`clipcal.FeatureCache`.
    verbose : int, default=0
        From 1 on, a large table shows its progress.

    Returns
    -------
    features : Tensor, shape (n_names, embedding_dim)
        Float32, of unit length, on the backbone's device.

    Raises
    ------
    ClassNameError
        If a template is invalid, or a name is too long and not to be skipped.

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
            return _look_up(cache, backbone, texts, skip_long, verbose)
        return _encode(backbone, texts, skip_long=skip_long, progress=large and verbose >= 1)

    if cache is not None or not large:
        return torch.from_numpy(_ensemble(encode, templates, names)).to(backbone.device)
    digest = hashlib.sha256(repr((templates, list(names))).encode()).hexdigest()
    # Bfloat16 gives other numbers than float32.
    key = (backbone.fingerprint, precision_of(backbone), digest, str(skip_long))
    # Another thread may put its own table in, and this one out, at any time.
    table = _tables.pop(key, None)
    if table is None:
        table = _ensemble(encode, templates, names)
    _tables[key] = table
    while len(_tables) > _MAX_TABLES:
        _tables.popitem(last=False)
    return torch.from_numpy(table).to(backbone.device)


def _ensemble(
    encode: Callable[[Sequence[str]], NDArray[np.float32]], templates: Sequence[str], names: Sequence[str]
) -> NDArray[np.float32]:
    """Return directions of the mean over templates of each name's features; zeros where any is zero."""
    total = encode(fill(templates[0], names))
    if len(templates) == 1:
        return total
    complete = total.any(axis=1)
    for template in templates[1:]:
        features = encode(fill(template, names))
        complete &= features.any(axis=1)
        total += features
    total[~complete] = 0
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, lengths, out=total, where=lengths > 0)


def _look_up(
    cache: FeatureCache, backbone: Backbone, texts: Sequence[str], skip_long: bool, verbose: int
) -> NDArray[np.float32]:
    """Take each text from the cache, and encode and keep those that it lacks."""
    table = cache.table(
        "texts",
        width=backbone.embedding_dim,
        fingerprint=backbone.fingerprint,
        precision=precision_of(backbone),
        backbone=backbone.name,
    )
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    features, found = table.get(keys)
    if not skip_long:
        # Zeros stand for a text that is too long. Encoding it again raises the error that says so.
        found &= features.any(axis=1)
    absent: list[int] = np.flatnonzero(~found).tolist()
    missing = {keys[i]: i for i in absent}
    if not missing:
        return features
    # Ordered by length, as in a batch, and in pieces, so that a run that is cut off can be continued.
    order = sorted(missing.values(), key=lambda i: len(texts[i]))
    encoded = np.empty((len(order), table.width), dtype=np.float32)
    starts = range(0, len(order), _PIECE)
    for start in progress_bar(starts, shown=verbose >= 1, description="Encoding nouns", unit="batch"):
        rows = order[start : start + _PIECE]
        piece = _encode(backbone, [texts[i] for i in rows], skip_long=skip_long)
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
    skip_long: bool = False,
    progress: bool = False,
    batch_size: int = 512,
) -> NDArray[np.float32]:
    # Texts of similar length go together, as a batch is as long as its longest text.
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
        encoded = encode_fixed(backbone, tokens)
        features[rows] = nn.functional.normalize(encoded.float(), dim=-1).cpu().numpy()
    return features


def _fits(backbone: Backbone, text: str) -> bool:
    try:
        backbone.tokenize([text])
    except ClassNameError:
        return False
    return True
