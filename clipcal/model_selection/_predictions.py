"""Pooled predictions of classifiers on unseen classes."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import check_cv
from sklearn.utils import column_or_1d, indexable
from sklearn.utils.parallel import Parallel, delayed

from clipcal._arrays import plain_labels
from clipcal._columns import class_probabilities
from clipcal._compat import HasMethods, _safe_indexing, validate_params
from clipcal.model_selection._leave_classes_out import LeaveClassesOut
from clipcal.model_selection._open_vocabulary import CLASSES, Classes, estimator_for, rows_and_classes

__all__ = ["OpenVocabularyPredictions", "open_vocabulary_predictions"]


@dataclass(frozen=True, eq=False)
class OpenVocabularyPredictions:
    """Concatenated predictions of the classifiers of several splits on their test parts.

    A metric can be computed once from the rows of all splits. In `y_prob`, classes that are not candidates
    in the split of a row have probability 0. This has no effect on metrics of the predicted class, log loss
    and Brier score; metrics of each class also include rows for which the class was not a candidate.

    Result of :func:`open_vocabulary_predictions`.

    Parameters
    ----------
    y_true : ndarray of shape (n_rows,)
        True labels.

    y_prob : ndarray of shape (n_rows, n_classes)
        Probabilities; rows sum to 1.

    labels : ndarray of shape (n_classes,)
        The label of each column: the sorted labels of the data.

    row : ndarray of int, shape (n_rows,)
        Index of the row in the data. Rows in the test parts of several splits occur several times.

    fold : ndarray of int, shape (n_rows,)
        Index of the split.
    """

    y_true: NDArray[Any]
    y_prob: NDArray[np.float64]
    labels: NDArray[Any]
    row: NDArray[np.intp]
    fold: NDArray[np.intp]

    @property
    def y_pred(self) -> NDArray[Any]:
        """Return the most probable label of each row, shape (n_rows,)."""
        return self.labels[self.y_prob.argmax(axis=1)]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Return the probability of the predicted label, shape (n_rows,)."""
        return self.y_prob.max(axis=1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Return whether the predicted label is the true one, shape (n_rows,)."""
        return np.asarray(self.y_pred == self.y_true)


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "cv": ["cv_object", None],
        "classes": [CLASSES],
        "n_jobs": [Integral, None],
    }
)
def open_vocabulary_predictions(
    estimator: BaseEstimator,
    X: Any,
    y: ArrayLike,
    *,
    cv: Any = None,
    groups: ArrayLike | None = None,
    classes: Classes = "unseen",
    n_jobs: int | None = None,
) -> OpenVocabularyPredictions:
    """Pool the predictions of clones of a classifier on unseen classes.

    Binned calibration errors are biased upwards if there are few rows. Compute them once from the rows of
    all splits instead of averaging them over splits.

    Parameters
    ----------
    estimator : classifier with ``with_classes``
        The classifier, whose clones are fitted. A :class:`~sklearn.pipeline.Pipeline` with such a last step,
        or a search over one, is accepted.

    X : indexable of length n_samples
        Input of `estimator`: an array, a list of images or of paths.

    y : array-like of shape (n_samples,)
        True labels.

    cv : cross-validation generator, iterable or int, default=None
        The splits. None means ``LeaveClassesOut()``.

    groups : array-like of shape (n_samples,), default=None
        Group labels, for splitters that use them.

    classes : {"unseen", "fold", "seen"}, default="unseen"
        The candidate classes and the rows to predict; see :func:`open_vocabulary`.

    n_jobs : int, default=None
        Number of splits that are fitted in parallel. None means 1, and -1 means all processors.

    Returns
    -------
    predictions : OpenVocabularyPredictions
        True labels, probabilities and labels of the columns, for use in metrics, and rows and splits.

    Raises
    ------
    ValueError
        If a split has fewer than two candidate classes.

    TypeError
        If the estimator does not support ``with_classes``.

    See Also
    --------
    open_vocabulary : Make a scorer, which gives one number per split.
    clipcal.metrics.cross_val_calibration_error : Pooled calibration error for seen classes.

    Examples
    --------
    >>> from clipcal import CLIPImageEncoder, LeaveClassesOut, ZeroShotCLIPClassifier, make_shapes
    >>> from clipcal.metrics import expected_calibration_error
    >>> from clipcal.model_selection import open_vocabulary_predictions
    >>> images, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    >>> X = CLIPImageEncoder("mini").transform(images)
    >>> cv = LeaveClassesOut(n_splits=2, random_state=0)
    >>> pooled = open_vocabulary_predictions(ZeroShotCLIPClassifier("mini"), X, y, cv=cv)
    >>> pooled.y_prob.shape
    (56, 14)
    >>> error = expected_calibration_error(pooled.y_true, pooled.y_prob, labels=pooled.labels)
    >>> 0 < error < 0.5
    True
    """
    X, y, groups = indexable(X, plain_labels(y), plain_labels(groups))
    truth = column_or_1d(y)
    labels = np.unique(truth)
    splitter = LeaveClassesOut() if cv is None else check_cv(cv, truth, classifier=True)
    every_row = np.arange(len(truth))
    # Splits given as an iterable may be masks.
    parts = Parallel(n_jobs=n_jobs)(
        delayed(_predict_split)(
            clone(estimator), X, truth, every_row[train], every_row[test], classes, labels
        )
        for train, test in splitter.split(X, truth, groups)
    )
    row = np.concatenate([rows for rows, _ in parts])
    return OpenVocabularyPredictions(
        y_true=truth[row],
        y_prob=np.concatenate([prob for _, prob in parts]),
        labels=labels,
        row=row,
        fold=np.repeat(np.arange(len(parts)), [len(rows) for rows, _ in parts]),
    )


def _predict_split(
    estimator: Any,
    X: Any,
    y: NDArray[Any],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    classes: Classes,
    labels: NDArray[Any],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Fit on the training part; return the selected rows of the test part and their probabilities."""
    estimator.fit(_safe_indexing(X, train), y[train])
    rows, offered = rows_and_classes(estimator, y[test], classes)
    known, output = class_probabilities(estimator_for(estimator, offered), _safe_indexing(X, test[rows]))
    prob = np.zeros((len(rows), len(labels)))
    prob[:, np.searchsorted(labels, known)] = output
    return test[rows], prob
