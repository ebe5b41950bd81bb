"""A backbone of any width without a transformer, fast enough for the estimator checks of scikit-learn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from clipcal.exceptions import ClassNameError

PAD, START, END = 0, 1, 2
_VOCABULARY = 4096
_PIXELS = 8


def word_id(word: str) -> int:
    """Hash a word to an id, reproducible across processes."""
    digest = hashlib.sha256(word.encode()).digest()
    return 3 + int.from_bytes(digest[:4], "little") % (_VOCABULARY - 3)


@lru_cache(maxsize=64)
def _normal(seed: int, rows: int, columns: int) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal((rows, columns)) / np.sqrt(columns)
    return torch.from_numpy(values.astype(np.float32))


class AnyWidthBackbone:
    """A backbone with random projections, which implements ``clipcal.backbones.Backbone``.

    Texts are embedded as the projected mean of hashed word embeddings, images as projected 8 x 8 thumbnails.

    Parameters
    ----------
    embedding_dim : int, default=32
        Width of the embeddings.
    """

    token_dim = 16
    context_length = 77
    n_start_tokens = 1
    logit_scale = 100.0
    device = torch.device("cpu")
    precision = "fp32"

    def __init__(self, embedding_dim: int = 32) -> None:
        self.embedding_dim = embedding_dim

    @property
    def name(self) -> str:
        """Return an empty name: the backbone cannot be opened by name."""
        return ""

    @property
    def fingerprint(self) -> str:
        """Return a hash of the width, the only parameter."""
        return hashlib.sha256(f"toy {self.embedding_dim}".encode()).hexdigest()

    def for_width(self, n_features: int) -> AnyWidthBackbone:
        """Return the backbone with another width."""
        return AnyWidthBackbone(n_features)

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """Shrink an image to 8 x 8 and center its values."""
        small = np.asarray(image.convert("RGB").resize((_PIXELS, _PIXELS), Image.Resampling.BICUBIC))
        return torch.from_numpy(small.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1)

    def augment(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """Flip the output of `preprocess` with probability 0.5, and add noise."""
        pixels = self.preprocess(image)
        if torch.rand((), generator=generator) < 0.5:
            pixels = pixels.flip(-1)
        return pixels + 0.1 * torch.randn(pixels.shape, generator=generator)

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Project the pixels."""
        with torch.no_grad():
            return pixels.flatten(1) @ _normal(1, 3 * _PIXELS**2, self.embedding_dim)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokenize to one token per word between start and end markers, padded to the longest text."""
        rows = [[START, *map(word_id, text.replace(".", " .").split()), END] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self.context_length:
                raise ClassNameError(f"{text!r} has {len(row)} tokens, the limit is {self.context_length}")
        length = max(map(len, rows), default=0)
        return torch.tensor([row + [PAD] * (length - len(row)) for row in rows], dtype=torch.long)

    def text_lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Count the tokens up to the end marker."""
        return (tokens == END).int().argmax(dim=1) + 1

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look up the hashed word embeddings."""
        return _normal(2, _VOCABULARY, self.token_dim)[tokens]

    def encode_text(self, token_embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Average the embeddings of each text and project them."""
        lengths = self.text_lengths(tokens)
        held = torch.arange(tokens.shape[1]) < lengths[:, None]
        mean = (token_embeddings * held[..., None]).sum(dim=1) / lengths[:, None]
        return mean @ _normal(3, self.token_dim, self.embedding_dim)

    def __sklearn_clone__(self) -> AnyWidthBackbone:
        return self

    def __repr__(self) -> str:
        return f"AnyWidthBackbone({self.embedding_dim})"


class LayeredBackbone(AnyWidthBackbone):
    """A toy backbone with a causal text tower, which shares prefixes and supports deep prompts.

    Each of its blocks adds a projection of the mean of a token and those before it.
    """

    shares_prefix = True
    n_text_blocks = 3

    @property
    def fingerprint(self) -> str:
        """Return a hash of the width."""
        return hashlib.sha256(f"layered toy {self.embedding_dim}".encode()).hexdigest()

    def for_width(self, n_features: int) -> LayeredBackbone:
        """Return the backbone with another width."""
        return LayeredBackbone(n_features)

    def encode_text(self, token_embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Run the blocks and project the end marker."""
        return self._run(token_embeddings, self.text_lengths(tokens) - 1, {})

    def encode_suffixes(self, prefix, suffixes, packing, deep=None):  # type: ignore[no-untyped-def]
        """Run the blocks on padded prompts, one for each prefix and name."""
        prefixes = prefix if prefix.ndim == 3 else prefix[None]
        n_prefix, length = packing.n_prefix, int(packing.lengths.max())
        shape = (len(prefixes), len(packing))
        padded = torch.zeros(*shape, length, self.token_dim)
        padded[:, packing.names, packing.positions - n_prefix] = suffixes.expand(len(prefixes), -1, -1)
        x = torch.cat([prefixes[:, None].expand(*shape, -1, -1), padded], dim=2)
        deep = {k: v if v.ndim != 3 else v[:, None] for k, v in (deep or {}).items()}
        deep = {k: v.expand(*shape, -1, -1) for k, v in deep.items()}
        features = self._run(x, n_prefix + packing.lengths - 1, deep)
        return features if prefix.ndim == 3 else features[0]

    def _run(self, x, ends, deep):  # type: ignore[no-untyped-def]
        counts = torch.arange(1, x.shape[-2] + 1)[:, None]
        for number in range(self.n_text_blocks):
            if number in deep:
                start, stop = self.n_start_tokens, self.n_start_tokens + deep[number].shape[-2]
                x = torch.cat([x[..., :start, :], deep[number], x[..., stop:, :]], dim=-2)
            mean = x.cumsum(dim=-2) / counts
            x = x + torch.tanh(mean @ _normal(10 + number, self.token_dim, self.token_dim))
        return x[..., torch.arange(len(ends)), ends, :] @ _normal(3, self.token_dim, self.embedding_dim)


def toy_backbone_for(method: str, embedding_dim: int = 32) -> AnyWidthBackbone:
    """Return a toy backbone that supports a method, given by name."""
    return (LayeredBackbone if method == "tcp" else AnyWidthBackbone)(embedding_dim)
