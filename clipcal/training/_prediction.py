"""Logits of learners whose predictions are not cosine similarities with fixed text features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipcal.training._learner import Learner
from clipcal.training._problem import Batch
from clipcal.training._prompts import Prompts

__all__ = ["predict_logits"]

_BLOCK_SIZE = 4096


@torch.no_grad()
def predict_logits(
    learner: Learner, prompts: Prompts, embeddings: NDArray[np.floating], *, text_depends_on_image: bool
) -> NDArray[np.float64]:
    """Predict logits from embeddings. The logits of a sample do not depend on the other samples.

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
    logits = np.empty((len(embeddings), len(prompts)))
    if text_depends_on_image:
        for i in range(len(embeddings)):
            batch = _batch(embeddings[i : i + 1], prompts.tokens.device, torch.float32)
            images = learner.encode_images(batch)
            logits[i] = learner.logits(images, learner.encode_texts(prompts, images)).cpu().numpy()[0]
        return logits
    texts = learner.encode_texts(prompts, None).to("cpu", torch.float64)
    learner.to("cpu", torch.float64)
    for start in range(0, len(embeddings), _BLOCK_SIZE):
        rows = slice(start, start + _BLOCK_SIZE)
        images = learner.encode_images(_batch(embeddings[rows], torch.device("cpu"), torch.float64))
        logits[rows] = learner.logits(images, texts).numpy()
    return logits


def _batch(embeddings: NDArray[np.floating], device: torch.device, dtype: torch.dtype) -> Batch:
    """Return a batch without labels, with embeddings normalized in float64."""
    raw = np.asarray(embeddings, dtype=np.float64)
    norms = np.linalg.norm(raw, axis=1)
    unit = raw / np.maximum(norms, 1e-12)[:, None]

    def tensor(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(device=device, dtype=dtype)

    targets = torch.zeros(len(raw), dtype=torch.long, device=device)
    return Batch(tensor(unit), tensor(norms), targets, torch.ones(len(raw), dtype=dtype, device=device))
