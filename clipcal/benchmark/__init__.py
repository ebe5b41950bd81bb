"""Benchmarks: plans, their runs, tables and reports."""

from clipcal.benchmark._report import write_report
from clipcal.benchmark._results import Predictions, Results, read_results

__all__ = ["Predictions", "Results", "read_results", "write_report"]
