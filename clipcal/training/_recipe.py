"""Training settings of methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any, Self

import torch

from clipcal.training._schedule import SCHEDULES

__all__ = ["OPTIMIZERS", "Recipe"]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@dataclass(frozen=True)
class Recipe:
    """The settings of one training run.

    Parameters
    ----------
    max_epochs : int, default=200
        Number of passes through the data.
    learning_rate : float, default=0.002
        Highest learning rate.
    batch_size : int or "all", default=32
        Number of samples per step.
    optimizer : {"sgd", "adam", "adamw"} or callable, default="sgd"
        Optimizer. A callable, such as a class of :mod:`torch.optim`, is called with a list of parameter
        groups (dictionaries with ``"params"``), ``lr``, ``weight_decay`` and `optimizer_options`.
    momentum : float, default=0.9
        Momentum of SGD. Other optimizers do not use it.
    weight_decay : float, default=5e-4
        Weight decay, decoupled for AdamW and otherwise added to the gradient, as in torch.
    schedule : {"cosine", "constant"}, default="cosine"
        Learning rate schedule after the warm-up; see :func:`clipcal.training.cosine_with_warmup` and
        :func:`clipcal.training.constant_with_warmup`.
    warmup_epochs : int, default=1
        Number of warm-up epochs.
    warmup_rate : float, default=1e-5
        Learning rate of all parameters in the warm-up epochs.
    drop_last : bool, default=True
        Whether an incomplete last batch is dropped.
    early_stopping : bool, default=False
        Whether the number of epochs, at most `max_epochs`, is chosen on held-out training data.
    optimizer_options : mapping, default={}
        Other arguments of the optimizer, such as ``{"eps": 1e-3}`` for Adam. They are dropped if another
        optimizer is set.
    method_params : mapping, default={}
        Parameters of the method that are part of the recipe. They are used if the method is given by name.

    Raises
    ------
    ValueError
        If the optimizer or the schedule is unknown, or a number is out of range.

    Examples
    --------
    >>> from clipcal.training import Recipe
    >>> Recipe(batch_size=128).with_values(max_epochs=10, momentum=None).max_epochs
    10
    """

    max_epochs: int = 200
    learning_rate: float = 0.002
    batch_size: int | str = 32
    optimizer: str | Callable[..., torch.optim.Optimizer] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: int = 1
    warmup_rate: float = 1e-5
    drop_last: bool = True
    early_stopping: bool = False
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    method_params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.optimizer) and self.optimizer not in OPTIMIZERS:
            known = ", ".join(map(repr, OPTIMIZERS))
            raise ValueError(f"optimizer must be one of {known} or a callable, got {self.optimizer!r}.")
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule must be one of {', '.join(map(repr, SCHEDULES))}, got {self.schedule!r}."
            )
        lowest = {"max_epochs": 0, "batch_size": 1, "warmup_epochs": 0}
        for name, low in lowest.items():
            value = getattr(self, name)
            if name == "batch_size" and value == "all":
                continue
            if not isinstance(value, Integral) or value < low:
                other = " or 'all'" if name == "batch_size" else ""
                raise ValueError(f"{name} must be an integer of at least {low}{other}, got {value!r}.")

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the settings that are parameters of classifiers."""
        own = {"optimizer_options", "method_params"}
        return [item.name for item in fields(cls) if item.name not in own]

    def with_values(self, **values: Any) -> Self:
        """Return a copy with new values. Values that are None are ignored."""
        given = {name: value for name, value in values.items() if value is not None}
        if given.get("optimizer", self.optimizer) != self.optimizer:
            given = {"optimizer_options": {}, **given}
        return replace(self, **given)

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain values, with the name of the optimizer if it is a callable.

        The momentum is None if the optimizer does not use it. ``"optimizer_options"`` is missing if there are
        none.
        """
        settings = {name: getattr(self, name) for name in self.names()}
        if self.optimizer_options:
            settings["optimizer_options"] = dict(self.optimizer_options)
        if not self.uses_momentum:
            settings["momentum"] = None
        if not isinstance(self.optimizer, str):
            settings["optimizer"] = getattr(self.optimizer, "__qualname__", repr(self.optimizer))
        return settings

    def batch_size_for(self, n_samples: int) -> int:
        """Return the number of samples per step for training data of this size."""
        return n_samples if isinstance(self.batch_size, str) else min(self.batch_size, n_samples)

    def steps_per_epoch(self, n_samples: int) -> int:
        """Return the number of steps of an epoch for training data of this size."""
        size = self.batch_size_for(n_samples)
        return n_samples // size if self.drop_last else math.ceil(n_samples / size)

    def make_optimizer(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return an optimizer for parameter groups.

        Parameters
        ----------
        groups : sequence of dict
            Parameter groups; see :meth:`Learner.parameter_groups`.
        """
        groups = [{"rate_factor": 1.0, **group} for group in groups]
        options = dict(self.optimizer_options)
        if self.uses_momentum:
            options["momentum"] = self.momentum
        made = self._optimizer(groups, lr=self.learning_rate, weight_decay=self.weight_decay, **options)
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(f"optimizer must return a torch.optim.Optimizer, got {type(made).__name__}.")
        return made

    @property
    def uses_momentum(self) -> bool:
        """Whether the optimizer has a momentum."""
        return self._optimizer is torch.optim.SGD

    @property
    def _optimizer(self) -> Callable[..., torch.optim.Optimizer]:
        return OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer

    def rates(self, rate_factor: float = 1.0) -> list[float]:
        """Return the learning rate of each epoch for a group of parameters."""
        return SCHEDULES[self.schedule](
            self.max_epochs,
            self.learning_rate * rate_factor,
            n_warmup=self.warmup_epochs,
            warmup_rate=self.warmup_rate,
        )
