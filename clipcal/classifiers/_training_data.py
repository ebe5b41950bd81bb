"""Training data on the device, from images or embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
) -> TrainingData:
    """Return embedded images, or images that are read in each step, with targets and weights.

    Parameters
    ----------
    X : images or embeddings
    targets : ndarray of intp, shape (n_samples,)
        Positions in the class order.
    weights : ndarray, shape (n_samples,)
    backbone : Backbone
    n_views : int or "fresh"
        Views of each image that are embedded before training; ``"fresh"`` draws a random crop in each step.
    needs_pixels : bool
        Whether the method reads pixels in each step. Without ``n_views="fresh"`` these are centre crops.
    images_at_once : int
        Images that pass the image tower at once before training.
    random_state : RandomState
        Source of random crops.
    memory : str, Path, FeatureCache, joblib.Memory or None
    verbose : int

    Raises
    ------
    ValueError
        If embeddings are given where pixels are needed, or several views of embeddings are asked for.
    """
    import torch

    from clipcal.training import EmbeddedData, PixelData

    device = backbone.device
    on_device = {
        "targets": torch.as_tensor(targets, device=device),
        "weights": torch.as_tensor(weights, dtype=torch.float32, device=device),
    }
    fresh = n_views == "fresh"
    if input_kind(X) == "embeddings":
        if fresh or needs_pixels:
            asking = "n_views='fresh'" if fresh else "The method"
            raise ValueError(f"{asking} needs the images themselves, but X holds embeddings; pass images.")
    elif fresh or needs_pixels:
        loader = PixelLoader(X, backbone, augment=fresh)
        return PixelData(**on_device, load=loader.load, encode=backbone.encode_images)
    else:
        X = encode_images(
            X,
            backbone,
            batch_size=images_at_once,
            n_views=int(n_views),
            random_state=random_state,
            memory=memory,
            verbose=verbose,
        )
    # A copy, because torch warns about read-only arrays, which joblib passes to its workers.
    views = torch.from_numpy(np.array(X, dtype=np.float64)).reshape(len(X), -1, backbone.embedding_dim)
    return EmbeddedData.from_raw(views, **on_device)
