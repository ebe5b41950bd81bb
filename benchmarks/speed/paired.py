"""Time two things in one run, alternately, and keep what was measured.

A machine that others use changes its speed from minute to minute, so seconds of one run say little, but the
ratio of two things timed right after each other does. Every script of this folder goes through `compare`.
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
    """Run every contender once a round; return medians and the median of the ratios within rounds.

    Parameters
    ----------
    contenders : mapping of name to callable
        The first one is what the others are compared with.
    n_rounds : int
        How often each is timed.
    n_warmup : int, default=1
        Rounds that do not count.
    synchronize : callable
        Waits for a device that works on its own.

    Returns
    -------
    dict
        For each name ``seconds`` (the median), ``fastest``, and ``ratio``: the median over the rounds of the
        first one's seconds by this one's, so that 2 is twice as fast as the first.
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
    """Say what the figures were measured on."""
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
    """Run the calling script again with other arguments and read the JSON that it ends with.

    Peaks of memory belong to a process, so each has to be measured in its own.
    """
    command = [sys.executable, sys.argv[0], *arguments]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
