"""Time alternatives alternately in one run, and store the results.

The speed of a shared machine varies, so seconds of one run are not comparable, but ratios of times measured
right after each other are. All scripts in this folder use `compare`.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def compare(
    contenders: Mapping[str, Callable[[], object]],
    *,
    n_rounds: int,
    n_warmup: int = 1,
    synchronize: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, float]]:
    """Run each alternative once per round; return medians, and medians of the ratios within rounds.

    Parameters
    ----------
    contenders : mapping of name to callable
        The alternatives; the first one is the reference.
    n_rounds : int
        Number of rounds.
    n_warmup : int, default=1
        Number of rounds that are not timed.
    synchronize : callable
        Waits for an asynchronous device.

    Returns
    -------
    dict
        For each name ``seconds`` (the median), ``fastest``, and ``ratio``: the median over rounds of the time
        of the reference divided by that of the alternative; 2 is twice as fast as the reference.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(n_warmup + n_rounds):
        for name, run in contenders.items():
            gc.collect()
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            if round_number >= n_warmup:
                seconds[name].append(time.perf_counter() - start)
    first = next(iter(seconds.values()))
    return {
        name: {
            "seconds": statistics.median(times),
            "fastest": min(times),
            "ratio": statistics.median(a / b for a, b in zip(first, times, strict=True)),
            "rounds": n_rounds,
        }
        for name, times in seconds.items()
    }


def report(script: str, records: list[dict[str, Any]], *, results: Path = RESULTS) -> None:
    """Print records as a table and write them, with the machine, to ``results/<script>[-<device>].json``."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    rows = [[_cell(record.get(column)) for column in columns] for record in records]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    results.mkdir(exist_ok=True)
    content = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "records": records}
    on_gpu = "-cuda" if content["machine"].get("gpu") else ""
    path = results / f"{script}{on_gpu}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    import numpy
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def in_a_process(*arguments: str) -> dict[str, Any]:
    """Run the calling script with other arguments in a subprocess and parse the JSON that it prints last.

    The peak memory is measured per process, so each measurement needs its own.
    """
    command = [sys.executable, sys.argv[0], *arguments]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
