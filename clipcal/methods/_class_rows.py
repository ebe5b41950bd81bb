"""Learners with one row of parameters for each training class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from clipcal.methods._frozen_text import FrozenTextLearner
from clipcal.text import name_key
from clipcal.training import Prompts, TuningProblem

__all__ = ["ClassRowLearner", "check_distinct"]


class ClassRowLearner(FrozenTextLearner):
    """Learner with one row of parameters for each training class, found by the name of the class.

    Other names have no row. A subclass defines their features, such as the zero-shot features.

    Parameters
    ----------
    problem : TuningProblem
        The tuning problem.
    template : str or sequence of str
        Template of the zero-shot features; see :func:`clipcal.text.find_templates`.
    normalize : bool, default=False
        Whether the zero-shot features are normalized.
    """

    tunes_other_names = False

    def __init__(
        self, problem: TuningProblem, template: str | Sequence[str], *, normalize: bool = False
    ) -> None:
        super().__init__(problem, template, normalize=normalize)
        self.names = list(problem.names)
        self.row_of = {name_key(name): row for row, name in enumerate(self.names)}

    @property
    def supports_new_classes(self) -> bool:  # type: ignore[override]
        """Whether each name has one row, so that the rows can be found by name."""
        return len(self.row_of) == len(self.names)

    def prompts(self, names: Sequence[str]) -> Prompts:
        """Return the tokenized names with their zero-shot features and rows, -1 for other names."""
        prompts = super().prompts(names)
        row = torch.tensor(self.rows_of(names), device=prompts.tokens.device)
        return replace(prompts, extra={**prompts.extra, "row": row})

    def rows_of(self, names: Sequence[str]) -> list[int]:
        """Return the row of each name, -1 for names that are no training classes."""
        if list(names) == self.names:
            return list(range(len(names)))
        return [self.row_of.get(name_key(name), -1) for name in names]

    def with_rows(self, prompts: Prompts, parameters: Tensor, others: Tensor) -> Tensor:
        """Return the row of each prompt, or the corresponding row of `others` if the name has none."""
        row = prompts.extra["row"][:, None]
        return torch.where(row < 0, others, parameters[row[:, 0].clamp(min=0)])

    def for_names(self, names: Sequence[str]) -> Self:
        """Return the learner itself; raises ValueError if training classes share a name."""
        check_distinct(self.names)
        return self


def check_distinct(names: Sequence[str]) -> None:
    """Raise a ValueError if training classes share a name, by which their parameters are found."""
    shared = [name for name, count in Counter(map(name_key, names)).items() if count > 1]
    if shared:
        name = next(name for name in names if name_key(name) == shared[0])
        raise ValueError(
            f"Several training classes have the name {name!r}, so it is ambiguous which of their parameters "
            "belong to it; fit with different names to use with_classes."
        )
