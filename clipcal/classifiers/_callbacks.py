"""What the user and scikit-learn's callbacks are told of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from sklearn.callback import CallbackSupportMixin

from clipcal._progress import progress_bar

__all__ = ["FitReport"]


class FitReport:
    """Shows the progress of one fit, and calls the hooks of the estimator's callbacks.

    Used as a context, which it leaves with the bar closed, whatever happened.

    Parameters
    ----------
    estimator : estimator with callback support
        The one that is being fitted.
    X, y : training data
        What scoring callbacks score.
    sample_weight : ndarray or None
        Weights that scoring callbacks use.
    max_epochs : int
        How many epochs there may be.
    state : callable
        Gives the fitted attributes that prediction needs, as of now.
    description : str or None
        What stands before the progress bar; None shows none.
    """

    def __init__(
        self,
        estimator: CallbackSupportMixin,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        max_epochs: int,
        state: Callable[[], dict[str, Any]],
        description: str | None = None,
    ) -> None:
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._data = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._state = state
        self._fit = estimator._init_callback_context(max_subtasks=max_epochs)
        self._fit.call_on_fit_task_begin(**self._data)
        self._bar = progress_bar(
            shown=description is not None, description=description or "", unit="epoch", total=max_epochs
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def epoch(self, record: dict[str, float]) -> bool:
        """Report an epoch; return whether a callback wants the fit to end."""
        self._bar.set_postfix({name: f"{record[name]:.3g}" for name in ("loss", "accuracy")}, refresh=False)
        self._bar.update()
        epoch = self._fit.subcontext(task_name="epoch")
        epoch.call_on_fit_task_begin(**self._data)
        return epoch.call_on_fit_task_end(**self._data, reconstruction_attributes=self._state)

    def end(self) -> None:
        """Report the end of the fit."""
        self._fit.call_on_fit_task_end(**self._data, reconstruction_attributes=self._state)
