"""Scores of classifiers on classes that they were not fitted on."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.utils import column_or_1d
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from clipcal._arrays import plain_labels
from clipcal._compat import (
    StrOptions,
    _check_method_params,
    _num_samples,
    _routing_enabled,
    _safe_indexing,
    validate_params,
)
from clipcal._weights import rows_that_count, take_rows

__all__ = ["CLASSES", "Classes", "estimator_for", "open_vocabulary", "rows_and_classes"]

Classes: TypeAlias = Literal["fold", "unseen", "seen"]
Scoring: TypeAlias = str | Callable[..., Any] | Mapping[str, Any] | list[str] | tuple[str, ...]

CLASSES = StrOptions({"fold", "unseen", "seen"})


@validate_params({"scorer": [str, callable, Mapping, list, tuple], "classes": [CLASSES]})
def open_vocabulary(scorer: Scoring, *, classes: Classes = "fold") -> _OpenVocabularyScorer:
    """Make a scorer that lets a classifier choose among the classes of the fold.

    Before it is scored, the classifier is asked for a copy that knows these classes
    (``with_classes``), so rows of classes that it was not fitted on count like others.

    Parameters
    ----------
    scorer : str, callable, or several of these
        What to compute: a name that scikit-learn knows, such as ``"neg_log_loss"``, or a callable
        ``scorer(estimator, X, y)`` such as :data:`clipcal.metrics.ece_scorer`. A dict of these, or a
        list of names, gives a scorer that returns a dict; the copy and its predictions are then
        computed once for all.

    classes : {"fold", "unseen", "seen"}, default="fold"
        The classes to choose among, and the rows to score.

        - "fold": all classes in `y`, all rows.
        - "unseen": those that the classifier was not fitted on, and their rows.
        - "seen": those that it was fitted on and that occur in `y`, and their rows.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, **params)``, for ``scoring=`` of scikit-learn's cross-validation and
        searches. The estimator has ``with_classes``, or is a :class:`~sklearn.pipeline.Pipeline` that
        ends with one that has, or a search over one of these. It is not changed.

        Metadata such as `sample_weight` goes to those scorers inside that requested it;
        ``set_score_request`` sets requests for all of them.

    Raises
    ------
    ValueError
        If `scorer` is a metric or no known name; in scoring, if fewer than two classes are left.

    TypeError
        In scoring, if the estimator cannot be asked about other classes.

    See Also
    --------
    LeaveClassesOut : Splits whose test parts hold unseen classes.
    open_vocabulary_predictions : What the classifiers of all splits said, in one table.

    Notes
    -----
    Where the classes to choose among are those of the estimator, it is scored as it is. In several
    entries of one ``scoring`` dict each scorer of this kind makes its own copy; wrap the dict instead.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from clipcal import CLIPImageEncoder, ZeroShotCLIPClassifier, ece_scorer, make_shapes
    >>> from clipcal import LeaveClassesOut, open_vocabulary
    >>> images, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> X = CLIPImageEncoder("mini").transform(images)
    >>> search = GridSearchCV(
    ...     ZeroShotCLIPClassifier("mini"),
    ...     {"templates": ["a photo of a {}.", "a {} texture."]},
    ...     cv=LeaveClassesOut(n_splits=2, random_state=0),
    ...     scoring=open_vocabulary({"ece": ece_scorer, "nll": "neg_log_loss"}),
    ...     refit="nll",
    ... )
    >>> sorted(search.fit(X, y).best_params_)
    ['templates']
    """
    if isinstance(scorer, Mapping):
        scorer = dict(scorer)
    for one in scorer.values() if isinstance(scorer, dict) else [scorer]:
        module = str(getattr(one, "__module__", ""))
        if inspect.isfunction(one) and module.startswith("clipcal.metrics"):
            raise ValueError(
                f"{one.__name__} is a metric, not a scorer; pass make_calibration_scorer({one.__name__})."
            )
    return _OpenVocabularyScorer(scorer, classes)


class _OpenVocabularyScorer:
    """A scorer around scorers, to which it hands another estimator and some of the rows."""

    def __init__(self, scorer: Scoring, classes: Classes) -> None:
        self._given = scorer
        self._classes = classes
        self._scorer = check_scoring(scoring=scorer)

    def __call__(self, estimator: Any, X: Any, y_true: ArrayLike, **params: Any) -> Any:
        """Score a copy of a fitted estimator that knows the classes of the fold."""
        params = {name: plain_labels(value) for name, value in params.items() if value is not None}
        if _routing_enabled():
            params = process_routing(self, "score", **params)["scorer"]["score"]
        y_true = plain_labels(y_true)
        counted = rows_that_count(params.get("sample_weight"), _num_samples(y_true))
        if counted is not None:
            # Before classes are counted, and labels looked at.
            params = _check_method_params(X, params=params, indices=counted)
            X, y_true = take_rows(counted, X, y_true)
        y = column_or_1d(y_true)
        rows, classes = rows_and_classes(estimator, y, self._classes)
        if len(rows) < len(y):
            params = _check_method_params(X, params=params, indices=rows)
            X, y = _safe_indexing(X, rows), y[rows]
        return self._scorer(estimator_for(estimator, classes), X, y, **params)

    def __repr__(self) -> str:
        return f"open_vocabulary({self._given!r}, classes={self._classes!r})"

    def set_score_request(self, **requests: bool | str | None) -> Self:
        """Set the metadata requests of the scorers inside.

        Parameters
        ----------
        **requests : bool, None or str
            See :ref:`scikit-learn's user guide <metadata_routing>`; ``sample_weight=True`` is usual.

        Returns
        -------
        self : object
        """
        # Others may use the same scorers, and their requests stay as they are.
        self._scorer = copy.deepcopy(self._scorer)
        # scikit-learn's scorer of several keeps them in this attribute, and no public way leads there.
        inside = getattr(self._scorer, "_scorers", {"": self._scorer}).values()
        for scorer in inside:
            if not hasattr(scorer, "set_score_request"):
                raise TypeError(
                    f"The scorer {scorer!r} has no set_score_request, so it cannot request metadata; make "
                    "it with sklearn.metrics.make_scorer or make_calibration_scorer."
                )
            scorer.set_score_request(**requests)
        return self

    def get_metadata_routing(self) -> MetadataRouter:
        """Return which metadata the scorers inside requested.

        Returns
        -------
        routing : MetadataRouter
        """
        return MetadataRouter(owner=self).add(
            scorer=self._scorer, method_mapping=MethodMapping().add(caller="score", callee="score")
        )

    def _accept_sample_weight(self) -> bool:
        # scikit-learn asks each scorer of a dict this, where metadata routing is off.
        ask = getattr(self._scorer, "_accept_sample_weight", None)
        return ask() if ask else "sample_weight" in inspect.signature(self._scorer).parameters


def rows_and_classes(
    estimator: Any, y: NDArray[Any], wanted: Classes
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the rows to score and the sorted classes to choose among."""
    rows = np.arange(len(y))
    if wanted != "fold":
        check_is_fitted(estimator)
        known = np.isin(y, plain_labels(estimator.classes_))
        rows = np.flatnonzero(known if wanted == "seen" else ~known)
    classes = np.unique(y[rows])
    if len(classes) < 2:
        which = {
            "fold": "",
            "seen": " that the estimator was fitted on",
            "unseen": " that the estimator was not fitted on",
        }[wanted]
        only = f", {classes.tolist()[0]!r}" if len(classes) else ""
        raise ValueError(
            f"classes={wanted!r} needs rows of at least 2 classes{which} to choose among; {len(rows)} of the "
            f"{len(y)} rows in y qualify, of {len(classes)} class{'' if len(classes) == 1 else 'es'}{only}. "
            "Take splits from LeaveClassesOut, which holds out 2 classes at least, or give more rows."
        )
    return rows, classes


def estimator_for(estimator: Any, classes: NDArray[Any]) -> Any:
    """Return a fitted copy of an estimator, or of what wraps it, for other classes."""
    if np.array_equal(plain_labels(getattr(estimator, "classes_", ())), classes):
        return estimator
    if hasattr(estimator, "with_classes"):
        # Plain Python values, which mappings of labels to names are sure to hold.
        return estimator.with_classes(classes.tolist())
    if isinstance(estimator, Pipeline):
        other = copy.copy(estimator)
        name, last = estimator.steps[-1]
        other.steps = [*estimator.steps[:-1], (name, estimator_for(last, classes))]
        return other
    if hasattr(estimator, "best_estimator_"):
        other = copy.copy(estimator)
        other.best_estimator_ = estimator_for(estimator.best_estimator_, classes)
        return other
    kind = type(estimator).__name__
    raise TypeError(
        f"{kind} has no with_classes, so it cannot choose among classes other than those it was fitted on. "
        "Use a classifier that has it, such as PromptTunedCLIPClassifier or ZeroShotCLIPClassifier, alone, "
        "as the last step of a Pipeline, or in a fitted search with refit."
    )
