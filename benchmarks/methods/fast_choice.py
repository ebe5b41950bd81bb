"""Choose the settings of the recipe "fast" on validation images of tasks that fast.py does not use.

    python benchmarks/methods/fast_choice.py --jobs 2
    python benchmarks/methods/fast_choice.py --cells FOLDER
    python benchmarks/methods/fast_choice.py --table
    python benchmarks/methods/fast_choice.py --page docs/results/recipes.rst

The tasks are shapes and textures of `make_shapes`; fast.py uses other classes. Methods are tuned on a random
half of the classes, with 4 and 16 images of each, and measured on validation images of both halves.
The number of epochs is chosen in `fit` on held-out training data (early_stopping=True). Rows with DOR compare
numbers of outliers, drawn anew in each step or once.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from runs import kept, measure, show_tables, simple_table, write_json
from threadpoolctl import threadpool_limits

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.backbones import open_backbone
from clipcal.datasets import TASKS as CLASSES
from clipcal.demo import Split
from clipcal.methods import TCP, CLIPAdapter, CoCoOp, CoOp, KgCoOp, ProGrad, TuningMethod
from clipcal.regularizers import DynamicOutlierRegularizer

RESULTS = Path(__file__).parent / "results" / "fast_choice.json"
TASKS = [("shapes", "studio"), ("shapes", "faded"), ("textures", "street"), ("textures", "grainy")]
SHOTS = (4, 16)
N_VALIDATION = 50
# Seeds of images and training, not used by fast.py.
SEEDS = (100, 101)
MAX_EPOCHS = 100
CONSTANT = {"schedule": "constant", "warmup_epochs": 0, "weight_decay": 0.0}
QUANTITIES_OF_HALVES = [
    f"{half} {quantity}" for quantity in ("accuracy", "ece", "log_loss") for half in ("base", "new")
]

# Optimizer, learning rate and batch size; or the published recipe, for comparison.
Setting = tuple[str, float, int | str]
PUBLISHED: Setting = ("published", 0.0, 0)


@dataclass(frozen=True)
class Candidate:
    """A method with the settings to compare, and a regularizer."""

    method: TuningMethod
    settings: list[Setting]
    regularizer: DynamicOutlierRegularizer | None = None


RANDOM_COOP = CoOp(context_init=None, n_context=16)
OF_CONTEXTS: list[Setting] = [("adam", rate, "all") for rate in (0.003, 0.01, 0.03, 0.1)] + [
    ("sgd", 0.1, "all"),
    PUBLISHED,
]
OF_FEATURES: list[Setting] = [*(("adam", rate, "all") for rate in (0.001, 0.003, 0.01)), PUBLISHED]
OF_COCOOP: list[Setting] = [
    *(("adam", rate, 8) for rate in (0.001, 0.003, 0.01)),
    PUBLISHED,
]
# The number of outliers is that of the classes, some seven, if it is None.
OUTLIERS = {
    "DOR": DynamicOutlierRegularizer(),
    "DOR, fixed": DynamicOutlierRegularizer(resample=False),
    "DOR, 60": DynamicOutlierRegularizer(batch_size=60),
    "DOR, 60 fixed": DynamicOutlierRegularizer(batch_size=60, resample=False),
}
CANDIDATES = {
    "coop": Candidate(CoOp(), OF_CONTEXTS),
    "coop, 16 random vectors": Candidate(RANDOM_COOP, OF_CONTEXTS),
    "kgcoop": Candidate(KgCoOp(), OF_CONTEXTS),
    "prograd": Candidate(ProGrad(), OF_CONTEXTS),
    "cocoop": Candidate(CoCoOp(), OF_COCOOP),
    "tcp": Candidate(TCP(), OF_FEATURES),
    "clip-adapter": Candidate(CLIPAdapter(), OF_FEATURES),
    **{
        f"{name} + {outliers}": Candidate(method, [("adam", rate, "all")], regularizer)
        for name, method, rate in (
            ("coop", CoOp(), 0.03),
            ("coop, 16 random vectors", RANDOM_COOP, 0.1),
        )
        for outliers, regularizer in OUTLIERS.items()
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--quick", action="store_true", help="one task, one seed, three epochs")
    parser.add_argument("--cells", type=Path, help="folder of finished fits, to continue an earlier run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of the stored results")
    parser.add_argument("--page", type=Path, help="replace the table of a page by that of the results")
    args = parser.parse_args()
    if not (args.table or args.page):
        run_all(args)
    table = table_of(json.loads(args.out.read_text(encoding="utf-8"))["table"])
    show_tables({"choice": table}, args.page)


def run_all(args: argparse.Namespace) -> None:
    tasks, seeds, max_epochs = (TASKS[:1], SEEDS[:1], 3) if args.quick else (TASKS, SEEDS, MAX_EPOCHS)
    if args.cells is not None:
        args.cells.mkdir(parents=True, exist_ok=True)
    jobs = [
        delayed(run)(name, setting, task, domain, shots, seed, max_epochs, args.cells)
        for name in args.methods
        for setting in CANDIDATES[name].settings
        for shots in SHOTS
        for task, domain in tasks
        for seed in seeds
    ]
    records = Parallel(n_jobs=args.jobs)(jobs)
    setup = {
        "tasks": tasks,
        "seeds": seeds,
        "shots": SHOTS,
        "n_validation": N_VALIDATION,
        "max_epochs": max_epochs,
    }
    write_json(args.out, {"setup": setup, "table": summarize(records)})


def run(
    name: str,
    setting: Setting,
    task: str,
    domain: str,
    shots: int,
    seed: int,
    max_epochs: int,
    folder: Path | None,
) -> dict[str, Any]:
    """Fit one method with one setting, or read the result of an earlier fit."""
    key = f"{name} {setting} {task} {domain} {shots} {seed} {max_epochs} {open_backbone('mini').fingerprint}"

    def compute() -> dict[str, Any]:
        return fit(CANDIDATES[name], setting, task, domain, shots, seed, max_epochs)

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.set_num_threads(1)
        return {"method": name, "setting": setting, "shots": shots, **kept(folder, key, compute)}


def fit(
    candidate: Candidate, setting: Setting, task: str, domain: str, shots: int, seed: int, max_epochs: int
) -> dict[str, Any]:
    """Return the numbers of one fit on validation images of base and new classes."""
    halves = random_halves(task, seed)
    train = embedded(task, domain, "train", shots, seed).of(halves["base"])
    validation = embedded(task, domain, "validation", N_VALIDATION, seed)
    optimizer, learning_rate, batch_size = setting
    classifier = PromptTunedCLIPClassifier(
        "mini",
        method=candidate.method,
        regularizer=candidate.regularizer,
        recipe="original",
        random_state=seed,
    )
    if setting != PUBLISHED:
        classifier.set_params(
            optimizer=optimizer,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_epochs=max_epochs,
            early_stopping=True,
            **CONSTANT,
        )
    start = time.perf_counter()
    classifier.fit(train.X, train.y)
    numbers: dict[str, Any] = {"seconds": time.perf_counter() - start, "epochs": len(classifier.history_)}
    for half, names in halves.items():
        X, y = validation.of(names)
        of_half = classifier if half == "base" else classifier.with_classes(names)
        measured = measure(y, of_half.predict_proba(X), of_half.classes_)
        numbers |= {f"{half} {quantity}": value for quantity, value in measured.items()}
    return numbers


@cache
def embedded(task: str, domain: str, subset: str, n_per_class: int, seed: int) -> Split:
    data = make_shapes(task, domain=domain, subset=subset, n_per_class=n_per_class, random_state=seed)
    return Split(CLIPImageEncoder(backbone="mini").transform(data.images), data.target)


def random_halves(task: str, seed: int) -> dict[str, list[str]]:
    """Return base and new classes of a task, a random half each."""
    names = np.random.default_rng(seed).permutation(CLASSES[task]).tolist()
    n_base = (len(names) + 1) // 2
    return {"base": names[:n_base], "new": names[n_base:]}


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the mean log loss of both halves for each number of images, and the number of epochs."""
    by_setting: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_setting[row["method"], row["setting"]][row["shots"]] = row
    shots = sorted({row["shots"] for row in rows})
    header = ["method", "setting", *(f"log loss, {n} images" for n in shots), "mean"]
    lines = []
    for (method, setting), found in by_setting.items():
        losses = [found[n]["log_loss"] for n in shots]
        epochs = [f"{found[n]['epochs']:.0f}" for n in shots]
        lines.append(
            [method, setting, *(f"{loss:.3f}" for loss in losses), f"{np.mean(losses):.3f}", *epochs]
        )
    return simple_table([*header, *(f"epochs, {n}" for n in shots)], lines)


def summarize(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means of each method, number of shots and setting, with the log loss of both halves."""
    groups = defaultdict(list)
    for record in records:
        groups[record["method"], record["shots"], tuple(record["setting"])].append(record)
    rows = []
    for (name, shots, setting), group in groups.items():
        means = {
            quantity: round(float(np.mean([record[quantity] for record in group])), 4)
            for quantity in ("epochs", "seconds", *QUANTITIES_OF_HALVES)
        }
        log_loss = (means["base log_loss"] + means["new log_loss"]) / 2
        optimizer, rate, batch_size = setting
        label = f"{optimizer}, {rate}, batches of {batch_size}".replace("batches of all", "all images")
        label = "published" if setting == PUBLISHED else label
        rows.append({"method": name, "shots": shots, "setting": label, "log_loss": log_loss, **means})
    return rows


if __name__ == "__main__":
    main()
