"""Parameters of classifiers that replace settings of a recipe."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from clipcal._compat import Interval, StrOptions

__all__ = ["SETTINGS"]

# Constraints by parameter.
SETTINGS: dict[str, list[Any]] = {
    "max_epochs": [Interval(Integral, 0, None, closed="left"), None],
    "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"all"}), None],
    "optimizer": [StrOptions({"sgd", "adam", "adamw"}), callable, None],
    "momentum": [Interval(Real, 0, 1, closed="left"), None],
    "weight_decay": [Interval(Real, 0, None, closed="left"), None],
    "schedule": [StrOptions({"cosine", "constant"}), None],
    "warmup_epochs": [Interval(Integral, 0, None, closed="left"), None],
    "warmup_rate": [Interval(Real, 0, None, closed="left"), None],
    "drop_last": ["boolean", None],
    "early_stopping": ["boolean", None],
}
