"""Text features of the untouched CLIP, and tables of them that are worth keeping."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from clipcal.backbones import Backbone, Packing
from clipcal.exceptions import ClassNameError
from clipcal.text import fill

__all__ = ["zero_shot_features"]

# Below this many names encoding again is cheaper than bookkeeping.
_TABLE_SIZE = 1000
_MAX_TABLES = 2
_tables: OrderedDict[tuple[str, ...], NDArray[np.float32]] = OrderedDict()


def zero_shot_features(
    backbone: Backbone,
    names: Sequence[str],
    template: str,
    *,
    skip_long: bool = False,
    memory: joblib.Memory | None = None,
    verbose: int = 0,
) -> Tensor:
    """Encode names in a template with the untouched text tower.

    Tables of a thousand names and more are kept: the last two in the process, and all in ``memory``.

    Parameters
    ----------
    backbone : Backbone
    names : sequence of str, length n_names
    template : str
        With one ``{}``.
    skip_long : bool, default=False
        Give names that are too long for the backbone zeros instead of an error.
    memory : joblib.Memory, default=None
        Cache on disk.
    verbose : int, default=0
        From 1 on, a large table shows its progress.

    Returns
    -------
    features : Tensor, shape (n_names, embedding_dim)
        Float32, of unit length, on the backbone's device.

    Raises
    ------
    ClassNameError
        If a name is too long and not to be skipped.
    """
    texts = fill(template, names)
    if len(texts) < _TABLE_SIZE:
        return torch.from_numpy(_encode(backbone, texts, skip_long=skip_long)).to(backbone.device)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    # Bfloat16 gives other numbers than float32.
    key = (backbone.fingerprint, getattr(backbone, "precision", "fp32"), digest, str(skip_long))
    if key in _tables:
        _tables.move_to_end(key)
    elif memory is None:
        _tables[key] = _encode_table(backbone, texts, key, skip_long, verbose)
    else:
        cached = memory.cache(_encode_table, ignore=["backbone", "texts", "verbose"])
        _tables[key] = cached(backbone, texts, key, skip_long, verbose)
    while len(_tables) > _MAX_TABLES:
        _tables.popitem(last=False)
    return torch.from_numpy(_tables[key]).to(backbone.device)


def _encode_table(
    backbone: Backbone, texts: Sequence[str], key: tuple[str, ...], skip_long: bool, verbose: int
) -> NDArray[np.float32]:
    """Encode a large table; the key is what a cache on disk knows it by."""
    return _encode(backbone, texts, skip_long=skip_long, progress=verbose >= 1)


def encode_fixed(backbone: Backbone, tokens: Tensor) -> Tensor:
    """Embed texts of nothing but words (n, length) as (n, embedding_dim), what they begin with once."""
    if not getattr(backbone, "shares_prefix", False):
        return backbone.encode_text(backbone.embed_tokens(tokens), tokens)
    lengths = backbone.text_lengths(tokens).cpu()
    same = torch.eq(tokens, tokens[:1]).all(dim=0).cumprod(dim=0)
    # The end marker stays behind the prefix even where all texts are alike.
    n_prefix = min(int(same.sum()), int(lengths.min()) - 1)
    packing = Packing(lengths - n_prefix, n_prefix, tokens.device)
    prefix = backbone.embed_tokens(tokens[:1, : packing.n_prefix])[0]
    suffixes = backbone.embed_tokens(tokens[packing.names, packing.positions][None])[0]
    return backbone.encode_suffixes(prefix, suffixes, packing)  # type: ignore[attr-defined]


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
    for start in tqdm(range(0, len(texts), batch_size), disable=not progress, desc="encoding nouns"):
        rows = order[start : start + batch_size]
        try:
            tokens = backbone.tokenize([texts[i] for i in rows])
        except ClassNameError:
            if not skip_long:
                raise
            rows = [i for i in rows if _fits(backbone, texts[i])]
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
