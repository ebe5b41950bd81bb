"""Compare the recipe "fast" with the published recipes on base and new classes of generated tasks.

    python benchmarks/methods/fast.py --cells FOLDER --jobs 2
    python benchmarks/methods/fast.py --table
    python benchmarks/methods/fast.py --page docs/results/recipes.rst

Tasks, seeds and classes are those of `clipcal demo`, with 4, 16 and 64 images of each base class, and a task
of 200 colour names with 16 images. The published recipes are complete, with all their epochs: those of the
authors of each method. Both recipes of a row have the same images, classes and seed; differences are paired.
The settings of the fast recipe were chosen by fast_choice.py on other tasks. No fit uses test images. With
--cells, finished fits are kept in a folder, and an interrupted run is continued there.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fast_tables import tables
from joblib import Memory, Parallel, delayed
from many_colors import class_names, embedded_colors
from runs import LEVEL, N_BINS, kept, mean_and_half, measure, show_tables, write_json
from threadpoolctl import threadpool_limits

from clipcal import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.demo import N_TEST, TASKS, Cell, Split, class_halves, embedded_subset
from clipcal.methods import METHODS, CoOp, zero_shot_features
from clipcal.regularizers import Regularizer, VisualOutlierRegularizer
from clipcal.text import DEFAULT_TEMPLATE, load_nouns

RESULTS = Path(__file__).parent / "results" / "fast.json"
MANY = "200 colors"
# Images per class and seeds; fewer seeds where a published fit takes minutes.
SEEDS = {4: 3, 16: 3, 64: 1}
N_SEEDS_OF_MANY = 1
N_TEST_OF_MANY = 20
ZERO_SHOT, NONE, DOR, DOR_VISUAL = "zero-shot", "none", "dor", "dor-visual"
PUBLISHED, FAST = "published", "fast"
RANDOM_COOP = "coop, 16 random vectors"
TERMS = {
    "coop": (NONE, DOR),
    RANDOM_COOP: (NONE, DOR),
    "kgcoop": (NONE, DOR),
    "tcp": (NONE, DOR),
    "clip-adapter": (NONE, DOR_VISUAL),
    "prograd": (NONE, DOR),
}
# Its images show no class of the tasks.
OUTLIER_TASK = "textures"
QUANTITIES = [f"{half} {name}" for name in ("accuracy", "ece", "log_loss") for half in ("base", "new")]

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A task, a number of images per class and a seed."""

    task: str
    domain: str
    shots: int
    seed: int

    def halves(self) -> dict[str, list[str]]:
        if self.task == MANY:
            names = class_names()
            return {"base": names[: len(names) // 2], "new": names[len(names) // 2 :]}
        return class_halves(Cell(self.task, self.domain, self.seed, 0))

    def embedded(self, subset: str, n_per_class: int) -> Split:
        if self.task == MANY:
            return embedded_colors(subset, n_per_class, self.seed)
        return embedded_subset(Cell(self.task, self.domain, self.seed, 0), subset, n_per_class)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one task, two methods, one published epoch")
    parser.add_argument("--cells", type=Path, help="folder of finished fits, to continue an earlier run")
    parser.add_argument("--finished", action="store_true", help="use only finished fits of the folder")
    parser.add_argument("--shots", type=int, nargs="+", help="these numbers of images only; 0: 200 colours")
    parser.add_argument("--recipes", nargs="+", choices=[PUBLISHED, FAST], default=[PUBLISHED, FAST])
    parser.add_argument("--methods", nargs="+", choices=list(TERMS), default=list(TERMS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the tables of the stored results")
    parser.add_argument("--page", type=Path, help="replace the tables of a page by those of the results")
    args = parser.parse_args()
    if not (args.table or args.page):
        run_all(args)
    found = tables(json.loads(args.out.read_text(encoding="utf-8")))
    show_tables(found, args.page)


def run_all(args: argparse.Namespace) -> None:
    if args.cells is not None:
        args.cells.mkdir(parents=True, exist_ok=True)
    memory = Memory(None if args.cells is None else args.cells / "features", verbose=0)
    zero_shot_features(open_backbone("mini"), load_nouns(), DEFAULT_TEMPLATE, memory=memory)
    plan = [
        (run, method, term, recipe)
        for run in ([Run("colors", "street", 4, 0)] if args.quick else planned())
        if not args.shots or (0 if run.task == MANY else run.shots) in args.shots
        for method in (list(TERMS)[:2] if args.quick else [ZERO_SHOT, *args.methods])
        for term in TERMS.get(method, (NONE,))
        for recipe in (args.recipes if method != ZERO_SHOT else [NONE])
    ]
    # Cheap fits first, so that an interrupted run has complete rows.
    jobs = (delayed(numbers)(*item, memory, args) for item in plan)
    records = [record for record in Parallel(n_jobs=args.jobs)(jobs) if record is not None]
    setup = {
        "runs": list(dict.fromkeys(tuple(record["run"]) for record in records)),
        "n_test": N_TEST,
        "n_test_of_200": N_TEST_OF_MANY,
        "n_bins": N_BINS,
        "level": LEVEL,
    }
    found = {"setup": setup, "table": summarize(records), "differences": compare(records)}
    write_json(args.out, {**found, "pooled": pooled(records)})


def planned() -> Iterator[Run]:
    """Yield all runs."""
    for shots in (16, 4):
        for seed in range(SEEDS[shots]):
            yield from (Run(task, domain, shots, seed) for task, domain in TASKS)
    yield from (Run(MANY, "studio", 16, seed) for seed in range(N_SEEDS_OF_MANY))
    for seed in range(SEEDS[64]):
        yield from (Run(task, domain, 64, seed) for task, domain in TASKS)


class UnfinishedError(Exception):
    """A fit is not among the finished ones."""


def numbers(
    run: Run, method: str, term: str, recipe: str, memory: Memory, args: argparse.Namespace
) -> Record | None:
    """Return the numbers of one fit, or None if it is not finished and only finished fits are wanted."""
    of_run = {"run": list(asdict(run).values()), "method": method, "term": term, "recipe": recipe}
    settings = "" if method == ZERO_SHOT else settings_of(method, recipe, args.quick)
    key = f"{run} {method} {term} {settings} {open_backbone('mini').fingerprint}"

    def compute() -> Record:
        if args.finished:
            raise UnfinishedError
        return fit(run, method, term, recipe, memory, args.quick)

    try:
        return {**of_run, **kept(args.cells, key, compute)}
    except UnfinishedError:
        return None


def fit(run: Run, method: str, term: str, recipe: str, memory: Memory, quick: bool) -> Record:
    halves = run.halves()
    # All methods of a run have the same images.
    encoded = memory.cache(Run.embedded)
    train = encoded(run, "train", run.shots).of(halves["base"])
    test = encoded(run, "test", N_TEST_OF_MANY if run.task == MANY else N_TEST)
    torch.set_num_threads(1)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        classifier: Any = ZeroShotCLIPClassifier("mini")
        if method != ZERO_SHOT:
            classifier = PromptTunedCLIPClassifier(
                "mini",
                regularizer=regularizer(run, term),
                random_state=run.seed,
                memory=memory,
                **settings_of(method, recipe, quick),
            )
        classifier.fit(train.X, train.y)
        found: Record = passes(classifier, len(train.y))
        for half, classes in halves.items():
            of_half = classifier if half == "base" else classifier.with_classes(classes)
            X, y = test.of(classes)
            measured = measure(y, of_half.predict_proba(X), of_half.classes_)
            found |= {f"{half} {name}": value for name, value in measured.items()}
    return found


def settings_of(method: str, recipe: str, quick: bool) -> dict[str, Any]:
    """Return the parameters of a classifier."""
    chosen = CoOp(context_init=None, n_context=16) if method == RANDOM_COOP else METHODS[method]()
    settings: dict[str, Any] = {"method": chosen, "recipe": recipe if recipe == FAST else "original"}
    if recipe == FAST:
        # In the key of the cache, so that finished fits with another rate are not used.
        settings |= {"learning_rate": chosen.recipe(FAST).learning_rate}
    elif quick:
        settings |= {"max_epochs": 1}
    return settings


def regularizer(run: Run, term: str) -> str | Regularizer | None:
    if term == DOR_VISUAL:
        others = Cell(OUTLIER_TASK, "street", run.seed, 0)
        return VisualOutlierRegularizer(images=embedded_subset(others, "train", 16).X)
    return None if term == NONE else term


def passes(classifier: Any, n_images: int) -> Record:
    """Return the numbers of epochs and steps, and the steps of the search, each with half of the classes."""
    if not hasattr(classifier, "recipe_"):
        return {"epochs": 0, "steps": 0, "search_steps": 0}
    size = classifier.recipe_["batch_size"]
    size = n_images if size == "all" else size
    n_epochs = len(classifier.history_)
    n_splits = 4 if n_images < 1000 else 2
    searched = n_splits * max(0, len(getattr(classifier, "validation_history_", [])) - 1)
    return {
        "epochs": n_epochs,
        "steps": n_epochs * max(1, n_images // size),
        "search_steps": searched * max(1, n_images * 3 // 8 // size),
    }


def summarize(records: list[Record]) -> list[Record]:
    """Return means and intervals over runs for each kind of task, method, loss term and recipe."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[kind(record), record["method"], record["term"], record["recipe"]].append(record)
    return [
        {
            **dict(zip(("kind", "method", "term", "recipe"), names, strict=True)),
            "runs": len(group),
            **{name: median(group, name) for name in ("epochs", "steps", "search_steps")},
            **{name: interval([record[name] for record in group]) for name in QUANTITIES},
        }
        for names, group in groups.items()
    ]


def kind(record: Record) -> str:
    """Return the rows that are averaged: the number of images per class, or the large task."""
    return MANY if record["run"][0] == MANY else f"{record['run'][2]} images"


def median(group: list[Record], name: str) -> float:
    return round(float(np.median([record[name] for record in group])), 2)


def compare(records: list[Record]) -> list[Record]:
    """Return paired differences, fast minus published, for each kind of task, method and loss term."""
    pairs = paired(records)
    groups = defaultdict(list)
    for key, pair in pairs.items():
        groups[kind(pair[FAST]), *key[1:]].append(pair)
    return [
        {"kind": of_kind, "method": method, "term": term, "runs": len(group), **differences(group)}
        for (of_kind, method, term), group in groups.items()
    ]


def pooled(records: list[Record]) -> list[Record]:
    """Return the same differences averaged over all methods and loss terms of a task and seed first."""
    groups: dict[str, dict[Any, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for key, pair in paired(records).items():
        groups[kind(pair[FAST])][key[0]].append(pair)
    rows = []
    for of_kind, by_run in groups.items():
        means = [
            {
                name: float(np.mean([p[FAST][name] - p[PUBLISHED][name] for p in of_run]))
                for name in QUANTITIES
            }
            for of_run in by_run.values()
        ]
        values = {name: interval([mean[name] for mean in means]) for name in QUANTITIES}
        rows.append({"kind": of_kind, "runs": len(means), **values})
    return rows


def paired(records: list[Record]) -> dict[tuple[Any, str, str], dict[str, Record]]:
    """Return the records of both recipes by run, method and loss term, where both exist."""
    found: dict[tuple[Any, str, str], dict[str, Record]] = defaultdict(dict)
    for record in records:
        found[tuple(record["run"]), record["method"], record["term"]][record["recipe"]] = record
    return {key: pair for key, pair in found.items() if {FAST, PUBLISHED} <= pair.keys()}


def differences(group: list[dict[str, Record]]) -> Record:
    return {
        name: interval([pair[FAST][name] - pair[PUBLISHED][name] for pair in group]) for name in QUANTITIES
    }


def interval(values: list[float]) -> list[float | None]:
    return [None if np.isnan(value) else round(value, 4) for value in mean_and_half(values)]


if __name__ == "__main__":
    main()
