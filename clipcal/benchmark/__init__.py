"""Runs of many methods on many tasks, and what they add up to."""

from clipcal.benchmark._base_to_new import Cell, CellResult, run_cell
from clipcal.benchmark._claims import check_claims
from clipcal.benchmark._demo import run_demo
from clipcal.benchmark._tables import format_claims, format_table, write_csv

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
