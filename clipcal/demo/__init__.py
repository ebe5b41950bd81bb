"""The demo: all methods on generated tasks, and whether the claims of the DOR paper hold there."""

from clipcal.demo._cells import Cell, CellResult, run_cell
from clipcal.demo._claims import check_claims
from clipcal.demo._run import run_demo
from clipcal.demo._tables import format_claims, format_table, write_csv

__all__ = [
    "Cell",
    "CellResult",
    "check_claims",
    "format_claims",
    "format_table",
    "run_cell",
    "run_demo",
    "write_csv",
]
