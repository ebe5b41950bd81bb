"""The command line: arguments only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clipcal import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="clipcal", description="Few-shot tuned CLIP classifiers that know how sure they are."
    )
    parser.add_argument("--version", action="version", version=f"clipcal {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="run all methods on generated pictures, offline, in minutes")
    demo.add_argument("--out", type=Path, default=Path("clipcal-demo"), help="folder for the results")
    demo.add_argument("--n-jobs", type=int, default=None, help="processes; default: one a core")
    options = parser.parse_args(arguments)

    from clipcal.benchmark import run_demo

    try:
        sys.stdout.write(run_demo(options.out, n_jobs=options.n_jobs))
    except ImportError as error:
        parser.exit(1, f"clipcal: {error}\n")
    return 0
