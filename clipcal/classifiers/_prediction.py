"""Compute probabilities and predicted classes from logits, in blocks of rows.

All computations are in float64. Blocks limit the memory besides the returned array, and keep the logits of a
block in the processor's cache until the softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CosineLogits",
    "GivenLogits",
    "Logits",
    "all_logits",
    "best_classes",
    "class_log_probabilities",
    "class_probabilities",
    "logit_margins",
]

# 8 MiB in float64. Smaller blocks slow down the matrix product, which repacks the text features for each
# block, and larger blocks do not stay in the cache until the softmax.
_BLOCK_SIZE = 2**20
_MIN_ROWS = 256
_MAX_ROWS = 16_384
# Embeddings with a smaller norm are not normalized, so that zeros remain zeros.
_MIN_LENGTH = 1e-12


class Logits(Protocol):
    """Interface of logits that are available in blocks of rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of classes."""
        ...

    def blocks(self, out: NDArray[np.float64] | None = None) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield rows and their logits, a view of `out` or of a buffer overwritten by the next block."""
        ...


@dataclass(frozen=True)
class CosineLogits:
    """Scaled dot products of normalized embeddings and text features.

    Attributes
    ----------
    embeddings : ndarray of shape (n_samples, n_features)
        Embeddings, not necessarily normalized.
    text_features : ndarray of shape (n_classes, n_features)
        Text features; of unit length if the logits are cosine similarities.
    logit_scale : float
        Factor by which the dot products are multiplied.
    """

    embeddings: NDArray[np.floating]
    text_features: NDArray[np.floating]
    logit_scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of classes."""
        return len(self.embeddings), len(self.text_features)

    def blocks(self, out: NDArray[np.float64] | None = None) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield rows and their logits; see :class:`Logits`."""
        weights = np.asarray(self.text_features, dtype=np.float64).T * self.logit_scale
        n_features, n_classes = weights.shape
        n_rows = _rows_per_block(n_features, n_classes)
        buffer = np.empty((min(n_rows, len(self.embeddings)), n_classes)) if out is None else out
        for start in range(0, len(self.embeddings), n_rows):
            unit = _unit_rows(self.embeddings[start : start + n_rows])
            rows = slice(start, start + len(unit))
            logits = buffer[: len(unit)] if out is None else out[rows]
            np.matmul(unit, weights, out=logits)
            yield rows, logits


@dataclass(frozen=True)
class GivenLogits:
    """Logits in an array.

    Attributes
    ----------
    values : ndarray of float64, shape (n_samples, n_classes)
        The logits.
    """

    values: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of classes."""
        n_samples, n_classes = self.values.shape
        return n_samples, n_classes

    def blocks(self, out: NDArray[np.float64] | None = None) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield all rows at once; see :class:`Logits`."""
        buffer = np.empty(self.shape) if out is None else out
        buffer[...] = self.values
        yield slice(0, len(buffer)), buffer


def all_logits(logits: Logits) -> NDArray[np.float64]:
    """Return the logits, shape (n_samples, n_classes)."""
    result = np.empty(logits.shape)
    for _ in logits.blocks(out=result):
        pass
    return result


def logit_margins(logits: Logits) -> NDArray[np.float64]:
    """Return the logit of the second of two classes minus that of the first, shape (n_samples,)."""
    margins = np.empty(logits.shape[0])
    for rows, block in logits.blocks():
        np.subtract(block[:, 1], block[:, 0], out=margins[rows])
    return margins


def class_probabilities(logits: Logits) -> NDArray[np.float64]:
    """Return the softmax of the logits, shape (n_samples, n_classes)."""
    probabilities = np.empty(logits.shape)
    for _, block in logits.blocks(out=probabilities):
        block -= block.max(axis=1, keepdims=True)
        np.exp(block, out=block)
        block *= 1.0 / block.sum(axis=1, keepdims=True)
    return probabilities


def class_log_probabilities(logits: Logits) -> NDArray[np.float64]:
    """Return the logarithm of the softmax, finite where the softmax is zero."""
    log_probabilities = np.empty(logits.shape)
    for _, block in logits.blocks(out=log_probabilities):
        block -= block.max(axis=1, keepdims=True)
        block -= np.log(np.exp(block).sum(axis=1, keepdims=True))
    return log_probabilities


def best_classes(logits: Logits) -> NDArray[np.intp]:
    """Return the index of the highest logit, the first one in case of ties, shape (n_samples,)."""
    best = np.empty(logits.shape[0], dtype=np.intp)
    for rows, block in logits.blocks():
        block.argmax(axis=1, out=best[rows])
    return best


def _rows_per_block(n_features: int, n_classes: int) -> int:
    return min(max(_BLOCK_SIZE // max(n_features, n_classes), _MIN_ROWS), _MAX_ROWS)


def _unit_rows(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a copy in float64 with rows of unit length, except rows of zeros."""
    block = np.asarray(embeddings, dtype=np.float64, order="C")
    length = np.sqrt(np.einsum("ij,ij->i", block, block))
    if np.isinf(length).any():
        # The squares of large finite values may overflow.
        block = block / np.maximum(np.abs(block).max(axis=1, keepdims=True), 1.0)
        length = np.sqrt(np.einsum("ij,ij->i", block, block))
    return block * (1.0 / np.maximum(length, _MIN_LENGTH))[:, np.newaxis]
