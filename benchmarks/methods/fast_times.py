"""Measure the time of fits with the recipe "fast" and with the published recipes.

    python benchmarks/methods/fast_times.py
    python benchmarks/methods/fast_times.py --table
    python benchmarks/methods/fast_times.py --page docs/results/recipes.rst

Times are processor seconds of one thread, so that other processes matter little. Both recipes of a method are
fitted in turn on the same embeddings of one run of fast.py for each kind of task. Published fits have many
equal epochs: their time is computed from fits of one epoch, and of at least two and 40 steps more. The
features of the nouns of DOR are computed before.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import fast
import torch
from fast_tables import titled
from joblib import Memory
from runs import show_tables, simple_table, write_json
from threadpoolctl import threadpool_limits

from clipcal import PromptTunedCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.demo import Split
from clipcal.methods import zero_shot_features
from clipcal.text import DEFAULT_TEMPLATE, load_nouns

RESULTS = Path(__file__).parent / "results" / "fast_times.json"
RUNS = {
    "4 images": fast.Run("colors", "street", 4, 0),
    "16 images": fast.Run("colors", "street", 16, 0),
    "64 images": fast.Run("colors", "street", 64, 0),
    fast.MANY: fast.Run(fast.MANY, "studio", 16, 0),
}
# Steps from which the time of an epoch is computed, at least.
N_STEPS = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=list(fast.TERMS), default=list(fast.TERMS))
    parser.add_argument("--kinds", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--features", help="folder where features of nouns are kept; by default a new one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of the stored results")
    parser.add_argument("--page", type=Path, help="replace the table of a page by that of the results")
    args = parser.parse_args()
    if not (args.table or args.page):
        with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
            torch.set_num_threads(1)
            write_json(args.out, {"table": measured(args, Memory(args.features or folder, verbose=0))})
    show_tables(
        {"fast times": table_of(json.loads(args.out.read_text(encoding="utf-8"))["table"])}, args.page
    )


def measured(args: argparse.Namespace, memory: Memory) -> list[dict[str, Any]]:
    """Return one row for each kind of task, method and loss term."""
    zero_shot_features(open_backbone("mini"), load_nouns(), DEFAULT_TEMPLATE, memory=memory)
    rows = []
    for kind in args.kinds:
        run = RUNS[kind]
        train = run.embedded("train", run.shots).of(run.halves()["base"])
        for method in args.methods:
            for term in fast.TERMS[method]:
                found = {"kind": kind, "method": method, "term": term}
                rows.append(found | times(run, method, term, train, memory))
    return rows


def times(run: fast.Run, method: str, term: str, train: Split, memory: Memory) -> dict[str, float]:
    """Return the seconds of a published fit and of a fast one."""

    def seconds(recipe: str, **settings: Any) -> tuple[float, PromptTunedCLIPClassifier]:
        settings = {**fast.settings_of(method, recipe, quick=False), **settings}
        classifier = PromptTunedCLIPClassifier(
            "mini",
            regularizer=fast.regularizer(run, term),
            random_state=run.seed,
            memory=memory,
            **settings,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            start = time.process_time()
            classifier.fit(train.X, train.y)
            return time.process_time() - start, classifier

    seconds(fast.FAST, max_epochs=1)  # loads libraries and compiles
    chosen, _ = seconds(fast.FAST)
    one, classifier = seconds(fast.PUBLISHED, max_epochs=1)
    recipe = classifier.method_.recipe("original")
    n_more = max(2, math.ceil(N_STEPS / recipe.steps_per_epoch(len(train.y))))
    several, _ = seconds(fast.PUBLISHED, max_epochs=1 + n_more)
    published = seconds_of(recipe.max_epochs, one, several, n_more)
    return {
        fast.PUBLISHED: round(published, 2),
        fast.FAST: round(chosen, 2),
        "times_faster": round(published / chosen, 1),
    }


def seconds_of(n_epochs: int, one: float, several: float, n_more: int) -> float:
    """Return the time of a fit, given those of one epoch and of `n_more` epochs more."""
    return one + (n_epochs - 1) * (several - one) / n_more


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the seconds of both recipes and their ratio, a row for each method and loss term."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(titled(row), {})[row["kind"]] = row
    lines = [[method, *(cell_of(found[kind]) for kind in kinds)] for method, found in by_method.items()]
    return simple_table(["method", *kinds], lines)


def cell_of(row: dict[str, Any]) -> str:
    """Return ``8.1 / 0.4 = 20``: seconds of the published recipe, of the fast one, and their ratio."""
    return f"{row[fast.PUBLISHED]:.1f} / {row[fast.FAST]:.1f} = {row['times_faster']:.1f}"


if __name__ == "__main__":
    main()
