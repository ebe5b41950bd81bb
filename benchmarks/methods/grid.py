"""Measure every method, without and with DOR, on base and new classes of generated tasks.

    python benchmarks/methods/grid.py --jobs 2
    python benchmarks/methods/grid.py --cells FOLDER
    python benchmarks/methods/grid.py --table
    python benchmarks/methods/grid.py --page docs/results/methods.rst

The tasks, images and classes are those of `clipcal demo`: embedded CLIP, three tasks, three seeds, 16 images
of each base class, of which ten random crops each are drawn. All methods have their complete recipe, that of
the authors of DOR where there is one, else the original one, except for ProDA, whose 100 epochs would take
too long. The results contain the settings. DOR is measured for methods that train prompts of the text tower,
and its variant for images (DOR-V) for VPT and CLIP-Adapter, with images of another task. Temperature scaling
and distance-aware calibration (DAC) are fitted on four further images of each base class. With --cells,
finished fits are kept in a folder, and an interrupted run is continued there. No fit uses test images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grid_claims import check
from grid_tables import tables
from joblib import Memory, Parallel, delayed
from runs import LEVEL, N_BINS, kept, mean_and_half, measure, show_tables, write_json
from threadpoolctl import threadpool_limits

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.calibration import CalibratedCLIPClassifier
from clipcal.demo import N_SHOTS, N_TEST, N_VALIDATION, TASKS, Cell, Split, class_halves, image_subset
from clipcal.methods import METHODS, zero_shot_features
from clipcal.metrics import feature_divergence, harmonic_mean
from clipcal.regularizers import DynamicOutlierRegularizer, Regularizer, VisualOutlierRegularizer
from clipcal.text import DEFAULT_TEMPLATE, load_nouns

RESULTS = Path(__file__).parent / "results" / "grid.json"
N_SEEDS = 3
# More than any recipe has.
MAX_EPOCHS = 1000
# Random crops of each training image, as the published trainers draw crops.
N_VIEWS = 10
ZERO_SHOT, NONE, DOR, DOR_VISUAL = "zero-shot", "none", "dor", "dor-visual"
CALIBRATORS = ("temperature", "dac")
# Methods that train prompts of the text tower, for which DOR is measured.
TEXT_METHODS = ("coop", "cocoop", "kgcoop", "maple", "dept", "tcp", "promptsrc", "prograd", "proda")
# Methods with frozen text features that train image features, for which its variant for images is measured.
IMAGE_METHODS = ("vpt", "clip-adapter")
# Fewer than in the recipe, since a step takes long.
EPOCHS = {"proda": 10}
# The base method without its regularization of PromptSRC is not in the paper.
LEFT_OUT = ("ivlp",)
# The images of this task show no class of the others.
OUTLIER_TASK = "textures"

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--methods", nargs="+", choices=[ZERO_SHOT, *METHODS], help="by default all")
    parser.add_argument("--quick", action="store_true", help="one task, one seed, one epoch, few nouns")
    parser.add_argument("--cells", type=Path, help="folder of finished fits, to continue an earlier run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the tables of the stored results")
    parser.add_argument("--page", type=Path, help="replace the tables of a page by those of the results")
    args = parser.parse_args()
    if not (args.table or args.page):
        run_all(args)
    found = tables(json.loads(args.out.read_text(encoding="utf-8")))
    show_tables(found, args.page)


def run_all(args: argparse.Namespace) -> None:
    tasks, n_seeds, noun_step = (TASKS[:1], 1, 64) if args.quick else (TASKS, args.seeds, 1)
    cells = [
        Cell(task, domain, seed, 1 if args.quick else MAX_EPOCHS, noun_step)
        for seed in range(n_seeds)
        for task, domain in tasks
    ]
    methods = args.methods or [
        ZERO_SHOT,
        *TEXT_METHODS,
        *IMAGE_METHODS,
        *(name for name in METHODS if name not in (*TEXT_METHODS, *IMAGE_METHODS, *LEFT_OUT)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        # Features of nouns and images are kept with the fits.
        memory = Memory(folder if args.cells is None else args.cells / "features", verbose=0)
        # Encode the candidates for outliers once, before the processes start.
        zero_shot_features(open_backbone("mini"), load_nouns()[::noun_step], DEFAULT_TEMPLATE, memory=memory)
        jobs = [
            delayed(run)(cell, method, term, memory, args.cells)
            for method in methods
            for term in terms(method)
            for cell in cells
        ]
        records = [record for part in Parallel(n_jobs=args.jobs)(jobs) for record in part]
    setup = {
        "tasks": tasks,
        "n_seeds": n_seeds,
        "n_shots": N_SHOTS,
        "n_validation": N_VALIDATION,
        "n_test": N_TEST,
        "n_bins": N_BINS,
        "level": LEVEL,
    }
    settings = {record["method"]: record["settings"] for record in records}
    meaning = "of each quantity: mean and half width of its interval, and the number of runs"
    parts: dict[str, Any] = {"setup": setup, "settings": settings, "values": meaning}
    with_term = {name: terms(name)[-1] for name in methods if len(terms(name)) > 1}
    parts["claims"] = check(records, with_term)
    write_json(args.out, {**parts, "table": summarize(records), "differences": compare(records)})


def terms(method: str) -> tuple[str, ...]:
    """Return the loss terms that are measured for a method."""
    if method in TEXT_METHODS:
        return NONE, DOR
    return (NONE, DOR_VISUAL) if method in IMAGE_METHODS else (NONE,)


def run(cell: Cell, method: str, term: str, memory: Memory, cells: Path | None) -> list[Record]:
    """Return one record for a method, and one for each calibrator of it."""
    key = f"{method} {term} {cell}"
    return kept(cells, key, lambda: compute(cell, method, term, memory))


def compute(cell: Cell, method: str, term: str, memory: Memory) -> list[Record]:
    halves = class_halves(cell)
    train = image_subset(cell, "train", N_SHOTS).of(halves["base"])
    # All methods of a cell have the same images, of which most need the embeddings only.
    needs_images = method != ZERO_SHOT and METHODS[method]().needs_pixels
    data = image_subset if needs_images else memory.cache(embedded)
    validation = data(cell, "validation", N_VALIDATION).of(halves["base"])
    test = data(cell, "test", N_TEST)
    torch.set_num_threads(1)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # calibrators warn of few rows
        classifier = untrained(cell, method, term, memory)
        start = time.process_time()
        classifier.fit(train.X, train.y)
        seconds = time.process_time() - start
        found = {term: classifier}
        for name in CALIBRATORS if term == NONE else ():
            # DAC compares text features before and after tuning.
            if name != "dac" or method in TEXT_METHODS:
                calibrated = CalibratedCLIPClassifier(classifier, method=name, cv="prefit")
                found[name] = calibrated.fit(validation.X, validation.y)
        records = []
        for name, fitted in found.items():
            numbers: dict[str, float] = {}
            for half, classes in halves.items():
                of_half = fitted if half == "base" else fitted.with_classes(classes)
                X, y = test.of(classes)
                of_test = measure(y, of_half.predict_proba(X), of_half.classes_)
                texts = getattr(of_half, "estimator_", of_half).text_features_
                of_test["divergence"] = feature_divergence(texts)
                numbers |= {f"{half} {key}": value for key, value in of_test.items()}
            numbers["mean accuracy"] = harmonic_mean(numbers["base accuracy"], numbers["new accuracy"])
            numbers["mean ece"] = (numbers["base ece"] + numbers["new ece"]) / 2
            settings = getattr(classifier, "recipe_", {})
            of_run = {"method": method, "term": name, "cell": [cell.task, cell.domain, cell.seed]}
            records.append({**of_run, "settings": settings, "fit_seconds": seconds, "numbers": numbers})
        return records


def embedded(cell: Cell, subset: str, n_per_class: int) -> Split:
    """Return the embeddings of the images, without normalization, as DePT needs them."""
    X, y = image_subset(cell, subset, n_per_class)
    return Split(CLIPImageEncoder("mini", normalize=False).transform(X), y)


def untrained(cell: Cell, method: str, term: str, memory: Memory) -> Any:
    """Return the classifier of a cell."""
    if method == ZERO_SHOT:
        return ZeroShotCLIPClassifier(backbone="mini")
    recipes = METHODS[method]().recipes
    recipe = "dor" if "dor" in recipes else "original"
    max_epochs = min(recipes[recipe].max_epochs, EPOCHS.get(method, cell.max_epochs))
    lexicon = "wordnet" if cell.noun_step == 1 else load_nouns()[:: cell.noun_step]
    regularizer: Regularizer | None = None
    if term == DOR:
        regularizer = DynamicOutlierRegularizer(lexicon=lexicon)
    elif term == DOR_VISUAL:
        others = replace(cell, task=OUTLIER_TASK)
        regularizer = VisualOutlierRegularizer(images=image_subset(others, "train", N_SHOTS).X)
    return PromptTunedCLIPClassifier(
        backbone="mini",
        method=method,
        recipe=recipe,
        regularizer=regularizer,
        max_epochs=max_epochs,
        n_views=N_VIEWS,
        random_state=cell.seed,
        memory=memory,
    )


def summarize(records: list[Record]) -> list[Record]:
    """Return means over all runs for each method and loss term or calibrator."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record["method"], record["term"]].append(record)
    return [
        {
            "method": method,
            "term": term,
            "runs": len(runs),
            "fit_seconds": round(float(np.median([run["fit_seconds"] for run in runs])), 1),
            **{key: interval([run["numbers"][key] for run in runs]) for key in runs[0]["numbers"]},
        }
        for (method, term), runs in groups.items()
    ]


def compare(records: list[Record]) -> list[Record]:
    """Return paired differences: each term to none, and each method to zero-shot predictions."""
    runs = {(r["method"], r["term"], *r["cell"]): r["numbers"] for r in records}
    pairs = dict.fromkeys((r["method"], r["term"]) for r in records)
    rows = []
    for method, term in pairs:
        other = (ZERO_SHOT, NONE) if term == NONE else (method, NONE)
        places = [key[2:] for key in runs if key[:2] == (method, term) and (*other, *key[2:]) in runs]
        if not places or other == (method, term):
            continue
        row: Record = {"method": method, "term": term, "minus": " ".join(other), "runs": len(places)}
        for name in runs[method, term, *places[0]]:
            differences = [runs[method, term, *at][name] - runs[*other, *at][name] for at in places]
            row[name] = [
                *interval(differences),
                int(np.sum(np.sign(differences) == np.sign(np.mean(differences)))),
            ]
        rows.append(row)
    return rows


def interval(values: list[float]) -> list[float | None]:
    return [None if np.isnan(value) else round(value, 4) for value in mean_and_half(values)]


if __name__ == "__main__":
    main()
