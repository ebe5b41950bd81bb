"""Time fits, encoding, the tests and the demo on an idle machine and next to four busy processes.

    python benchmarks/speed/busy.py
    python benchmarks/speed/busy.py --what fit encode quick-demo tests demo --rounds 1
    python benchmarks/speed/busy.py --package ../other-checkout

Two of the four processes compute with torch and its default threads, two are loops in Python. `loop` is such
a loop with a fixed amount of work: its slow-down shows the share of the cores that a single thread gets. A
fit in one thread slows down by the same factor, and a fit whose threads wait for each other by much more.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paired import report

ROOT = Path(__file__).parents[2]

BUSY = [
    "while True: pass",
    "while True: pass",
    "import torch; a = torch.randn(300, 300)\nwhile True: torch.tanh(a @ a)",
    "import torch; a = torch.randn(300, 300)\nwhile True: torch.tanh(a @ a)",
]

SETUP = """
import time, warnings
import numpy as np
from clipcal import CLIPImageEncoder, CoOp, PromptTunedCLIPClassifier, make_shapes
from clipcal.backbones import open_backbone
from clipcal.methods import zero_shot_features
from clipcal.text import load_nouns
images, y = make_shapes("colors", domain="street", n_per_class=16, random_state=0, return_X_y=True)
"""
SNIPPETS = {
    "loop": "total = 0\nstart = time.perf_counter()\nfor i in range(20_000_000): total += i",
    "fit": """
X = CLIPImageEncoder("mini").transform(images)
few = np.isin(y, np.unique(y)[:15])
clf = PromptTunedCLIPClassifier("mini", method=CoOp(None), recipe="original", max_epochs=1, random_state=0)
clf.fit(X[few], y[few])
start = time.perf_counter()
clf.set_params(max_epochs=20).fit(X[few], y[few])""",
    "encode images": """
backbone = open_backbone("mini")
CLIPImageEncoder(backbone).transform(images[:64])
start = time.perf_counter()
for _ in range(4): CLIPImageEncoder(backbone).transform(images)""",
    "encode nouns": """
backbone, nouns = open_backbone("mini"), load_nouns()[:20_000]
zero_shot_features(backbone, nouns[:600], "a photo of a {}.", skip_long=True)
start = time.perf_counter()
zero_shot_features(backbone, nouns, "a photo of a {}.", skip_long=True)""",
}


ROWS = {
    "fit": ["fit"],
    "encode": ["encode images", "encode nouns"],
    "tests": ["fast tests"],
    "demo": ["demo"],
    "quick-demo": ["quick demo"],
}


def main() -> None:
    """Time the selected rows, idle and busy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", nargs="+", default=["fit", "encode"], choices=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--package", type=Path, default=ROOT, help="checkout whose clipcal is measured")
    parser.add_argument("--name", default="busy", help="name of the result file")
    options = parser.parse_args()
    records = []
    for name in ["loop", *(row for key in options.what for row in ROWS[key])]:
        quiet = [seconds(name, options.package) for _ in range(options.rounds)]
        with busy_processes():
            busy = [seconds(name, options.package) for _ in range(options.rounds)]
        row = {"what": name, "quiet": statistics.median(quiet), "busy": statistics.median(busy)}
        records.append(row | {"busy / quiet": row["busy"] / row["quiet"], "rounds": options.rounds})
        print(records[-1], flush=True)
    report(options.name, records)


@contextmanager
def busy_processes() -> Iterator[None]:
    """Run the four busy processes within the context."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for code in BUSY]
    try:
        time.sleep(8)  # wait until torch is imported
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()


def seconds(name: str, package: Path) -> float:
    """Time one row in a subprocess, with the default number of threads."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(package.resolve())
    if name in SNIPPETS:
        code = f"{SETUP}\n{SNIPPETS[name]}\nprint(time.perf_counter() - start)"
        command = [sys.executable, "-W", "ignore", "-c", code]
        run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return float(run.stdout.split()[-1])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        if name.endswith("demo"):
            arguments = ["demo", "--out", folder, *(["--quick"] if name.startswith("quick") else [])]
            command = [sys.executable, "-c", f"from clipcal.cli import main; main({arguments!r})"]
        start = time.perf_counter()
        subprocess.run(command, env=environment, cwd=package, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
