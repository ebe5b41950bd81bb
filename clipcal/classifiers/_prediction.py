"""From embeddings and text features to logits, probabilities and best classes, block by block.

Everything is computed in float64 on a few rows at a time: no other array grows with the number of samples
than the one that is returned, and the softmax reads what the matrix product has just left in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "best_classes",
    "class_log_probabilities",
    "class_probabilities",
    "cosine_logits",
    "logit_margins",
]

# 8 MiB in float64: less starves the matrix product, which packs the text features anew for each block;
# more leaves the cache before the softmax comes.
_BLOCK_SIZE = 2**20
_MIN_ROWS = 256
_MAX_ROWS = 16_384
# A shorter embedding has no direction; it is not stretched to unit length, and one of zeros stays zeros.
_MIN_LENGTH = 1e-12


def cosine_logits(
    embeddings: NDArray[np.floating], text_features: NDArray[np.floating], logit_scale: float
) -> NDArray[np.float64]:
    """Return scaled cosines between embeddings and text features.

    Parameters
    ----------
    embeddings : ndarray of shape (n_samples, n_features)
    text_features : ndarray of shape (n_classes, n_features)
        Rows of unit length.
    logit_scale : float

    Returns
    -------
    logits : ndarray of float64, shape (n_samples, n_classes)
    """
    logits = np.empty((len(embeddings), len(text_features)))
    for _ in _logit_blocks(embeddings, text_features, logit_scale, out=logits):
        pass
    return logits


def logit_margins(
    embeddings: NDArray[np.floating], text_features: NDArray[np.floating], logit_scale: float
) -> NDArray[np.float64]:
    """Return the logit of the second class minus that of the first.

    Parameters
    ----------
    embeddings : ndarray of shape (n_samples, n_features)
    text_features : ndarray of shape (2, n_features)
        Rows of unit length.
    logit_scale : float

    Returns
    -------
    margins : ndarray of float64, shape (n_samples,)
    """
    margins = np.empty(len(embeddings))
    for rows, logits in _logit_blocks(embeddings, text_features, logit_scale):
        np.subtract(logits[:, 1], logits[:, 0], out=margins[rows])
    return margins


def class_probabilities(
    embeddings: NDArray[np.floating], text_features: NDArray[np.floating], logit_scale: float
) -> NDArray[np.float64]:
    """Return the softmax of :func:`cosine_logits`.

    Parameters
    ----------
    embeddings : ndarray of shape (n_samples, n_features)
    text_features : ndarray of shape (n_classes, n_features)
        Rows of unit length.
    logit_scale : float

    Returns
    -------
    probabilities : ndarray of float64, shape (n_samples, n_classes)
    """
    probabilities = np.empty((len(embeddings), len(text_features)))
    for _, block in _logit_blocks(embeddings, text_features, logit_scale, out=probabilities):
        block -= block.max(axis=1, keepdims=True)
        np.exp(block, out=block)
        block *= 1.0 / block.sum(axis=1, keepdims=True)
    return probabilities


def class_log_probabilities(
    embeddings: NDArray[np.floating], text_features: NDArray[np.floating], logit_scale: float
) -> NDArray[np.float64]:
    """Return the logarithm of the softmax of :func:`cosine_logits`, finite where the softmax is zero.

    Parameters
    ----------
    embeddings : ndarray of shape (n_samples, n_features)
    text_features : ndarray of shape (n_classes, n_features)
        Rows of unit length.
    logit_scale : float

    Returns
    -------
    log_probabilities : ndarray of float64, shape (n_samples, n_classes)
    """
    log_probabilities = np.empty((len(embeddings), len(text_features)))
    for _, block in _logit_blocks(embeddings, text_features, logit_scale, out=log_probabilities):
        block -= block.max(axis=1, keepdims=True)
        block -= np.log(np.exp(block).sum(axis=1, keepdims=True))
    return log_probabilities


def best_classes(
    embeddings: NDArray[np.floating], text_features: NDArray[np.floating], logit_scale: float
) -> NDArray[np.intp]:
    """Return the position of the highest of :func:`cosine_logits`, the first one among equals.

    Parameters
    ----------
    embeddings : ndarray of shape (n_samples, n_features)
    text_features : ndarray of shape (n_classes, n_features)
        Rows of unit length.
    logit_scale : float

    Returns
    -------
    best : ndarray of intp, shape (n_samples,)
    """
    best = np.empty(len(embeddings), dtype=np.intp)
    for rows, logits in _logit_blocks(embeddings, text_features, logit_scale):
        logits.argmax(axis=1, out=best[rows])
    return best


def _logit_blocks(
    embeddings: NDArray[np.floating],
    text_features: NDArray[np.floating],
    logit_scale: float,
    out: NDArray[np.float64] | None = None,
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield which rows and their logits: a view of `out`, or a buffer that the next block overwrites."""
    weights = np.asarray(text_features, dtype=np.float64).T * logit_scale
    n_features, n_classes = weights.shape
    n_rows = _rows_per_block(n_features, n_classes)
    buffer = np.empty((min(n_rows, len(embeddings)), n_classes)) if out is None else out
    for start in range(0, len(embeddings), n_rows):
        unit = _unit_rows(embeddings[start : start + n_rows])
        rows = slice(start, start + len(unit))
        logits = buffer[: len(unit)] if out is None else out[rows]
        np.matmul(unit, weights, out=logits)
        yield rows, logits


def _rows_per_block(n_features: int, n_classes: int) -> int:
    return min(max(_BLOCK_SIZE // max(n_features, n_classes), _MIN_ROWS), _MAX_ROWS)


def _unit_rows(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a copy in float64 with rows of unit length, but for those that have no direction."""
    block = np.asarray(embeddings, dtype=np.float64, order="C")
    length = np.sqrt(np.einsum("ij,ij->i", block, block))
    if np.isinf(length).any():
        # The squares of large entries are not finite, though the entries are.
        block = block / np.maximum(np.abs(block).max(axis=1, keepdims=True), 1.0)
        length = np.sqrt(np.einsum("ij,ij->i", block, block))
    return block * (1.0 / np.maximum(length, _MIN_LENGTH))[:, np.newaxis]
