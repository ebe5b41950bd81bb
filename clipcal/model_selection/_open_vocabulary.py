"""Scorers for classifiers on unseen classes."""

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
    """Make a scorer that evaluates a classifier on the classes of the fold.

    The scorer calls ``with_classes`` of the classifier to get a copy for these classes, and scores the copy.
    Rows of unseen classes can therefore be predicted.

    Parameters
    ----------
    scorer : str, callable, list or dict
        The score to compute: a scorer name of scikit-learn, such as ``"neg_log_loss"``, or a callable
        ``scorer(estimator, X, y)``, such as :data:`clipcal.metrics.ece_scorer`. With a list of names or a
        dict of names and callables, the scorer returns a dict, and the copy and its predictions are
        computed once for all scores.

    classes : {"fold", "unseen", "seen"}, default="fold"
        The candidate classes and the rows to score.

        - "fold": all classes in `y`, and all rows.
        - "unseen": the classes in `y` on which the classifier was not fitted, and their rows.
        - "seen": the classes in `y` on which the classifier was fitted, and their rows.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, **params)``, for ``scoring=`` of scikit-learn's cross-validation and
        search. The estimator must have ``with_classes``, be a :class:`~sklearn.pipeline.Pipeline` whose last
        step has it, or a search over one of these. It is not modified.

        Metadata such as `sample_weight` is routed to the inner scorers that request it;
        ``set_score_request`` sets the requests of all inner scorers.

    Raises
    ------
    ValueError
        If `scorer` is a metric or an unknown name; in scoring, if there are fewer than two classes.

    TypeError
        In scoring, if the estimator does not support ``with_classes``.

    See Also
    --------
    LeaveClassesOut : Splits whose test parts have unseen classes.
    open_vocabulary_predictions : Pooled predictions of the classifiers of all splits.

    Notes
    -----
    If the candidate classes are the classes of the estimator, the estimator itself is scored. Each of
    several such scorers in a ``scoring`` dict makes its own copy; pass the dict to this function instead.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from clipcal import CLIPImageEncoder, ZeroShotCLIPClassifier, ece_scorer, make_shapes
    >>> from clipcal import LeaveClassesOut, open_vocabulary
    >>> images, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> X = CLIPImageEncoder("mini").transform(images)
    >>> search = GridSearchCV(
    ...     ZeroShotCLIPClassifier("mini"),
    ...     {"template": ["a photo of a {}.", "a {} texture."]},
    ...     cv=LeaveClassesOut(n_splits=2, random_state=0),
    ...     scoring=open_vocabulary({"ece": ece_scorer, "nll": "neg_log_loss"}),
    ...     refit="nll",
    ... )
    >>> sorted(search.fit(X, y).best_params_)
    ['template']
    """
    if isinstance(scorer, Mapping):
        scorer = dict(scorer)
    for one in scorer.values() if isinstance(scorer, dict) else [scorer]:
        module = str(getattr(one, "__module__", ""))
        if inspect.isfunction(one) and module.startswith("clipcal.metrics"):
            raise ValueError(
                f"{one.__name__} is a metric, not a scorer. Pass make_calibration_scorer({one.__name__})."
            )
    return _OpenVocabularyScorer(scorer, classes)


class _OpenVocabularyScorer:
    """A scorer that passes a copy of the estimator for other classes, and some rows, to inner scorers."""

    def __init__(self, scorer: Scoring, classes: Classes) -> None:
        self._given = scorer
        self._classes = classes
        self._scorer = check_scoring(scoring=scorer)

    def __call__(self, estimator: Any, X: Any, y_true: ArrayLike, **params: Any) -> Any:
        """Score a copy of a fitted estimator for the classes of the fold."""
        params = {name: plain_labels(value) for name, value in params.items() if value is not None}
        if _routing_enabled():
            params = process_routing(self, "score", **params)["scorer"]["score"]
        y_true = plain_labels(y_true)
        counted = rows_that_count(params.get("sample_weight"), _num_samples(y_true))
        if counted is not None:
            # Drop rows of weight zero first: their labels may be invalid.
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
        """Set the metadata requests of the inner scorers.

        Parameters
        ----------
        **requests : bool, None or str
            Requests such as ``sample_weight=True``; see :ref:`scikit-learn's user guide <metadata_routing>`.

        Returns
        -------
        self : object
        """
        # The inner scorers may be used elsewhere, so their own requests must not change.
        self._scorer = copy.deepcopy(self._scorer)
        # scikit-learn's multi-metric scorer has no public attribute for its scorers.
        inside = getattr(self._scorer, "_scorers", {"": self._scorer}).values()
        for scorer in inside:
            if not hasattr(scorer, "set_score_request"):
                raise TypeError(
                    f"The scorer {scorer!r} has no set_score_request, so it cannot request metadata. Create "
                    "it with sklearn.metrics.make_scorer or make_calibration_scorer."
                )
            scorer.set_score_request(**requests)
        return self

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the metadata requests of the inner scorers.

        Returns
        -------
        routing : MetadataRouter
        """
        return MetadataRouter(owner=self).add(
            scorer=self._scorer, method_mapping=MethodMapping().add(caller="score", callee="score")
        )

    def _accept_sample_weight(self) -> bool:
        # scikit-learn calls this for each scorer of a dict if metadata routing is disabled.
        ask = getattr(self._scorer, "_accept_sample_weight", None)
        return ask() if ask else "sample_weight" in inspect.signature(self._scorer).parameters


def rows_and_classes(
    estimator: Any, y: NDArray[Any], wanted: Classes
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the rows to score and the sorted candidate classes."""
    rows = np.arange(len(y))
    if wanted != "fold":
        check_is_fitted(estimator)
        known = np.isin(y, plain_labels(estimator.classes_))
        rows = np.flatnonzero(known if wanted == "seen" else ~known)
    classes = np.unique(y[rows])
    if len(classes) < 2:
        which = {
            "fold": "",
            "seen": " on which the estimator was fitted",
            "unseen": " on which the estimator was not fitted",
        }[wanted]
        only = f", {classes.tolist()[0]!r}" if len(classes) else ""
        raise ValueError(
            f"classes={wanted!r} needs rows of at least 2 classes{which}; {len(rows)} of the "
            f"{len(y)} rows in y qualify, of {len(classes)} class{'' if len(classes) == 1 else 'es'}{only}. "
            "Use splits of LeaveClassesOut, which holds out at least 2 classes, or pass more rows."
        )
    return rows, classes


def estimator_for(estimator: Any, classes: NDArray[Any]) -> Any:
    """Return a fitted copy of an estimator, pipeline or search for other classes."""
    if np.array_equal(plain_labels(getattr(estimator, "classes_", ())), classes):
        return estimator
    if hasattr(estimator, "with_classes"):
        # Convert to Python values: these are the keys of mappings from labels to class names.
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
        f"{kind} has no with_classes, so it cannot predict classes on which it was not fitted. "
        "Use a classifier that has it, such as PromptTunedCLIPClassifier or ZeroShotCLIPClassifier, alone, "
        "as the last step of a Pipeline, or in a fitted search with refit."
    )
