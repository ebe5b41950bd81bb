"""Check of the claims of the DOR paper, and one of the fast recipe, on results of the demo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clipcal.demo._cells import (
    COOP,
    COOP_DOR,
    COOP_TEMPERATURE,
    FAST_COOP,
    KGCOOP,
    MAPLE,
    MAPLE_DOR,
    ZERO_SHOT,
    Cell,
    CellResult,
)
from clipcal.metrics import harmonic_mean

__all__ = ["Claim", "check_claims"]

Row = dict[tuple[str, str], CellResult]  # (method, half) -> result, within one cell


@dataclass(frozen=True)
class Claim:
    """A claim and its results over cells.

    Attributes
    ----------
    text : str
        The claim.
    measure : str
        Description of the value computed in each cell.
    mean, spread : float
        Mean and standard deviation over cells, as fractions.
    n_agreeing, n_cells : int
        Number of cells in which the claim holds, and number of all cells.
    bound : float
        The claim holds for values above this bound.
    """

    text: str
    measure: str
    mean: float
    spread: float
    n_agreeing: int
    n_cells: int
    bound: float

    @property
    def verdict(self) -> str:
        """``holds`` (``fails``) if the mean is two standard errors above (below) the bound, else ``open``.

        A single cell has no standard error, so the verdict is ``open``.
        """
        if self.n_cells < 2:
            return "open"
        error = 2 * self.spread / np.sqrt(self.n_cells)
        if self.mean - error > self.bound:
            return "holds"
        return "fails" if self.mean + error < self.bound else "open"


def _gap(row: Row, method: str, half: str) -> float:
    return row[method, half].confidence - row[method, half].accuracy


def _harmonic_accuracy(row: Row, method: str) -> float:
    return harmonic_mean(row[method, "base"].accuracy, row[method, "new"].accuracy)


_CLAIMS: list[tuple[str, str, Callable[[Row], float], float]] = [
    (
        "Zero-shot is roughly calibrated (here: ECE at most 0.08)",
        "minus its ECE, mean of base and new",
        lambda row: -(row[ZERO_SHOT, "base"].ece + row[ZERO_SHOT, "new"].ece) / 2,
        -0.08,
    ),
    (
        "CoOp is overconfident on new classes",
        "confidence - accuracy of CoOp, new",
        lambda row: _gap(row, COOP, "new"),
        0.0,
    ),
    (
        "KgCoOp is less confident than accurate on base classes",
        "accuracy - confidence of KgCoOp, base",
        lambda row: -_gap(row, KGCOOP, "base"),
        0.0,
    ),
    (
        "DOR lowers CoOp's ECE on new classes",
        "ECE of CoOp - ECE of CoOp + DOR, new",
        lambda row: row[COOP, "new"].ece - row[COOP_DOR, "new"].ece,
        0.0,
    ),
    (
        "DOR costs CoOp less than 0.01 of base accuracy",
        "accuracy of CoOp + DOR - accuracy of CoOp, base",
        lambda row: row[COOP_DOR, "base"].accuracy - row[COOP, "base"].accuracy,
        -0.01,
    ),
    (
        "DOR costs CoOp less than 0.01 of harmonic-mean accuracy",
        "harmonic mean of CoOp + DOR - harmonic mean of CoOp",
        lambda row: _harmonic_accuracy(row, COOP_DOR) - _harmonic_accuracy(row, COOP),
        -0.01,
    ),
    (
        "A temperature fitted on base classes leaves new classes worse calibrated than DOR does",
        "ECE of CoOp + temperature - ECE of CoOp + DOR, new",
        lambda row: row[COOP_TEMPERATURE, "new"].ece - row[COOP_DOR, "new"].ece,
        0.0,
    ),
    (
        "DOR lowers MaPLe's ECE on new classes",
        "ECE of MaPLe - ECE of MaPLe + DOR, new",
        lambda row: row[MAPLE, "new"].ece - row[MAPLE_DOR, "new"].ece,
        0.0,
    ),
    (
        "The fast recipe lowers CoOp's ECE on new classes without a regularizer",
        "ECE of CoOp - ECE of CoOp, fast, new",
        lambda row: row[COOP, "new"].ece - row[FAST_COOP, "new"].ece,
        0.0,
    ),
]


def check_claims(results: Sequence[CellResult]) -> list[Claim]:
    """Check each claim over all cells.

    Parameters
    ----------
    results : sequence of CellResult
        Results of all methods in all cells.

    Returns
    -------
    claims : list of Claim
        All claims, with their results.
    """
    rows: dict[Cell, Row] = {}
    for result in results:
        rows.setdefault(result.cell, {})[result.method, result.half] = result
    claims = []
    for text, measure, value, bound in _CLAIMS:
        values = np.array([value(row) for row in rows.values()])
        claims.append(
            Claim(
                text=text,
                measure=measure,
                mean=float(values.mean()),
                spread=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
                n_agreeing=int((values > bound).sum()),
                n_cells=len(values),
                bound=bound,
            )
        )
    return claims
