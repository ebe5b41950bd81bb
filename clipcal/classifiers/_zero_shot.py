"""Zero-shot classifier."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcal._compat import HasMethods, Interval, StrOptions, _fit_context
from clipcal._fitting import all_or_nothing
from clipcal.caching import FeatureCache, MemoryLike
from clipcal.classifiers._base import CLIPClassifier
from clipcal.text import DEFAULT_TEMPLATE, find_templates

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone

__all__ = ["ZeroShotCLIPClassifier"]


class ZeroShotCLIPClassifier(CLIPClassifier):
    """Zero-shot CLIP classifier.

    The logit of a class is the cosine similarity of the image feature and the text feature of the class
    prompt, times the logit scale of CLIP. ``fit`` encodes the prompts of the labels in y and learns nothing
    from X.

    Parameters
    ----------
    backbone : str or Backbone, default="ViT-B-16/openai"
        The frozen CLIP; see :func:`clipcal.backbones.open_backbone`. ``"mini"`` needs no download.
    template : str or sequence of str, default="a photo of a {}."
        Prompt with ``{}`` as placeholder for the class name, the name of a known template or ensemble, such
        as ``"oxford_pets"`` or ``"imagenet-80"`` (see :func:`clipcal.text.find_templates`), or a sequence of
        these. With several templates, the feature of a class is the normalized mean of the normalized
        features of its prompts.
    class_names : mapping of label to str, default=None
        Name of each label to be used in prompts. By default, labels are used as names.
    allow_duplicate_names : bool, default=False
        Whether several labels may have the same name, such as "missile" in the published names of the
        ImageNet classes. Such classes always have the same probability. By default, names with the same
        tokens raise an error.
    batch_size : int, default=64
        Number of images encoded at once.
    device : str or torch.device, default="auto"
        Device to run on. ``"auto"`` is CUDA if available, else MPS if available, else the CPU.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Precision of the towers. ``"auto"`` is bfloat16 on CUDA devices that support it and float32 elsewhere.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Cache of image and text features on disk, keyed by content; see :class:`clipcal.FeatureCache`. If all
        features are cached, the backbone is not loaded.
    verbose : int, default=0
        If at least 1, a progress bar is shown while encoding images.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    class_names_ : dict
        Name of each label in the prompts.
    text_features_ : ndarray of float32, shape (n_classes, n_features)
        Text features of unit length.
    logit_scale_ : float
        Factor by which cosine similarities are multiplied.
    n_features_in_ : int
        Number of features of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names, defined only if ``X`` in ``fit`` was a data frame of embeddings.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
       ICML 2021, arXiv:2103.00020.

    Examples
    --------
    >>> from clipcal import ZeroShotCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("colors", n_per_class=4, random_state=0, return_X_y=True)
    >>> clf = ZeroShotCLIPClassifier(backbone="mini").fit(X, y)
    >>> clf.predict_proba(X).shape
    (120, 30)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "backbone": "no_validation",
        "template": [str, "array-like"],
        "class_names": [Mapping, None],
        "allow_duplicate_names": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",
        "precision": [StrOptions({"auto", "fp32", "bf16"})],
        "memory": [str, os.PathLike, FeatureCache, HasMethods(["cache"]), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | Backbone = "ViT-B-16/openai",
        *,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        class_names: Mapping[Any, str] | None = None,
        allow_duplicate_names: bool = False,
        batch_size: int = 64,
        device: str | torch.device = "auto",
        precision: str = "auto",
        memory: MemoryLike | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.template = template
        self.class_names = class_names
        self.allow_duplicate_names = allow_duplicate_names
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.memory = memory
        self.verbose = verbose

    @property
    def _images_at_once(self) -> int:
        return self.batch_size

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Encode the prompts of the classes in ``y``.

        Parameters
        ----------
        X : images or embeddings
            Paths (list, array, Series, :class:`~clipcal.images.ImagePaths`), contents of image files, PIL
            images, image columns of Hugging Face data sets (:func:`clipcal.load_images`), uint8 arrays or
            tensors of shape (n_samples, height, width[, 3]), or embeddings of shape (n_samples, n_features).
            X is validated but not used.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Sample weights. Samples of weight zero are dropped, the other weights have no effect.

        Returns
        -------
        self : object
            Fitted classifier.

        Raises
        ------
        ValueError
            If X and y are invalid or inconsistent, or y has fewer than two classes.
        ClassNameError
            If the template is invalid, or a class name is empty, too long or a duplicate.
        """
        find_templates(self.template)
        X, _, _ = self._check_training_data(X, y, sample_weight)
        backbone = self._backbone_for(X)
        self.text_features_ = self._encode_classes(backbone)
        self.logit_scale_ = float(backbone.logit_scale)
        return self

    def _encode_classes(self, backbone: Backbone) -> NDArray[np.float32]:
        from clipcal.methods import zero_shot_features

        names = list(self.class_names_.values())
        features = zero_shot_features(backbone, names, self.template, memory=self.memory)
        return self._with_equal_rows(features.cpu().numpy(), backbone)
