"""Pooled predictions of classifiers on classes that they were not fitted on."""

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
    """What classifiers of several splits said about the rows of their test parts.

    The arrays of all splits stand below one another, so that a metric can be computed once, from all of
    them. A row of `y_prob` is 0 for classes that its split did not offer. Errors that rest on the
    predicted class, log loss and Brier score come out as they should from that; errors that
    look at each class by itself also count the rows where the class was not offered.

    Parameters
    ----------
    y_true : ndarray of shape (n_rows,)
        True labels.

    y_prob : ndarray of shape (n_rows, n_classes)
        Probabilities; rows sum to 1.

    labels : ndarray of shape (n_classes,)
        The label of each column: the sorted labels of the data.

    row : ndarray of int, shape (n_rows,)
        The row of the data. A row that was tested in several splits occurs as often.

    fold : ndarray of int, shape (n_rows,)
        The number of the split, from 0.
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
    """Collect what clones of a classifier say about classes that they were not fitted on.

    Binned calibration errors are biased upwards when rows are few, so they are better computed once
    from the rows of all splits than averaged over splits.

    Parameters
    ----------
    estimator : classifier with ``with_classes``
        Clones of it are fitted. A :class:`~sklearn.pipeline.Pipeline` that ends with one, or a search
        over one, will do.

    X : indexable of length n_samples
        Whatever `estimator` accepts: an array, a list of images or of paths.

    y : array-like of shape (n_samples,)
        True labels.

    cv : cross-validation generator, iterable or int, default=None
        The splits; None is ``LeaveClassesOut()``.

    groups : array-like of shape (n_samples,), default=None
        Group labels, for splitters that use them.

    classes : {"unseen", "fold", "seen"}, default="unseen"
        The classes to choose among, and the rows to predict; see :func:`open_vocabulary`.

    n_jobs : int, default=None
        Number of splits that are fitted at once; None is 1, and -1 all processors.

    Returns
    -------
    predictions : OpenVocabularyPredictions
        True labels, probabilities and their labels, as metrics take them, with rows and splits.

    Raises
    ------
    ValueError
        If a split leaves fewer than two classes to choose among.

    TypeError
        If the estimator cannot be asked about other classes.

    See Also
    --------
    open_vocabulary : The same as a scorer, one number a split.
    clipcal.metrics.cross_val_calibration_error : The same for classes that are trained on.

    Examples
    --------
    >>> from clipcal import CLIPImageEncoder, LeaveClassesOut, ZeroShotCLIPClassifier, make_shapes
    >>> from clipcal.metrics import expected_calibration_error
    >>> from clipcal.model_selection import open_vocabulary_predictions
    >>> images, y = make_shapes("textures", n_per_class=4, random_state=0, return_X_y=True)
    >>> X = CLIPImageEncoder("mini").transform(images)
    >>> cv = LeaveClassesOut(n_splits=2, random_state=0)
    >>> said = open_vocabulary_predictions(ZeroShotCLIPClassifier("mini"), X, y, cv=cv)
    >>> said.y_prob.shape
    (56, 14)
    >>> error = expected_calibration_error(said.y_true, said.y_prob, labels=said.labels)
    >>> 0 < error < 0.5
    True
    """
    X, y, groups = indexable(X, plain_labels(y), plain_labels(groups))
    truth = column_or_1d(y)
    labels = np.unique(truth)
    splitter = LeaveClassesOut() if cv is None else check_cv(cv, truth, classifier=True)
    every_row = np.arange(len(truth))
    # An iterable of splits may hold masks.
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
    """Fit on one part; return the rows of the other that qualify, and their probabilities."""
    estimator.fit(_safe_indexing(X, train), y[train])
    rows, offered = rows_and_classes(estimator, y[test], classes)
    known, answers = class_probabilities(estimator_for(estimator, offered), _safe_indexing(X, test[rows]))
    prob = np.zeros((len(rows), len(labels)))
    prob[:, np.searchsorted(labels, known)] = answers
    return test[rows], prob
