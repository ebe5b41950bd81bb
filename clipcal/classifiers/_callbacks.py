"""Progress bar and scikit-learn callbacks of ``fit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

from sklearn.callback import CallbackSupportMixin
from sklearn.callback import with_callbacks as _sklearn_with_callbacks

from clipcal._progress import end_early, progress_bar

__all__ = ["FitReport", "with_callbacks"]

_Fit = TypeVar("_Fit", bound=Callable[..., Any])


def with_callbacks(fit: _Fit) -> _Fit:
    """Decorate ``fit`` to finish its callbacks; typed."""
    return _sklearn_with_callbacks(fit)


class FitReport:
    """Context manager that shows the progress of a fit and calls the callbacks of the estimator.

    The progress bar is closed on exit, also after an error.

    Parameters
    ----------
    estimator : estimator with callback support
        The estimator being fitted.
    X, y : training data
        Data passed to scoring callbacks.
    sample_weight : ndarray or None
        Sample weights passed to scoring callbacks.
    max_epochs : int
        Maximum number of epochs.
    state : callable
        Returns the current values of the fitted attributes needed for prediction.
    description : str or None
        Text before the progress bar. If None, no bar is shown.
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
        self._history: list[dict[str, float]] = []
        self._fit = estimator._init_callback_context(max_subtasks=max_epochs)
        self._fit.call_on_fit_task_begin(**self._data)
        self._bar = progress_bar(
            shown=description is not None, description=description or "", unit="epoch", total=max_epochs
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:  # a callback may have ended the training before its last epoch
            end_early(self._bar)
        self._bar.close()

    def epoch(self, record: dict[str, float]) -> bool:
        """Report the end of an epoch, and return whether a callback requests to stop."""
        self._history.append(record)
        self._bar.set_postfix({name: f"{record[name]:.3g}" for name in ("loss", "accuracy")}, refresh=False)
        self._bar.update()
        epoch = self._fit.subcontext(task_name="epoch")
        epoch.call_on_fit_task_begin(**self._data)
        return epoch.call_on_fit_task_end(
            **self._data, reconstruction_attributes=lambda: {**self._state(), "history_": self._history[:]}
        )

    def end(self) -> None:
        """Report the end of the fit."""
        self._fit.call_on_fit_task_end(**self._data, reconstruction_attributes=self._state)
