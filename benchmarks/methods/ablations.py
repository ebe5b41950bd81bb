"""Measure dynamic outlier regularization (DOR): training length, pool, outliers, weights, and divergence.

    python benchmarks/methods/ablations.py --jobs 2 --cells FOLDER
    python benchmarks/methods/ablations.py --table
    python benchmarks/methods/ablations.py --page docs/results/outliers.rst --figures docs/results

Tasks, images and classes are those of `clipcal demo`: embedded CLIP, three tasks, three seeds, 16 images of
each base class, 50 test images of each class. CoOp starts from 16 random vectors, as published by the authors
of DOR, with batches of 32. Training lengths are compared up to the published 200 epochs; all other settings
are compared after 50 epochs, to save time. Early stopping uses four further images of each base class. No fit
uses test images. With --cells, finished fits are kept in a folder, with a folder of its own for each version
of the weights of the embedded CLIP, and an interrupted run is continued there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_figures import draw
from ablation_plan import ANCHOR, COOP, DOR, HALVES, NEW_CLASSES, NONE, ZERO_SHOT, Plan, Variant
from ablation_tables import tables
from joblib import Memory, Parallel, delayed
from runs import LEVEL, N_BINS, kept, measure, show_tables, write_json
from spread import logit_spread, stretched
from threadpoolctl import threadpool_limits

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.classifiers import EarlyStopping
from clipcal.demo import N_SHOTS, N_TEST, N_VALIDATION, TASKS, Cell, Split, class_halves, embedded_subset
from clipcal.methods import CoOp, KgCoOp, zero_shot_features
from clipcal.metrics import feature_divergence, negative_log_likelihood
from clipcal.regularizers import AnchorRegularizer, DynamicOutlierRegularizer, Regularizer, rank_outliers
from clipcal.text import DEFAULT_TEMPLATE, load_nouns, name_key

RESULTS = Path(__file__).parent / "results" / "ablations.json"
N_SEEDS = 3
BATCH_SIZE = 32
N_EXAMPLES = 6
QUICK = Plan(lengths=(1, 2), epochs=1, weights=(2.0, 8.0), outliers=(4, None, 20), factors=(1.0, 2.0))

Record = tuple[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--quick", action="store_true", help="one task, two seeds, two epochs, few nouns")
    parser.add_argument("--cells", type=Path, help="folder of finished fits, to continue an earlier run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the tables of the stored results")
    parser.add_argument("--page", type=Path, help="replace the tables of a page by those of the results")
    parser.add_argument("--figures", type=Path, help="folder for the figures of the results")
    args = parser.parse_args()
    if not (args.table or args.page or args.figures):
        run_all(args)
    results = json.loads(args.out.read_text(encoding="utf-8"))
    if args.figures is not None:
        draw(results, args.figures)
    if args.page is not None or args.figures is None:
        show_tables(tables(results), args.page)


def run_all(args: argparse.Namespace) -> None:
    tasks, n_seeds, noun_step, plan = TASKS, args.seeds, 1, Plan()
    if args.quick:
        tasks, n_seeds, noun_step, plan = TASKS[:1], 2, 64, QUICK
    fingerprint = open_backbone("mini").fingerprint[:16]
    cells = [Cell(*task, seed, plan.epochs, noun_step) for seed in range(n_seeds) for task in tasks]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (Path(temporary) if args.cells is None else args.cells) / fingerprint
        memory = Memory(folder / "features", verbose=0)
        # Encode the candidates for outliers once, before the processes start.
        nouns = load_nouns()[::noun_step]
        table = zero_shot_features(open_backbone("mini"), nouns, DEFAULT_TEMPLATE, memory=memory).numpy()
        jobs = [delayed(run)(cell, variant, memory, folder) for cell in cells for variant in plan.variants()]
        found = Parallel(n_jobs=args.jobs)(jobs)
        pools = {" ".join(task): examples(Cell(*task, 0, 0), nouns, table) for task in tasks}
    rows = [row for part in found for row in part]
    setup = {
        "backbone": fingerprint,
        "tasks": tasks,
        "n_seeds": n_seeds,
        "n_classes": len(class_halves(cells[0])["base"]),
        "n_shots": N_SHOTS,
        "n_validation": N_VALIDATION,
        "n_test": N_TEST,
        "n_bins": N_BINS,
        "level": LEVEL,
    }
    parts = {"setup": setup, "plan": asdict(plan), "pools": pools, "quantities": list(rows[0]["numbers"])}
    runs = [
        [row["variant"], *row["cell"], *(round(value, 5) for value in row["numbers"].values())]
        for row in rows
    ]
    write_json(args.out, {**parts, "runs": runs})


def run(cell: Cell, variant: Variant, memory: Memory, folder: Path) -> list[dict[str, Any]]:
    """Return the numbers of a variant; the fit that is stopped early also gives those of its last epoch."""
    return kept(folder, f"{variant.name} {cell}", lambda: compute(cell, variant, memory))


def compute(cell: Cell, variant: Variant, memory: Memory) -> list[dict[str, Any]]:
    halves = class_halves(cell)
    encoded = memory.cache(embedded_subset)
    train = encoded(cell, "train", N_SHOTS).of(halves["base"])
    validation = encoded(cell, "validation", N_VALIDATION).of(halves["base"])
    test = encoded(cell, "test", N_TEST)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        classifier = untrained(cell, variant, memory)
        stopping = EarlyStopping(validation.X, validation.y, patience=max(variant.epochs, 1))
        if variant.stopped:
            classifier.set_callbacks(stopping)
        start = time.process_time()
        classifier.fit(train.X, train.y)
        seconds = time.process_time() - start
        fitted = {replace(variant, stopped=False): classifier}
        if variant.stopped:
            fitted[variant] = stopping.best_estimator_
        records = []
        for found, of_variant in fitted.items():
            numbers = {"epochs": float(stopping.best_epoch_ + 1 if found.stopped else found.epochs)}
            numbers |= {"prompts": n_prompts(found, len(train.y), len(halves["base"])), "seconds": seconds}
            numbers |= evaluate(of_variant, found.factor, halves, test, validation)
            place = [cell.task, cell.domain, cell.seed]
            records.append({"variant": found.name, "cell": place, "numbers": numbers})
        return records


def n_prompts(variant: Variant, n_images: int, n_classes: int) -> float:
    """Return the number of prompts that are encoded in training, with gradients."""
    n_outliers = (variant.n_outliers or n_classes) if variant.term == DOR else 0
    return float(variant.epochs * (n_images // BATCH_SIZE) * (n_classes + n_outliers))


def evaluate(
    classifier: Any, factor: float, halves: dict[str, list[str]], test: Split, validation: Split
) -> dict[str, float]:
    """Return all numbers of a fitted classifier on base and new classes."""
    numbers: dict[str, float] = {}
    for half in HALVES:
        of_half = classifier.with_classes(halves[half])
        if factor != 1:
            of_half.text_features_ = stretched(of_half.text_features_, factor)
        X, y = test.of(halves[half])
        of_test = measure(y, of_half.predict_proba(X), of_half.classes_)
        of_test["divergence"] = feature_divergence(of_half.text_features_)
        of_test["spread"] = logit_spread(of_half.decision_function(X))
        numbers |= {f"{half} {key}": value for key, value in of_test.items()}
        if half == "base":
            y_prob = of_half.predict_proba(validation.X)
            loss = negative_log_likelihood(validation.y, y_prob, labels=of_half.classes_)
            numbers["validation log_loss"] = float(loss)
    return numbers


def untrained(cell: Cell, variant: Variant, memory: Memory) -> Any:
    """Return the classifier of a variant."""
    if variant.method == ZERO_SHOT:
        return ZeroShotCLIPClassifier("mini")
    method = CoOp(context_init=None, n_context=16) if variant.method == COOP else KgCoOp()
    return PromptTunedCLIPClassifier(
        "mini",
        method=method,
        recipe="dor",
        regularizer=loss_term(cell, variant),
        max_epochs=variant.epochs,
        batch_size=BATCH_SIZE,
        random_state=cell.seed,
        memory=memory,
    )


def loss_term(cell: Cell, variant: Variant) -> Regularizer | None:
    if variant.term == NONE:
        return None
    if variant.term == ANCHOR:
        return AnchorRegularizer(variant.weight)
    lexicon: Any = "wordnet" if cell.noun_step == 1 else load_nouns()[:: cell.noun_step]
    if variant.pool == NEW_CLASSES:
        lexicon = class_halves(cell)["new"]
    return DynamicOutlierRegularizer(
        variant.weight,
        pool="near" if variant.pool == NEW_CLASSES else variant.pool,
        batch_size=variant.n_outliers,
        resample=variant.resample,
        lexicon=lexicon,
    )


def examples(cell: Cell, nouns: list[str], table: np.ndarray) -> dict[str, list[str]]:
    """Return the nouns that are most and least similar to the base classes of a task."""
    names = class_halves(cell)["base"]
    classes = zero_shot_features(open_backbone("mini"), names, DEFAULT_TEMPLATE)
    scores = rank_outliers(torch.from_numpy(table), classes).numpy()
    base = {name_key(name) for name in names}
    encoded = table.any(axis=1)
    order = [i for i in np.argsort(-scores, kind="stable") if encoded[i] and name_key(nouns[i]) not in base]
    return {
        "near": [nouns[i] for i in order[:N_EXAMPLES]],
        "far": [nouns[i] for i in order[::-1][:N_EXAMPLES]],
    }


if __name__ == "__main__":
    main()
