"""Measure and draw the trade-off of calibration on base and new classes, after training and in each epoch.

    python benchmarks/methods/trade_off.py --jobs 2
    python benchmarks/methods/trade_off.py --figures docs/method
    python benchmarks/methods/trade_off.py --page docs/method/dor.rst

Tasks, images and settings are those of `clipcal demo`, with 30 epochs. Each epoch of each fit is evaluated on
the test images of base and new classes. Nothing is chosen on them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from ablation_plan import HALVES
from joblib import Memory, Parallel, delayed
from runs import LEVEL, N_BINS, measure, show_tables, write_json
from threadpoolctl import threadpool_limits
from trade_off_figures import Measured, draw, tables

from clipcal.backbones import open_backbone
from clipcal.demo import (
    COOP,
    COOP_DOR,
    KGCOOP,
    METHODS,
    N_SHOTS,
    N_TEST,
    TASKS,
    ZERO_SHOT,
    Cell,
    Split,
    class_halves,
    embedded_subset,
)
from clipcal.methods import zero_shot_features
from clipcal.metrics import feature_divergence
from clipcal.text import DEFAULT_TEMPLATE, load_nouns

RESULTS = Path(__file__).parent / "results" / "trade_off.json"
COMPARED = (ZERO_SHOT, COOP, KGCOOP, COOP_DOR)
N_SEEDS, MAX_EPOCHS = 3, 30
QUICK_EPOCHS, QUICK_NOUN_STEP = 2, 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one task, two seeds, two epochs, few nouns")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="replace the tables of a page by those of the results")
    parser.add_argument("--figures", type=Path, help="folder for the figures of the results")
    args = parser.parse_args()
    if not (args.page or args.figures):
        run_all(args)
    measured = Measured(json.loads(args.out.read_text(encoding="utf-8")))
    if args.figures is not None:
        draw(measured, args.figures)
    if args.page is not None or args.figures is None:
        show_tables(tables(measured), args.page)


def run_all(args: argparse.Namespace) -> None:
    tasks, n_seeds, epochs, noun_step = TASKS, N_SEEDS, MAX_EPOCHS, 1
    if args.quick:
        tasks, n_seeds, epochs, noun_step = TASKS[:1], 2, QUICK_EPOCHS, QUICK_NOUN_STEP
    cells = [Cell(*task, seed, epochs, noun_step) for task in tasks for seed in range(n_seeds)]
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(folder, verbose=0)
        # Encode the candidates for outliers once, before the processes start.
        zero_shot_features(open_backbone("mini"), load_nouns()[::noun_step], DEFAULT_TEMPLATE, memory=memory)
        jobs = [delayed(run)(cell, method, memory) for cell in cells for method in COMPARED]
        found = Parallel(n_jobs=args.jobs)(jobs)
    setup = {
        "backbone": open_backbone("mini").fingerprint[:16],
        "tasks": tasks,
        "n_seeds": n_seeds,
        "epochs": epochs,
        "n_shots": N_SHOTS,
        "n_test": N_TEST,
        "n_bins": N_BINS,
        "level": LEVEL,
    }
    rows = [row for part in found for row in part]
    runs = [[*row["run"], *(round(value, 5) for value in row["numbers"].values())] for row in rows]
    write_json(args.out, {"setup": setup, "quantities": list(rows[0]["numbers"]), "runs": runs})


def run(cell: Cell, method: str, memory: Memory) -> list[dict[str, Any]]:
    """Fit a method on the base classes; return one record for each epoch, or one if there is no training."""
    halves = class_halves(cell)
    train = embedded_subset(cell, "train", N_SHOTS).of(halves["base"])
    test = embedded_subset(cell, "test", N_TEST)
    watch = Watch(halves, test)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        classifier = METHODS[method](cell, memory)
        if method == ZERO_SHOT:
            found = [evaluate(classifier.fit(train.X, train.y), halves, test)]
        else:
            classifier.set_callbacks(watch).fit(train.X, train.y)
            found = watch.records
    place = [cell.task, cell.domain, cell.seed]
    first = 0 if method == ZERO_SHOT else 1
    return [{"run": [method, *place, epoch], "numbers": n} for epoch, n in enumerate(found, start=first)]


class Watch:
    """Callback that evaluates the classifier after each epoch."""

    def __init__(self, halves: dict[str, list[str]], test: Split) -> None:
        self.halves = halves
        self.test = test
        self.records: list[dict[str, float]] = []

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> bool:
        """Evaluate the classifier; training is never stopped."""
        if context.task_name == "epoch":
            self.records.append(evaluate(fitted_estimator, self.halves, self.test))
        return False


def evaluate(classifier: Any, halves: dict[str, list[str]], test: Split) -> dict[str, float]:
    """Return all numbers of a fitted classifier on base and new classes."""
    numbers: dict[str, float] = {}
    for half in HALVES:
        of_half = classifier.with_classes(halves[half])
        X, y = test.of(halves[half])
        of_test = measure(y, of_half.predict_proba(X), of_half.classes_)
        of_test["divergence"] = feature_divergence(of_half.text_features_)
        numbers |= {
            f"{half} {name}": of_test[name] for name in ("accuracy", "confidence", "ece", "divergence")
        }
    return numbers


if __name__ == "__main__":
    main()
