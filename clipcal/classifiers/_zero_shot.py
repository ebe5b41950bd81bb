"""Zero-shot CLIP as a classifier: no training, only prompts."""

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
    """CLIP's zero-shot classifier.

    The logit of a class is the cosine between the image's and the class prompt's features, times
    CLIP's logit scale. ``fit`` reads the labels and encodes their prompts; it learns nothing from X.

    Parameters
    ----------
    backbone : str or Backbone, default="ViT-B-16/openai"
        See :func:`clipcal.backbones.open_backbone`; ``"mini"`` needs no download.
    template : str or sequence of str, default="a photo of a {}."
        The prompt, with ``{}`` in the place of the class name; or the name of a known template or ensemble,
        such as ``"oxford_pets"`` or ``"imagenet-80"`` (see :func:`clipcal.text.find_templates`); or a
        sequence of these. With several templates the feature of a class is the mean of the unit features of
        its prompts, brought to unit length again.
    class_names : mapping of label to str, default=None
        Names of labels that are not themselves readable.
    allow_duplicate_names : bool, default=False
        Whether several labels may have one name, as "missile" stands twice in the published names of
        ImageNet's classes. Such classes always get the same probability. By default names that are the
        same to the backbone's tokenizer are refused.
    batch_size : int, default=64
        Pictures encoded at once.
    device : str or torch.device, default="auto"
        ``"auto"`` is CUDA, else MPS, else the CPU.
    precision : {"auto", "fp32", "bf16"}, default="auto"
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Where features of pictures and prompts are kept on disk, each found again by content; see
        :class:`clipcal.FeatureCache`. Where all are known, the backbone is not even loaded.
    verbose : int, default=0
        From 1 on, encoding pictures shows its progress.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    class_names_ : dict
        The name of each label, as it stands in the prompt.
    text_features_ : ndarray of float32, shape (n_classes, n_features)
        Rows of unit length.
    logit_scale_ : float
        Factor of the cosines.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names, where ``X`` in ``fit`` was a frame of embeddings.

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

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Encode the prompts of the classes in ``y``.

        Parameters
        ----------
        X : pictures or embeddings
            Paths (list, array, Series, :class:`~clipcal.images.ImagePaths`), PIL images, uint8 arrays or
            tensors (n_samples, height, width[, 3]), or embeddings, numbers (n_samples, n_features).
            Only checked.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Samples of zero weight do not count as occurrences of their class.

        Returns
        -------
        self : object
            Fitted classifier.

        Raises
        ------
        ValueError
            If X and y do not fit together or the labels make no classes.
        ClassNameError
            If the template is invalid, or the names make no prompts.
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
