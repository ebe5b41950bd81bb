"""Demo, which compares all methods on generated tasks and checks the claims of the DOR paper."""

from clipcal.demo._cells import (
    COOP,
    COOP_DOR,
    COOP_TEMPERATURE,
    FAST_COOP,
    FAST_COOP_DOR,
    KGCOOP,
    KGCOOP_DOR,
    METHODS,
    N_SHOTS,
    N_TEST,
    N_VALIDATION,
    ZERO_SHOT,
    Cell,
    CellResult,
    Split,
    class_halves,
    embedded_subset,
    run_cell,
)
from clipcal.demo._claims import check_claims
from clipcal.demo._run import run_demo
from clipcal.demo._tables import format_claims, format_table, write_csv

__all__ = [
    "COOP",
    "COOP_DOR",
    "COOP_TEMPERATURE",
    "FAST_COOP",
    "FAST_COOP_DOR",
    "KGCOOP",
    "KGCOOP_DOR",
    "METHODS",
    "N_SHOTS",
    "N_TEST",
    "N_VALIDATION",
    "ZERO_SHOT",
    "Cell",
    "CellResult",
    "Split",
    "check_claims",
    "class_halves",
    "embedded_subset",
    "format_claims",
    "format_table",
    "run_cell",
    "run_demo",
    "write_csv",
]
