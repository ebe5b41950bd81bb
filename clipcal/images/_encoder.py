"""The image encoder as a scikit-learn transformer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from clipcal._compat import HasMethods, Interval, StrOptions, _fit_context, validate_parameters
from clipcal.caching import FeatureCache, MemoryLike
from clipcal.images._encoding import encode_images
from clipcal.images._inputs import as_images
from clipcal.images._shards import ShardOptions, encode_shards

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
        return _normalized(embeddings) if self.normalize else embeddings

    def encode_to(
        self,
        X: Any,
        folder: str | os.PathLike[str],
        *,
        shard_size: int = 10_000,
        dtype: str = "float32",
        part: tuple[int, int] = (0, 1),
        on_error: str = "raise",
    ) -> None:
        """Embed millions of images into a folder, in files of `shard_size` rows.

        The layout is that of clip-retrieval: ``img_emb/img_emb_00000.npy`` and, if the images are given as
        paths, ``metadata/metadata_00000.parquet`` with the columns ``image_path`` and ``position``. Memory
        holds one shard of embeddings and a few decoded images. A call that was interrupted, even by
        ``kill -9``, continues at the first incomplete shard if it is repeated, and writes the same files.
        :func:`clipcal.images.load_embeddings` reads the folder.

        Parameters
        ----------
        X : images or iterator of images
            See :meth:`transform`. An iterator is read shard by shard, so that the images of one shard only
            are in memory.
        folder : str or Path
            The folder; it is created if it does not exist.
        shard_size : int, default=10_000
            Number of images per file.
        dtype : {"float32", "float16"}, default="float32"
            Type of the numbers in the files. ``"float16"``, which clip-retrieval writes, halves their size.
        part : tuple of two int, default=(0, 1)
            ``(i, n)`` encodes the shards i, i + n, i + 2n and so on, so that n processes or machines that
            call it with i = 0, ..., n - 1 share the work in one folder.
        on_error : {"raise", "skip"}, default="raise"
            What to do with an image that cannot be read: raise an error, or leave the image out, with a
            warning that says how many were left out.

        Raises
        ------
        BackboneError
            If the backbone cannot be opened.
        ImageReadError
            If an image cannot be read and `on_error` is ``"raise"``; the message gives its position and its
            path or type. The shards before it are complete.
        ImportError
            If images are given as paths and pyarrow, the extra ``parquet``, is not installed.
        TypeError, ValueError
            If X does not hold images, if an argument is not valid, or if the folder has embeddings of other
            images, of another backbone, or with other settings.

        Notes
        -----
        Images in the folder are recognized by their paths, as given (relative to the root of
        :class:`ImagePaths`); images in memory by the content of the first and the last image of each shard.

        Examples
        --------
        >>> import tempfile
        >>> from clipcal import CLIPImageEncoder, make_shapes
        >>> from clipcal.images import load_embeddings
        >>> X, y = make_shapes("textures", n_per_class=1, random_state=0, return_X_y=True)
        >>> encoder = CLIPImageEncoder("mini", device="cpu")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     encoder.encode_to(X, folder, shard_size=4, part=(0, 2))
        ...     encoder.encode_to(X, folder, shard_size=4, part=(1, 2))
        ...     data = load_embeddings(folder)
        >>> bool((abs(data.embeddings - encoder.transform(X)) < 1e-5).all())
        True
        """
        validate_parameters(self)
        options = ShardOptions(shard_size, dtype, part, on_error)
        encode_shards(
            X if isinstance(X, Iterator) else as_images(X),
            folder,
            self._open_backbone(),
            options,
            normalize=_normalized if self.normalize else None,
            batch_size=self.batch_size,
            memory=self.memory,
            verbose=int(self.verbose),
        )

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


def _normalized(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)
