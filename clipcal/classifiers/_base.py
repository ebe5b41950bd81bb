"""What every CLIP classifier does the same way: labels, kinds of X, and what is predicted from them."""

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
    """Base of classifiers whose logits are scaled cosines between images and class texts.

    Subclasses have the parameters ``backbone``, ``class_names``, ``allow_duplicate_names``,
    ``batch_size``, ``device``, ``precision``, ``memory`` and ``verbose``, and set ``classes_``,
    ``class_names_``, ``text_features_`` and ``logit_scale_`` in ``fit``.
    """

    backbone: str | Backbone
    class_names: Mapping[Any, str] | None
    allow_duplicate_names: bool
    batch_size: int | None
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
        # Pictures come as lists of paths and as (n, h, w, 3) arrays. one_d_array stays False although
        # 1-D arrays of paths work: the tag makes scikit-learn's checks send 1-D numbers.
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        # Directions alone cannot separate what differs in length, which the checks' blobs do.
        tags.classifier_tags.poor_score = True
        return tags

    @property
    def _images_at_once(self) -> int:
        """Images that pass the image tower at once."""
        return self.batch_size or 64

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
                "weights or its preprocessing differ. Pass the right one, clipcal.load(path, backbone=...), "
                "or fit again."
            )

    def _check_training_data(
        self, X: Any, y: Any, sample_weight: ArrayLike | None
    ) -> tuple[Any, NDArray[np.intp], NDArray[np.float64]]:
        """Set the classes; return X, class positions and weights without samples of zero weight."""
        y, sample_weight = plain_labels(_without_tensors(y)), _without_tensors(sample_weight)
        rows = None if y is None or sample_weight is None else rows_that_count(sample_weight, _num_samples(y))
        if rows is not None:
            # Nothing that is wrong with the other samples matters: a missing label, NaN, an unreadable file.
            check_consistent_length(X, y)
            X, y, sample_weight = take_rows(rows, X, y, np.asarray(sample_weight))
        if input_kind(X) == "embeddings":
            X = validate_data(self, _without_tensors(X), dtype=np.float64)
        else:
            X = as_images(X)
            self.__dict__.pop("feature_names_in_", None)  # of an earlier fit on a frame
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
                f"The labels in y must be of one kind; got a mixture of {kinds}. "
                "Leave out samples without a label, or turn all labels into strings."
            ) from None
        with warnings.catch_warnings():
            if y.dtype.kind in "UO":  # one picture a class is no sign of a regression problem
                warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            check_classification_targets(y)
        check_consistent_length(X, y)
        weights = check_weight(sample_weight, len(y))
        # Only ratios matter; the loop computes in float32, which huge and tiny weights leave.
        weights = weights / weights.max()
        weights /= weights.mean()
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
        """Refuse names that no prompt can tell apart, unless that is allowed."""
        if not self.allow_duplicate_names:
            check_distinct(self.class_names_, backbone.tokenize)

    def _with_equal_rows(self, features: NDArray[np.float32], backbone: Backbone) -> NDArray[np.float32]:
        """Give classes whose names have the same tokens the same features, which rounding may tell apart."""
        if not self.allow_duplicate_names:
            return features
        tokens = backbone.tokenize([f"{name}." for name in self.class_names_.values()]).cpu().numpy()
        _, first, row = np.unique(tokens, axis=0, return_index=True, return_inverse=True)
        return features[first[row.ravel()]]

    def _backbone_for(self, X: Any) -> Backbone:
        """Open the backbone, which names and the width of embeddings must suit; set ``n_features_in_``."""
        n_features = X.shape[1] if input_kind(X) == "embeddings" else None
        self.__dict__.pop("_backbone_fingerprint_", None)  # of a file
        backbone = self._open_backbone(n_features)
        self._check_names(backbone)
        self.n_features_in_ = backbone.embedding_dim
        return backbone

    def _predict_embeddings(self, X: Any) -> NDArray[np.floating]:
        """Return embeddings of what is to be predicted, shape (n_samples, n_features)."""
        if input_kind(X) == "embeddings":
            # Floats keep their precision here; each block is converted to float64 later.
            return validate_data(
                self, _without_tensors(X), dtype=[np.float64, np.float32, np.float16], reset=False
            )
        return encode_images(
            X,
            self._open_backbone(),
            batch_size=self._images_at_once,
            memory=self.memory,
            verbose=self.verbose,
        )

    def _logits(self, X: Any) -> Logits:
        """Return the logits of what is to be predicted."""
        check_is_fitted(self, "text_features_")
        return CosineLogits(self._predict_embeddings(X), self.text_features_, self.logit_scale_)

    def image_features(self, X: Any) -> NDArray[np.float64]:
        """Return embeddings of unit length, by which pictures can be told to be near or far.

        Parameters
        ----------
        X : pictures or embeddings
            See ``fit``.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self, "text_features_")
        features = np.asarray(self._predict_embeddings(X), dtype=np.float64)
        length = np.linalg.norm(features, axis=1, keepdims=True)
        return features / np.where(length > 0, length, 1.0)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the logits.

        Parameters
        ----------
        X : pictures or embeddings
            See ``fit``.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Cosine times ``logit_scale_``; for two classes the difference, second minus first.
        """
        logits = self._logits(X)
        return logit_margins(logits) if len(self.classes_) == 2 else all_logits(logits)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities, the softmax of the logits.

        Parameters
        ----------
        X : pictures or embeddings
            See ``fit``.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows sum to 1.
        """
        return class_probabilities(self._logits(X))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return logarithms of the class probabilities, exact where they are tiny.

        Parameters
        ----------
        X : pictures or embeddings
            See ``fit``.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
        """
        return class_log_probabilities(self._logits(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each sample, the first one among equals.

        Parameters
        ----------
        X : pictures or embeddings
            See ``fit``.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        best = best_classes(self._logits(X))
        return self.classes_[best]

    def with_classes(self, labels: Sequence[Any] | Mapping[Any, str]) -> Self:
        """Return a fitted copy that knows other classes.

        What was learned stays; only the text features are new. The original is untouched.

        Parameters
        ----------
        labels : sequence of labels, or mapping of label to name
            The classes, at least two. Without a mapping, names come from the parameter ``class_names``;
            a string that it lacks is its own name.

        Returns
        -------
        classifier : a fitted copy
            Its ``classes_`` are the sorted labels.

        Raises
        ------
        ClassNameError
            If a name is empty or too long, or is the same as another one to the tokenizer and
            ``allow_duplicate_names`` is False.
        ValueError
            If there are fewer than two classes, a label occurs twice, or the classifier's parameters
            belong to its own classes.
        """
        check_is_fitted(self, "text_features_")
        values, names = split_labels(plain_labels(labels))
        classes = np.unique(np.asarray(values))
        if len(classes) != len(values):
            repeated = [label for label, count in Counter(values).items() if count > 1]
            raise ValueError(
                f"with_classes was given the label {repeated[0]!r} {values.count(repeated[0])} times; "
                "give each label once, such as list(dict.fromkeys(labels))."
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
        """Return text features of ``class_names_`` from what was learned."""
        raise NotImplementedError

    def feature_divergence(self, *, n_neighbors: int = 5, metric: str = "euclidean") -> float:
        """Return how far the classes' text features stand apart (the paper's FD score).

        For other classes, call it on ``with_classes(...)``.

        Parameters
        ----------
        n_neighbors : int, default=5
        metric : {"euclidean", "cosine"}, default="euclidean"
            See :func:`clipcal.metrics.feature_divergence`.

        Returns
        -------
        divergence : float
        """
        check_is_fitted(self, "text_features_")
        return feature_divergence(self.text_features_, n_neighbors=n_neighbors, metric=metric)


def _without_tensors(values: Any) -> Any:
    """Bring a tensor, or a list of tensors, to NumPy; leave everything else as it is."""
    if isinstance(values, (list, tuple)) and any(hasattr(value, "detach") for value in values):
        return [to_numpy(value) for value in values]
    return to_numpy(values)
