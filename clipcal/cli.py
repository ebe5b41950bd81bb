"""Command line interface."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from clipcal import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="clipcal",
        description="Few-shot tuning of CLIP classifiers, and calibration of their probabilities.",
    )
    parser.add_argument("--version", action="version", version=f"clipcal {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for add_command in (_add_demo, _add_report):
        add_command(commands)
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


# Each command has a function that adds its arguments, and one that runs it and returns the exit status. The
# latter imports what it needs, so that the help of the other commands is shown at once.


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="compare all methods on generated images, offline, in minutes",
        description="Tune each method on half of the classes of generated tasks, and measure accuracy and "
        "calibration on test images of both halves.",
    )
    demo.add_argument("--out", type=Path, default=Path("clipcal-demo"), help="folder for the results")
    demo.add_argument(
        "--n-jobs", type=_n_jobs, default=-1, help="number of processes; -1, the default, uses all cores"
    )
    demo.add_argument("--quick", action="store_true", help="run one task and one seed, in less than a minute")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from clipcal.demo import run_demo

    try:
        sys.stdout.write(run_demo(options.out, n_jobs=options.n_jobs, quick=options.quick))
    except ImportError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(
            f"results cannot be written to {str(options.out)!r} ({error.strerror}). "
            "Use another folder: clipcal demo --out FOLDER"
        )
    return 0


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write the tables of benchmark results, and a page for the browser",
        description="Write averages, comparisons and tables of all data sets as Markdown, CSV and LaTeX, and "
        "one HTML page with heat maps and reliability diagrams.",
    )
    report.add_argument("results", type=Path, help="folder of benchmark results")
    report.add_argument("--out", type=Path, help="folder for the report; by default, report in RESULTS")
    report.add_argument(
        "--spread",
        choices=("std", "ci95"),
        default="std",
        help="what follows ±: the population standard deviation over seeds, or 1.96 standard errors",
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from clipcal.benchmark import write_report
    from clipcal.exceptions import ResultsError

    try:
        folder = write_report(options.results, options.out, spread=options.spread)
    except (ImportError, ResultsError) as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(
            f"the report cannot be written to {str(error.filename)!r} ({error.strerror}). "
            "Use another folder: clipcal report RESULTS --out FOLDER"
        )
    sys.stdout.write(f"{folder / 'report.html'}\n{folder / 'report.md'}\n")
    return 0


def _fail(message: str) -> NoReturn:
    """Write a message to standard error and exit with status 1."""
    sys.stderr.write(f"clipcal: {message}\n")
    raise SystemExit(1)


def _n_jobs(text: str) -> int:
    number = int(text) if text.lstrip("-").isdigit() else 0
    if number < 1 and number != -1:
        raise argparse.ArgumentTypeError(
            f"expected a number of processes, 1, 2, ..., or -1 for all cores; got {text!r}"
        )
    return number
