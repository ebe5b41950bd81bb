"""Callback that stops training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from numpy.typing import ArrayLike
from sklearn.metrics import check_scoring

from clipcal._compat import Interval, validate_params
from clipcal.metrics import nll_scorer

__all__ = ["EarlyStopping"]


@dataclass
class _Run:
    """State of one fit."""

    scorer: Callable[..., float]
    X: Any
    scores: list[float] = field(default_factory=list)
    best_epoch: int = 0
    best_estimator: Any = None


class EarlyStopping:
    """Callback that stops training when a score on validation data no longer improves.

    Parameters
    ----------
    X : images or embeddings
        Validation data, not used for training. Images are encoded once per ``fit``.
    y : array-like of shape (n_samples,)
        Labels of `X`.
    scoring : str, callable or None, default=None
        Scorer with the signature ``scoring(estimator, X, y)``, such as ``clipcal.ece_scorer``, or the name
        of a scorer of scikit-learn; higher is better. None is the negated log loss,
        :data:`clipcal.metrics.nll_scorer`.
    patience : int, default=10
        Training stops after this number of consecutive epochs without improvement.
    min_delta : float, default=0.0
        Smallest increase of the score that counts as an improvement.

    Attributes
    ----------
    scores_ : list of float
        Score after each epoch of the last ``fit``.
    best_epoch_ : int or None
        Epoch with the best score, counted from 0. None if there was no epoch.
    best_estimator_ : estimator or None
        Fitted copy of the estimator after that epoch.

    Raises
    ------
    ValueError
        If a parameter is invalid.

    See Also
    --------
    sklearn.callback.ScoringMonitor : Callback that records scores on the training data.

    Notes
    -----
    The fitted classifier has the parameters of its last epoch; ``best_estimator_`` has those of the best one.
    The learning rate schedule depends on ``max_epochs`` and not on the epoch in which training stops.

    A calibration error or log loss needs more validation data than an accuracy, and a calibrator fitted on
    the same data is optimistic. With joblib workers, such as in ``GridSearchCV(..., n_jobs=2)``, each worker
    has a copy of the callback, so that the attributes are not set in the main process.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier, make_shapes
    >>> from clipcal.classifiers import EarlyStopping
    >>> X, y = make_shapes("textures", n_per_class=6, random_state=0, return_X_y=True)
    >>> held_out = [i % 3 == 0 for i in range(len(y))]
    >>> training = [not held for held in held_out]
    >>> stopping = EarlyStopping(X[held_out], y[held_out], patience=2)
    >>> clf = PromptTunedCLIPClassifier("mini", max_epochs=5, random_state=0).set_callbacks(stopping)
    >>> clf = clf.fit(X[training], y[training])
    >>> len(stopping.scores_) == len(clf.history_)
    True
    """

    @validate_params(
        {
            "scoring": [str, callable, None],
            "patience": [Interval(Integral, 1, None, closed="left")],
            "min_delta": [Interval(Real, 0, None, closed="left")],
        }
    )
    def __init__(
        self,
        X: Any,
        y: ArrayLike,
        *,
        scoring: str | Callable[..., float] | None = None,
        patience: int = 10,
        min_delta: float = 0.0,
    ) -> None:
        self.X = X
        self.y = y
        self.scoring = scoring
        self.patience = patience
        self.min_delta = min_delta
        # By estimator, since clones of an estimator share its callbacks and may be fitted in threads.
        self._runs: dict[Any, _Run] = {}

    def setup(self, estimator: Any, context: Any) -> None:
        """Prepare for a fit."""
        scorer = check_scoring(estimator, nll_scorer if self.scoring is None else self.scoring)
        self._runs[estimator] = _Run(scorer, self.X)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> bool:
        """Score the estimator after an epoch, and return whether training should stop."""
        if context.task_name != "epoch":
            return False
        run = self._runs[estimator]
        if not run.scores:
            run.X = fitted_estimator.encode(run.X)
        run.scores.append(float(run.scorer(fitted_estimator, run.X, self.y)))
        epoch = len(run.scores) - 1
        best = run.scores[run.best_epoch]
        # A score that is not a number is worse than any number.
        if epoch == 0 or run.scores[epoch] > (-math.inf if math.isnan(best) else best + self.min_delta):
            run.best_epoch = epoch
            run.best_estimator = fitted_estimator.set_callbacks()
        return epoch - run.best_epoch >= self.patience

    def teardown(self, estimator: Any, context: Any) -> None:
        """Set the attributes."""
        run = self._runs.pop(estimator, None)
        if run is not None:  # None if setup failed
            self.scores_ = run.scores
            self.best_epoch_ = run.best_epoch if run.scores else None
            self.best_estimator_ = run.best_estimator
