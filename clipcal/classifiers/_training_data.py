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
        Number of views of each image encoded before training. ``"fresh"`` draws a random crop in each step.
    needs_pixels : bool
        Whether the method needs pixels in each step. Unless ``n_views="fresh"``, these are center crops.
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

    Raises
    ------
    ValueError
        If X contains embeddings, but the method or ``n_views="fresh"`` needs images, or several views are
        to be encoded for a method that reads images in each step.
    """
    import torch

    from clipcal.training import EmbeddedData, PixelData

    device = backbone.device
    on_device = {
        "targets": torch.as_tensor(targets, device=device),
        "weights": torch.as_tensor(weights, dtype=torch.float32, device=device),
    }
    _check_views(X, n_views, needs_pixels, name)
    fresh = n_views == "fresh"
    if fresh or needs_pixels:
        loader = PixelLoader(X, backbone, augment=fresh)
        return PixelData(**on_device, load=loader.load, encode=backbone.encode_images)
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
    views = torch.from_numpy(np.array(X, dtype=np.float64)).reshape(len(X), -1, backbone.embedding_dim)
    return EmbeddedData.from_raw(views, **on_device)


def _check_views(X: Any, n_views: int | str, needs_pixels: bool, name: str) -> None:
    """Raise an error, or warn, if the views do not fit the kind of X or the method."""
    before = n_views not in (1, "fresh")
    if input_kind(X) == "embeddings":
        if needs_pixels or n_views == "fresh":
            reason = "The method" if n_views != "fresh" else "n_views='fresh'"
            raise ValueError(f"{reason} needs images, but {name} contains embeddings; pass images.")
        if before:
            warn_caller(f"n_views={n_views} has no effect on embeddings, which have one view; pass images.")
    elif needs_pixels and before:
        raise ValueError(
            f"The method reads images in each step, so n_views={n_views!r} cannot be encoded before; use 1 "
            "for center crops or 'fresh' for random crops."
        )
