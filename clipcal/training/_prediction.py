"""Logits of learners whose predictions are not cosine similarities with fixed text features."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipcal.training._data import Batch
from clipcal.training._learner import Learner
from clipcal.training._prompts import Prompts

__all__ = ["predict_logits", "predict_logits_from_pixels"]

_BLOCK_SIZE = 4096


@torch.no_grad()
def predict_logits(
    learner: Learner, prompts: Prompts, embeddings: NDArray[np.floating], *, text_depends_on_image: bool
) -> NDArray[np.float64]:
    """Predict logits from embeddings. The logits of a sample hardly depend on the other samples.

    If the text features depend on the image, prompts are encoded for one image at a time, in float32, because
    the rounding of a larger product would depend on the other images. Otherwise the class prompts are encoded
    once, and all computations after the frozen towers are done in float64 on the CPU.

    Parameters
    ----------
    learner : Learner
        Trained learner. It may be moved to the CPU and converted to float64.
    prompts : Prompts
        Prompts of the classes.
    embeddings : ndarray of shape (n_samples, embedding_dim)
        Unnormalized embeddings.
    text_depends_on_image : bool
        Whether the text features depend on the image.

    Returns
    -------
    logits : ndarray of float64, shape (n_samples, n_classes)
        Logits.
    """
    if text_depends_on_image:
        device = prompts.tokens.device
        single = (_batch(row[None], device, torch.float32) for row in embeddings)
        return _logits(learner, prompts, single, texts=None)
    texts = learner.encode_texts(prompts, None).to("cpu", torch.float64)
    learner.to("cpu", torch.float64)
    starts = range(0, len(embeddings), _BLOCK_SIZE)
    blocks = (
        _batch(embeddings[start : start + _BLOCK_SIZE], torch.device("cpu"), torch.float64)
        for start in starts
    )
    return _logits(learner, prompts, blocks, texts=texts)


@torch.no_grad()
def predict_logits_from_pixels(
    learner: Learner, prompts: Prompts, batches: Iterable[Batch], *, text_depends_on_image: bool
) -> NDArray[np.float64]:
    """Predict logits from images that the learner encodes itself, in the precision of the towers.

    Parameters
    ----------
    learner : Learner
        Trained learner.
    prompts : Prompts
        Prompts of the classes.
    batches : iterable of Batch
        Images, one per batch if the text features depend on the image. Their targets are ignored.
    text_depends_on_image : bool
        Whether the text features depend on the image.

    Returns
    -------
    logits : ndarray of float64, shape (n_samples, n_classes)
        Logits.
    """
    texts = None if text_depends_on_image else learner.encode_texts(prompts, None)
    return _logits(learner, prompts, batches, texts=texts)


def _logits(
    learner: Learner, prompts: Prompts, batches: Iterable[Batch], *, texts: Tensor | None
) -> NDArray[np.float64]:
    """Predict batch by batch; `texts` is None if the text features depend on the image."""
    rows = [np.empty((0, len(prompts)))]
    for batch in batches:
        images = learner.encode_images(batch)
        own = learner.encode_texts(prompts, images) if texts is None else texts
        rows.append(learner.logits(images, own).double().cpu().numpy())
    return np.concatenate(rows)


def _batch(embeddings: NDArray[np.floating], device: torch.device, dtype: torch.dtype) -> Batch:
    """Return a batch without labels, with embeddings normalized in float64."""
    raw = np.asarray(embeddings, dtype=np.float64)
    norms = np.linalg.norm(raw, axis=1)
    unit = raw / np.maximum(norms, 1e-12)[:, None]

    def tensor(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(device=device, dtype=dtype)

    targets = torch.zeros(len(raw), dtype=torch.long, device=device)
    return Batch(tensor(unit), tensor(norms), targets, torch.ones(len(raw), dtype=dtype, device=device))
