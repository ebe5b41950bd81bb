"""Run a plan undisturbed, and again with kill -9 at random moments, and compare all results and tables."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from clipcal.benchmark import read_results, write_report

# Time until the first fit of a run starts, which each killed run needs again.
START_SECONDS = 15.0


def command(plan: Path, folder: Path, n_jobs: int) -> list[str]:
    script = "import sys; from clipcal.cli import main; sys.exit(main(sys.argv[1:]))"
    return [
        sys.executable,
        "-c",
        script,
        "bench",
        str(plan),
        "--out",
        str(folder),
        "--n-jobs",
        str(n_jobs),
        "-q",
    ]


def start(plan: Path, folder: Path, n_jobs: int) -> subprocess.Popen:
    # In a session of its own, so that its worker processes can be killed with it.
    return subprocess.Popen(command(plan, folder, n_jobs), start_new_session=True, stdout=subprocess.DEVNULL)


def disturb(plan: Path, folder: Path, n_jobs: int, n_kills: int, seconds: float, seed: int) -> list[int]:
    """Kill runs at random moments; return the number of complete cells after each."""
    draw = random.Random(seed)
    complete = []
    while len(complete) < n_kills:
        process = start(plan, folder, n_jobs)
        try:
            process.wait(timeout=draw.uniform(0, 2) * (seconds / n_kills / 1.5 + START_SECONDS))
            raise SystemExit(f"the run was complete after {len(complete)} kills; use fewer")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        complete.append(len(list((folder / "cells").glob("*.json"))))
    return complete


def content(folder: Path) -> dict[str, bytes]:
    """Return the files that do not depend on the time: cells, plan and tables."""
    report = write_report(folder)
    files = [folder / "plan.json", *(folder / "cells").iterdir(), *report.rglob("*.*")]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.name != "runs.csv"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("folder", type=Path, help="empty folder for both results")
    parser.add_argument("--n-kills", type=int, default=20)
    parser.add_argument("--n-jobs", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    whole, killed = options.folder / "whole", options.folder / "killed"
    status = start(options.plan, whole, options.n_jobs).wait()
    seconds = time.monotonic() - began
    print(
        f"undisturbed: {len(read_results(whole).cells)} cells in {seconds:.0f} s, exit status {status}",
        flush=True,
    )
    complete = disturb(options.plan, killed, options.n_jobs, options.n_kills, seconds, options.seed)
    print(f"complete cells after each of {len(complete)} kills: {complete}", flush=True)
    status = start(options.plan, killed, options.n_jobs).wait()
    first, second = content(whole), content(killed)
    different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    print(
        f"last run: exit status {status}; {len(first)} files compared, "
        f"{len(different)} differ {different[:3]}"
    )


if __name__ == "__main__":
    main()
