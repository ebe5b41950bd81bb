"""Base class of CLIP classifiers, which validates data and predicts."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from clipcal._arrays import plain_labels, to_numpy
from clipcal._caller import warn_caller
from clipcal._compat import _num_samples
from clipcal._score import ScoredClassifier
from clipcal._weights import check_weight, rows_that_count, take_rows
from clipcal.caching import MemoryLike
from clipcal.classifiers._prediction import (
    CosineLogits,
    Logits,
    all_logits,
    best_classes,
    class_log_probabilities,
    class_probabilities,
    logit_margins,
)
from clipcal.exceptions import BackboneError
from clipcal.images import as_images, encode_images, input_kind
from clipcal.metrics import feature_divergence
from clipcal.text import check_distinct, class_texts, split_labels

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone

__all__ = ["CLIPClassifier"]


class CLIPClassifier(ScoredClassifier, BaseEstimator):
    """Base class of classifiers whose logits are scaled cosine similarities of image and text features.

    Subclasses have the parameters ``backbone``, ``class_names``, ``allow_duplicate_names``,
    ``batch_size``, ``device``, ``precision``, ``memory`` and ``verbose``, and set ``classes_``,
    ``class_names_``, ``text_features_`` and ``logit_scale_`` in ``fit``.
    """

    backbone: str | Backbone
    class_names: Mapping[Any, str] | None
    allow_duplicate_names: bool
    device: str | torch.device
    precision: str
    memory: MemoryLike | None
    verbose: int

    classes_: NDArray[Any]
    class_names_: dict[Any, str]
    text_features_: NDArray[np.float32]
    logit_scale_: float
    n_features_in_: int

    # Set by clipcal.load.
    _backbone_fingerprint_: str | None = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Images are lists of paths or arrays (n, h, w, 3). one_d_array is False although 1-D arrays of paths
        # are supported, because with the tag scikit-learn's checks pass 1-D arrays of numbers.
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        # Cosine similarities cannot separate classes that differ only in length, as those of the checks do.
        tags.classifier_tags.poor_score = True
        return tags

    @property
    def _predicts_from_images(self) -> bool:
        """Whether predictions need images and not only their embeddings."""
        return False

    @property
    def _images_at_once(self) -> int:
        """Number of images encoded at once."""
        raise NotImplementedError

    def _open_backbone(self, n_features: int | None = None) -> Backbone:
        from clipcal.backbones import open_backbone

        backbone = open_backbone(
            self.backbone,
            device=self.device,
            precision=self.precision,
            n_features=n_features,
            memory=self.memory,
        )
        self._check_fingerprint(backbone)
        return backbone

    def _check_fingerprint(self, backbone: Backbone) -> None:
        """Raise an error if a loaded classifier is used with another backbone than it was fitted with."""
        expected = self._backbone_fingerprint_
        if expected is not None and backbone.fingerprint != expected:
            raise BackboneError(
                f"This {type(self).__name__} was fitted with a backbone whose fingerprint is "
                f"{expected[:12]}..., but backbone={self.backbone!r} has {backbone.fingerprint[:12]}...: its "
                "weights or its preprocessing differ. Pass the original backbone, "
                "clipcal.load(path, backbone=...), or fit again."
            )

    def _check_training_data(
        self, X: Any, y: Any, sample_weight: ArrayLike | None
    ) -> tuple[Any, NDArray[np.intp], NDArray[np.float64]]:
        """Set the classes; return X, class indices and weights without the samples of weight zero."""
        y, sample_weight = plain_labels(_without_tensors(y)), _without_tensors(sample_weight)
        rows = None if y is None or sample_weight is None else rows_that_count(sample_weight, _num_samples(y))
        if rows is not None:
            # Dropped before validation: samples of weight zero may have NaN, no label or an unreadable file.
            check_consistent_length(X, y)
            X, y, sample_weight = take_rows(rows, X, y, np.asarray(sample_weight))
        if input_kind(X) == "embeddings":
            X = validate_data(self, _without_tensors(X), dtype=np.float64)
            _warn_of_zero_rows(X)
        else:
            X = as_images(X)
            self.__dict__.pop("feature_names_in_", None)  # set by an earlier fit on a data frame
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        if isinstance(y, (list, tuple)) and np.ndim(y) == 1:
            split_labels(y)
        y = column_or_1d(y, warn=True)
        if y.dtype.kind == "f":
            check_array(y, ensure_2d=False, input_name="y")
        try:
            np.unique(y)
        except TypeError:
            kinds = ", ".join(sorted({type(label).__name__ for label in y}))
            raise TypeError(
                f"The labels in y must have the same type; got a mixture of {kinds}. "
                "Drop samples without a label, or convert all labels to strings."
            ) from None
        with warnings.catch_warnings():
            if y.dtype.kind in "UO":  # one image per class does not indicate a regression problem
                warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            check_classification_targets(y)
        check_consistent_length(X, y)
        weights = check_weight(sample_weight, len(y))
        # Only ratios matter. Rescaling keeps very large and very small weights in the range of float32.
        weights = weights / weights.max()
        classes, positions = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes; the data contains only one "
                f"class: {classes.tolist()[0]!r}."
            )
        self._set_classes(classes, self.class_names)
        return X, positions, weights

    def _set_classes(self, classes: NDArray[Any], class_names: Mapping[Any, str] | None) -> None:
        texts = class_texts(classes.tolist(), class_names)
        self.classes_ = classes
        self.class_names_ = dict(zip(classes.tolist(), texts, strict=True))

    def _check_names(self, backbone: Backbone) -> None:
        """Raise an error for names with the same tokens, unless duplicates are allowed."""
        if not self.allow_duplicate_names:
            check_distinct(self.class_names_, backbone.tokenize)

    def _with_equal_rows(self, features: NDArray[Any], backbone: Backbone) -> NDArray[Any]:
        """Return features that are equal, without rounding errors, for names with the same tokens."""
        if not self.allow_duplicate_names:
            return features
        tokens = backbone.tokenize([f"{name}." for name in self.class_names_.values()]).cpu().numpy()
        _, first, row = np.unique(tokens, axis=0, return_index=True, return_inverse=True)
        return features[first[row.ravel()]]

    def _backbone_for(self, X: Any) -> Backbone:
        """Open the backbone, check it against `X` and the class names, and set ``n_features_in_``."""
        n_features = X.shape[1] if input_kind(X) == "embeddings" else None
        self.__dict__.pop("_backbone_fingerprint_", None)  # set by loading from a file
        backbone = self._open_backbone(n_features)
        self._check_names(backbone)
        self.n_features_in_ = backbone.embedding_dim
        return backbone

    def _predict_embeddings(self, X: Any) -> NDArray[np.floating]:
        """Return the embeddings of X, shape (n_samples, n_features)."""
        if input_kind(X) == "embeddings":
            # The precision is kept to save memory; each block is converted to float64 later.
            X = validate_data(
                self, _without_tensors(X), dtype=[np.float64, np.float32, np.float16], reset=False
            )
            _warn_of_zero_rows(X)
            return X
        return encode_images(
            X,
            self._open_backbone(),
            batch_size=self._images_at_once,
            memory=self.memory,
            verbose=self.verbose,
        )

    def _logits(self, X: Any) -> Logits:
        """Return the logits of X."""
        check_is_fitted(self, "text_features_")
        return CosineLogits(self._predict_embeddings(X), self.text_features_, self.logit_scale_)

    def encode(self, X: Any) -> Any:
        """Return embeddings of images, from which all other methods give the same results.

        Parameters
        ----------
        X : images or embeddings
            See ``fit``.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_features)
            Embeddings without normalization, or `X` itself if predictions need the images.
        """
        check_is_fitted(self, "text_features_")
        return X if self._predicts_from_images else self._predict_embeddings(X)

    def image_features(self, X: Any) -> NDArray[np.float64]:
        """Return image features of unit length.

        The logits are their scaled products with ``text_features_`` for linear methods only (:ref:`methods`).

        Parameters
        ----------
        X : images or embeddings
            See ``fit``.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features)
            Embeddings, normalized to unit length.
        """
        check_is_fitted(self, "text_features_")
        features = np.asarray(self._predict_embeddings(X), dtype=np.float64)
        length = np.linalg.norm(features, axis=1, keepdims=True)
        return features / np.where(length > 0, length, 1.0)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the logits.

        Parameters
        ----------
        X : images or embeddings
            See ``fit``.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Cosine similarity times ``logit_scale_``. For two classes, the logit of the second class minus
            that of the first.
        """
        logits = self._logits(X)
        return logit_margins(logits) if len(self.classes_) == 2 else all_logits(logits)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities, the softmax of the logits.

        Parameters
        ----------
        X : images or embeddings
            See ``fit``.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows sum to 1.
        """
        return class_probabilities(self._logits(X))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return logarithms of the class probabilities, which are exact even for very small probabilities.

        Parameters
        ----------
        X : images or embeddings
            See ``fit``.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        return class_log_probabilities(self._logits(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each sample. Ties are resolved in favor of the first class.

        Parameters
        ----------
        X : images or embeddings
            See ``fit``.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Predicted labels.
        """
        best = best_classes(self._logits(X))
        return self.classes_[best]

    def with_classes(self, labels: Sequence[Any] | Mapping[Any, str]) -> Self:
        """Return a fitted copy for other classes.

        The copy has the learned parameters of this classifier and new text features. This classifier is not
        changed.

        Parameters
        ----------
        labels : sequence of labels, or mapping of label to name
            At least two classes. If it is not a mapping, names are taken from the parameter ``class_names``;
            a string that is not in ``class_names`` is used as its own name.

        Returns
        -------
        classifier : object
            Fitted copy, whose ``classes_`` are the sorted labels.

        Raises
        ------
        ClassNameError
            If a name is empty or too long, or two names have the same tokens and
            ``allow_duplicate_names`` is False.
        ValueError
            If there are fewer than two classes, a label occurs twice, or the learned parameters are specific
            to the training classes.
        """
        check_is_fitted(self, "text_features_")
        values, names = split_labels(plain_labels(labels))
        classes = np.unique(np.asarray(values))
        if len(classes) != len(values):
            repeated = [label for label, count in Counter(values).items() if count > 1]
            raise ValueError(
                f"with_classes got the label {repeated[0]!r} {values.count(repeated[0])} times; "
                "pass each label once, for example list(dict.fromkeys(labels))."
            )
        if len(classes) < 2:
            raise ValueError(f"with_classes needs at least two different labels; got {values!r}.")
        if names is None and any(label in (self.class_names or {}) for label in classes.tolist()):
            own = {label: label for label in classes.tolist() if isinstance(label, str)}
            names = {**own, **(self.class_names or {})}
        other = copy.copy(self)
        for name in ("learned_", "history_", "recipe_"):
            if hasattr(self, name):
                setattr(other, name, copy.deepcopy(getattr(self, name)))
        other._set_classes(classes, names)
        backbone = other._open_backbone(other.n_features_in_)
        other._check_names(backbone)
        other.text_features_ = other._encode_classes(backbone)
        return other

    def _encode_classes(self, backbone: Backbone) -> NDArray[np.float32]:
        """Return the text features of ``class_names_``."""
        raise NotImplementedError

    def feature_divergence(self, *, n_neighbors: int = 5, metric: str = "euclidean") -> float:
        """Return the feature divergence (FD) of the text features, a measure of their dispersion.

        For other classes, call it on ``with_classes(...)``.

        Parameters
        ----------
        n_neighbors : int, default=5
            Number of neighbors; see :func:`clipcal.metrics.feature_divergence`.
        metric : {"euclidean", "cosine"}, default="euclidean"
            Distance between text features.

        Returns
        -------
        divergence : float
            Feature divergence.
        """
        check_is_fitted(self, "text_features_")
        return feature_divergence(self.text_features_, n_neighbors=n_neighbors, metric=metric)


def _warn_of_zero_rows(embeddings: NDArray[np.floating]) -> None:
    rows = np.flatnonzero(~embeddings.any(axis=1))
    if len(rows):
        warn_caller(
            f"{len(rows)} of {len(embeddings)} embeddings are zero, the first in row {rows[0]}. They have no "
            "direction, so their predictions are meaningless; drop them, or encode the images again."
        )


def _without_tensors(values: Any) -> Any:
    """Convert a tensor, or a list of tensors, to NumPy, and return other values unchanged."""
    if isinstance(values, (list, tuple)) and any(hasattr(value, "detach") for value in values):
        return [to_numpy(value) for value in values]
    return to_numpy(values)
