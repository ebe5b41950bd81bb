"""Benchmarks: plans, their runs, tables and reports."""

from clipcal.benchmark._cells import Cell, Fit, expand
from clipcal.benchmark._cost import CostEstimate, estimate_cost
from clipcal.benchmark._engines import DaskEngine, Engine, LocalEngine
from clipcal.benchmark._evaluation import evaluation_plan, format_summaries
from clipcal.benchmark._fit import measure
from clipcal.benchmark._plan import PROTOCOLS, Entry, Plan, load_plan
from clipcal.benchmark._report import write_report
from clipcal.benchmark._results import Predictions, Results, read_results
from clipcal.benchmark._run import RunSummary, run_plan

__all__ = [
    "PROTOCOLS",
    "Cell",
    "CostEstimate",
    "DaskEngine",
    "Engine",
    "Entry",
    "Fit",
    "LocalEngine",
    "Plan",
    "Predictions",
    "Results",
    "RunSummary",
    "estimate_cost",
    "evaluation_plan",
    "expand",
    "format_summaries",
    "load_plan",
    "measure",
    "read_results",
    "run_plan",
    "write_report",
]
