"""The image encoder as a scikit-learn transformer."""

from __future__ import annotations

import os
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from clipcal._compat import HasMethods, Interval, StrOptions, _fit_context, validate_parameters
from clipcal.caching import FeatureCache, MemoryLike
from clipcal.images._encoding import encode_images
from clipcal.images._inputs import as_images

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone


class CLIPImageEncoder(TransformerMixin, BaseEstimator):
    """Embed images with a frozen CLIP.

    This transformer is stateless: ``transform`` works without ``fit``.

    Parameters
    ----------
    backbone : str or Backbone, default="ViT-B-16/openai"
        The CLIP model; see :func:`clipcal.backbones.open_backbone` for the names. ``"mini"`` works offline.
    batch_size : int, default=64
        Number of images per forward pass of the image encoder, at least 1.
    normalize : bool, default=True
        Whether to divide each embedding by its L2 norm.
    device : str or torch.device, default="auto"
        Device to run on; ``"auto"`` is the first available of CUDA, MPS and the CPU.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Precision of the image encoder; ``"auto"`` is bfloat16 on CUDA devices that support it natively and
        float32 otherwise.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Cache for embeddings, keyed by image content; see :func:`encode_images`. If all images are cached, the
        backbone is not loaded.
    verbose : int, default=0
        If at least 1, show a progress bar.

    See Also
    --------
    encode_images : Function equivalent, which also supports random crops.

    References
    ----------
    Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021,
    arXiv:2103.00020.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.images import CLIPImageEncoder
    >>> images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    >>> embeddings = CLIPImageEncoder("mini", device="cpu").transform(images)
    >>> embeddings.shape[0], embeddings.dtype
    (2, dtype('float32'))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "backbone": [str, HasMethods(["encode_images", "preprocess"])],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "normalize": ["boolean"],
        # Checked when the backbone is opened: naming torch.device here would import torch.
        "device": "no_validation",
        "precision": [StrOptions({"auto", "fp32", "bf16"})],
        "memory": [str, os.PathLike, FeatureCache, HasMethods(["cache"]), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | Backbone = "ViT-B-16/openai",
        *,
        batch_size: int = 64,
        normalize: bool = True,
        device: str | torch.device = "auto",
        precision: str = "auto",
        memory: MemoryLike | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.batch_size = batch_size
        self.normalize = normalize
        self.device = device
        self.precision = precision
        self.memory = memory
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters, the backbone and the type of X; nothing is learned.

        Parameters
        ----------
        X : images
            See :meth:`transform`. The images are not read.
        y : object, default=None
            Ignored.

        Returns
        -------
        self : CLIPImageEncoder
            The encoder.

        Raises
        ------
        BackboneError
            If the backbone cannot be opened.
        TypeError, ValueError
            If X does not hold images.
        """
        as_images(X)
        self._open_backbone()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        X : images
            A list, 1-D array or Series of paths, of contents of image files (bytes) or of records
            ``{"bytes": ..., "path": ...}``, :class:`ImagePaths`, :class:`LazyImages`, an image column of a
            Hugging Face data set, a list of PIL images, uint8 arrays or tensors (n, height, width) or
            (n, height, width, 3), or a list of uint8 arrays or tensors of one image each. Grayscale is
            repeated in all channels, transparent images (a fourth channel) are composited on white, and the
            EXIF orientation is applied. Opened PIL images are not kept decoded.

        Returns
        -------
        ndarray of shape (n_samples, embedding_dim), float32
            The embeddings.

        Raises
        ------
        BackboneError
            If the backbone cannot be opened.
        ImageReadError
            If an image cannot be read; the message gives its position and its path or type.
        TypeError, ValueError
            If X does not hold images.
        """
        validate_parameters(self)
        images = as_images(X)
        embeddings = encode_images(
            images,
            self._open_backbone(),
            batch_size=self.batch_size,
            memory=self.memory,
            verbose=int(self.verbose),
        )
        if self.normalize:
            lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
            embeddings = embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)
        return embeddings

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Get the output feature names: ``clip0``, ``clip1``, and so on.

        Parameters
        ----------
        input_features : object, default=None
            Ignored.

        Returns
        -------
        ndarray of shape (embedding_dim,), object
            The feature names.
        """
        return np.array([f"clip{i}" for i in range(self._open_backbone().embedding_dim)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.target_tags.required = False
        tags.transformer_tags.preserves_dtype = []
        tags.requires_fit = False
        return tags

    def _open_backbone(self) -> Backbone:
        from clipcal.backbones import open_backbone

        return open_backbone(self.backbone, device=self.device, precision=self.precision, memory=self.memory)
