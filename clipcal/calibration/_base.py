"""Base class of all calibrators, with validation of logits, labels and weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, validate_data

from clipcal._arrays import plain_labels
from clipcal._columns import check_names
from clipcal._compat import _fit_context
from clipcal._fitting import all_or_nothing
from clipcal._logit_input import advise_of_probabilities, holds_log_odds, two_columns
from clipcal._weights import check_weight, distinct_labels

__all__ = ["CalibrationRows", "Calibrator", "as_given", "probabilities", "put_first"]

Floats = NDArray[np.float64]


class CalibrationRows(NamedTuple):
    """Validated rows to fit on; rows of weight zero are dropped."""

    logits: Floats  # (n_samples, n_classes); minus infinity marks a class that the model excludes
    true_column: NDArray[np.intp]
    weight: Floats  # number of rows that each row counts for; the mean is at least 1
    kept: NDArray[np.bool_]  # mask of these rows among the input rows


class Calibrator(TransformerMixin, BaseEstimator):
    """Base class of calibrators, which map logits of a classifier to calibrated probabilities.

    Subclasses set the class attributes below and implement ``_fit_rows`` and ``_probabilities``.

    Attributes
    ----------
    preserves_argmax : bool
        Whether the predicted classes are unchanged.

    class_agnostic : bool
        Whether the fitted calibrator can be used for classes other than those of ``fit``.

    side_inputs : tuple of str
        Additional inputs: ``"proximity"`` and ``"text_features"`` of ``fit``, ``"zero_shot_logits"`` of
        ``calibrate`` and ``transform``, or nothing.

    samples_needed : str
        Rule of thumb for the number of rows needed in ``fit``.

    Examples
    --------
    >>> from clipcal.calibration import CALIBRATORS
    >>> [name for name, calibrator in CALIBRATORS.items() if not calibrator.class_agnostic]
    ['vector', 'matrix']
    """

    side_inputs: ClassVar[tuple[str, ...]] = ()
    samples_needed: ClassVar[str]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}
    # The first argument is not metadata, although it is not called X.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"logits": UNUSED, "classes": UNUSED}
    __metadata_request__transform: ClassVar[dict[str, Any]] = {"logits": UNUSED}

    classes_: NDArray[Any]
    n_features_in_: int

    # Subclasses define these as class attributes, or as properties that depend on parameters.
    if TYPE_CHECKING:

        @property
        def preserves_argmax(self) -> bool: ...

        @property
        def class_agnostic(self) -> bool: ...

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(
        self,
        logits: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Fit on held-out rows, which were not used to train the classifier.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits, or logarithms of probabilities. Minus infinity marks a class that is excluded. A 1-D
            array holds the log-odds of the second of two classes, like a binary ``decision_function``.

        y : array-like of shape (n_samples,)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights, finite and non-negative. Rows of weight 0 are ignored.

        classes : array-like of shape (n_classes,), default=None
            The label of each column, usually ``estimator.classes_``. By default, the sorted unique
            values of `y`, which must match the number of columns.

        Returns
        -------
        self : object
            The fitted calibrator.

        Raises
        ------
        ValueError
            If the input is empty, has NaN or plus infinity, or inconsistent shapes or labels, or if the
            column names of a data frame are the classes in another order.

        Warns
        -----
        UserWarning
            If `logits` look like probabilities.
        """
        self._fit_rows(self._read_rows(logits, y, sample_weight, classes))
        return self

    def calibrate(self, logits: ArrayLike) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits of the same kind as in ``fit``. A 1-D array holds the log-odds of two classes.

        Returns
        -------
        y_prob : ndarray of shape (n_samples, n_classes)
            Rows sum to 1.
        """
        return self._probabilities(self._read_logits(logits))

    def transform(self, logits: ArrayLike) -> Floats:
        """Return calibrated logits, whose softmax is the calibrated probabilities.

        Parameters
        ----------
        logits : array-like of shape (n_samples, n_classes) or (n_samples,)
            Logits of the same kind as in ``fit``. A 1-D array holds the log-odds of two classes.

        Returns
        -------
        calibrated : ndarray of shape (n_samples, n_classes) or (n_samples,)
            Minus infinity where the probability is 0. Log-odds if the input holds log-odds.
        """
        return as_given(self._calibrated_logits(self._read_logits(logits)), logits)

    def for_classes(self, classes: ArrayLike) -> Self:
        """Return a fitted copy of this calibrator for other classes.

        Parameters
        ----------
        classes : array-like of shape (n_classes,)
            The label of each column.

        Returns
        -------
        other : object
            A fitted copy; this object is not modified.

        Raises
        ------
        ValueError
            If the calibrator has parameters for each class.
        """
        check_is_fitted(self, "classes_")
        if not self.class_agnostic:
            raise ValueError(
                f"{type(self).__name__} has parameters for each of its {len(self.classes_)} classes, so it "
                "cannot be used for other classes. Use a calibrator that can, such as TemperatureScaling()."
            )
        other = copy.copy(self)
        other.classes_ = np.array(plain_labels(classes))
        other.n_features_in_ = len(other.classes_)
        return other

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _fit_rows(self, rows: CalibrationRows) -> None:
        raise NotImplementedError

    def _probabilities(self, logits: Floats) -> Floats:
        raise NotImplementedError

    def _calibrated_logits(self, logits: Floats) -> Floats:
        return self._logarithms(self._probabilities(logits), logits)

    def _logarithms(self, prob: Floats, logits: Floats) -> Floats:
        """Return log-probabilities, with the same argmax as the logits if the calibrator preserves it."""
        with np.errstate(divide="ignore"):
            log_prob = np.log(prob)
        if self.preserves_argmax:
            put_first(log_prob, logits.argmax(axis=1))
        return log_prob

    def _read_rows(
        self, logits: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, classes: ArrayLike | None
    ) -> CalibrationRows:
        """Validate the input of ``fit``, and set ``classes_`` and ``n_features_in_``."""
        log_odds = holds_log_odds(logits)
        z = validate_data(self, two_columns(logits), dtype=np.float64, ensure_all_finite=False)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        every_label = labels = column_or_1d(plain_labels(y), warn=True)
        check_consistent_length(z, labels)
        weight = check_weight(sample_weight, len(z))
        kept = weight > 0
        if not kept.all():
            z, labels, weight = z[kept], labels[kept], weight[kept]
        _check_values(z)
        columns = _column_labels(labels, every_label, z.shape[1], classes, log_odds)
        source = "the sorted labels in y are" if classes is None else "classes says"
        check_names(logits, columns, "logits", source, option="classes")
        advise_of_probabilities(z, "logits", type(self).__name__, _cure(log_odds), log_odds=log_odds)
        position = np.argsort(columns, kind="stable")
        true_column = position[np.minimum(np.searchsorted(columns[position], labels), len(columns) - 1)]
        unknown = columns[true_column] != labels
        if unknown.any():
            raise ValueError(
                f"y holds labels that are not in classes: {np.unique(labels[unknown])[:5].tolist()!r}. "
                "Drop these rows."
            )
        excluded = np.isneginf(z[np.arange(len(z)), true_column])
        if excluded.any():
            raise ValueError(
                f"The logit of the true class is -inf in {excluded.sum()} rows, which no calibrator can "
                "correct. If these are logarithms of probabilities, replace 0 by a small probability, as "
                "CalibratedCLIPClassifier(clf, cv='prefit') does; if the class was excluded, drop the rows."
            )
        self.classes_ = columns
        # Weights count rows. Scale weights that sum to 1, for example, so that their mean is at least 1.
        weight = weight / min(1.0, float(weight.mean()))
        return CalibrationRows(z, true_column, weight, kept)

    def _read_logits(self, logits: ArrayLike, what: str = "logits") -> Floats:
        check_is_fitted(self, "classes_")
        name, n_classes, log_odds = type(self).__name__, len(self.classes_), holds_log_odds(logits)
        if log_odds and n_classes != 2:
            raise ValueError(
                f"A 1-D array holds log-odds of two classes, but this {name} has {n_classes} classes. "
                f"Reshape your data: pass {what}.reshape(1, -1) if they belong to a single sample."
            )
        # A class-agnostic calibrator may get columns of other classes, with other names.
        for labels in (self.classes_, getattr(self, "feature_names_in_", self.classes_)):
            told = f"this {name} expects them in the order"
            check_names(logits, labels, what, told, option=None, partly=not self.class_agnostic)
        values = two_columns(logits)
        if self.class_agnostic:
            z = check_array(values, dtype=np.float64, ensure_all_finite=False, input_name=what)
        else:
            z = validate_data(self, values, dtype=np.float64, ensure_all_finite=False, reset=False)
        _check_values(z, what)
        if not log_odds:  # a few log-odds may lie in [0, 1] by chance
            advise_of_probabilities(z, what, name, _cure(log_odds))
        return z


def as_given(calibrated: Floats, logits: ArrayLike) -> Floats:
    """Return log-odds if `logits` holds log-odds, and one column per class otherwise."""
    return calibrated[:, 1] - calibrated[:, 0] if holds_log_odds(logits) else calibrated


def probabilities(logits: Floats) -> Floats:
    """Return the softmax of each row; it is 0 where a logit is minus infinity."""
    return softmax(logits, axis=1)


def put_first(values: Floats, column: NDArray[np.intp]) -> None:
    """Raise the entry of `column` above all others of its row, if rounding has made it equal or smaller."""
    rows = np.arange(len(values))
    chosen = values[rows, column]
    values[rows, column] = -np.inf
    rival = values.max(axis=1)
    values[rows, column] = np.where(chosen > rival, chosen, np.nextafter(rival, np.inf))


def _check_values(logits: Floats, what: str = "logits") -> None:
    # The row maximum is NaN, plus infinity or minus infinity for the three kinds of invalid rows.
    largest = logits.max(axis=1)
    if np.isnan(largest).any() or np.isposinf(largest).any():
        raise ValueError(f"Input {what} contains NaN or infinity. Only finite values and -inf are allowed.")
    if np.isneginf(largest).any():
        raise ValueError(f"Some rows of {what} are all -inf; at least one logit per row must be finite.")


def _cure(log_odds: bool) -> str:
    return "Pass scipy.special.logit(p)" if log_odds else "Pass np.log(p)"


def _column_labels(
    y: NDArray[Any], every_label: NDArray[Any], n_columns: int, classes: ArrayLike | None, log_odds: bool
) -> NDArray[Any]:
    """Return the label of each column."""
    if classes is None:
        columns = distinct_labels(y, every_label, n_columns)
    else:
        columns = column_or_1d(plain_labels(classes))
    if len(columns) != n_columns:
        source = "y has" if classes is None else "classes has"
        labels = "one class" if len(columns) == 1 else f"{len(columns)} classes"
        if log_odds:
            raise ValueError(
                f"1-D logits are log-odds of the second of two classes, but {source} {labels}. Pass "
                "classes=[first, second], or one column for each class."
            )
        cure = "Pass one label for each column: classes=estimator.classes_."
        if n_columns == 1 and len(columns) == 2:
            cure = "If it holds the log-odds of the second class, pass logits[:, 0]."
        raise ValueError(f"logits has {n_columns} columns but {source} {labels}. {cure}")
    if len(np.unique(columns)) < n_columns:
        raise ValueError(f"classes must be distinct; got {columns.tolist()!r}.")
    return columns
