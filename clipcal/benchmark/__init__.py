"""Benchmarks: plans, their runs, tables and reports."""

from clipcal.benchmark._results import Results, read_results

__all__ = ["Results", "read_results"]
