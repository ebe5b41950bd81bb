"""Conversion of images or embeddings to training data on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcal._caller import warn_caller
from clipcal.caching import MemoryLike
from clipcal.images import PixelLoader, encode_images, input_kind

if TYPE_CHECKING:
    from clipcal.backbones import Backbone
    from clipcal.training import TrainingData

__all__ = ["training_data"]

# Upper limit of random seeds and numbers of random crops.
_N_NUMBERS = 2**31 - 1


def training_data(
    X: Any,
    targets: NDArray[np.intp],
    weights: NDArray[np.float64],
    backbone: Backbone,
    *,
    n_views: int | str,
    needs_pixels: bool,
    images_at_once: int,
    random_state: np.random.RandomState,
    memory: MemoryLike | None,
    verbose: int,
    name: str = "X",
    keep: bool = True,
) -> TrainingData:
    """Return training data: embeddings, or images that are read in each step.

    Parameters
    ----------
    X : images or embeddings
        Images or embeddings.
    targets : ndarray of intp, shape (n_samples,)
        Class indices.
    weights : ndarray, shape (n_samples,)
        Sample weights.
    backbone : Backbone
        The frozen CLIP.
    n_views : int or "fresh"
        Number of views of each image: 1 for center crops, more for as many random crops. ``"fresh"`` draws a
        new crop in each step.
    needs_pixels : bool
        Whether the method encodes images in each step.
    images_at_once : int
        Number of images encoded at once before training.
    random_state : RandomState
        Random number generator for random crops.
    memory : str, Path, FeatureCache, joblib.Memory or None
        Cache of embeddings.
    verbose : int
        If at least 1, a progress bar is shown.
    name : str, default="X"
        Name of the parameter X in error messages.
    keep : bool, default=True
        Whether images are needed in several steps, so that files are checked before the first, and what is
        computed of images in a step is kept for later ones.

    Raises
    ------
    ImageReadError
        If a file is missing or not an image.
    ValueError
        If X contains embeddings, but the method or ``n_views="fresh"`` needs images.
    """
    import torch

    from clipcal.training import EmbeddedData, ImageViews, PixelData

    device = backbone.device
    on_device = {
        "targets": torch.as_tensor(targets, device=device),
        "weights": torch.as_tensor(weights, dtype=torch.float32, device=device),
    }
    _check_kind(X, n_views, needs_pixels, name)
    fresh = n_views == "fresh"
    if fresh or needs_pixels:
        seed = None if n_views == 1 else int(random_state.randint(_N_NUMBERS))
        loader = PixelLoader(X, backbone, seed=seed)
        if keep:
            # Otherwise a missing file would stop a training of hours, or go unnoticed if it is not drawn.
            loader.check_headers()
        views = ImageViews(loader.load, backbone, keep=keep and not fresh)
        rows = torch.arange(len(targets))
        return PixelData(**on_device, views=views, rows=rows, n_crops=_N_NUMBERS if fresh else int(n_views))
    if input_kind(X) != "embeddings":
        X = encode_images(
            X,
            backbone,
            batch_size=images_at_once,
            n_views=int(n_views),
            random_state=random_state,
            memory=memory,
            verbose=verbose,
        )
    # Copied, because torch warns about read-only arrays, which joblib passes to its workers.
    encoded = torch.from_numpy(np.array(X, dtype=np.float64)).reshape(len(X), -1, backbone.embedding_dim)
    return EmbeddedData.from_raw(encoded, **on_device)


def _check_kind(X: Any, n_views: int | str, needs_pixels: bool, name: str) -> None:
    """Raise an error, or warn, if X contains embeddings, but images are needed."""
    if input_kind(X) != "embeddings":
        return
    if needs_pixels:
        raise ValueError(
            f"The method prompts the image tower and needs images, but {name} contains embeddings; pass the "
            "images, or use a method that accepts embeddings, such as 'coop'."
        )
    if n_views == "fresh":
        raise ValueError(f"n_views='fresh' needs images, but {name} contains embeddings; pass images.")
    if n_views != 1:
        warn_caller(f"n_views={n_views} has no effect on embeddings, which have one view; pass images.")
