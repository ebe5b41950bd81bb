"""A frozen image tower as a scikit-learn transformer."""

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
    """Embed pictures with a frozen CLIP.

    There is nothing to learn, so ``transform`` works without ``fit``.

    Parameters
    ----------
    backbone : str or Backbone, default="ViT-B-16/openai"
        The CLIP; see :func:`clipcal.backbones.open_backbone` for the names. ``"mini"`` needs no network.
    batch_size : int, default=64
        Pictures that pass the image tower at once, at least 1.
    normalize : bool, default=True
        Whether to divide each embedding by its Euclidean length.
    device : str or torch.device, default="auto"
        Where to run; ``"auto"`` takes CUDA, then MPS, then the CPU.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        The arithmetic of the image tower; ``"auto"`` is bfloat16 on CUDA devices that have it, float32
        elsewhere.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Where embeddings are kept between calls, each found again by content; see :func:`encode_images`. Where
        all pictures are known, the backbone is not even loaded.
    verbose : int, default=0
        1 or more shows a progress bar.

    See Also
    --------
    encode_images : The same as a function, with random crops.

    References
    ----------
    Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021,
    arXiv:2103.00020.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcal.images import CLIPImageEncoder
    >>> pictures = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    >>> embeddings = CLIPImageEncoder("mini", device="cpu").transform(pictures)
    >>> embeddings.shape[0], embeddings.dtype
    (2, dtype('float32'))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "backbone": [str, HasMethods(["encode_images", "preprocess"])],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "normalize": ["boolean"],
        # torch judges it when the backbone is opened; naming its type here would import torch.
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
        """Check the parameters, the backbone and the kind of X; nothing is learned.

        Parameters
        ----------
        X : pictures
            As for :meth:`transform`; none is read.
        y : object, default=None
            Ignored.

        Returns
        -------
        CLIPImageEncoder
            The encoder itself.

        Raises
        ------
        BackboneError
            If the backbone cannot be opened.
        TypeError, ValueError
            If X holds no pictures.
        """
        as_images(X)
        self._open_backbone()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embed pictures.

        Parameters
        ----------
        X : pictures
            A list, 1-D array or Series of paths, :class:`ImagePaths`, a list of PIL images, uint8 arrays or
            tensors (n, height, width) or (n, height, width, 3), or a list of uint8 arrays or tensors of one
            image each. Grey is repeated in all channels, transparency (a fourth channel) is laid on white,
            the camera's orientation is applied. Opened PIL images are not kept decoded.

        Returns
        -------
        ndarray of shape (n_samples, embedding_dim), float32
            The embeddings.

        Raises
        ------
        BackboneError
            If the backbone cannot be opened.
        ImageReadError
            If a picture cannot be read; the message names it and its position.
        TypeError, ValueError
            If X holds no pictures.
        """
        validate_parameters(self)
        pictures = as_images(X)
        embeddings = encode_images(
            pictures,
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
        """Name the columns of :meth:`transform`: ``clip0``, ``clip1``, and so on.

        Parameters
        ----------
        input_features : object, default=None
            Ignored; pictures have no features.

        Returns
        -------
        ndarray of shape (embedding_dim,), object
            The names.
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
