"""What do random crops of the training images change: one center crop, several crops, or new ones each step?

    python benchmarks/training/views.py
    python benchmarks/training/views.py --epochs 200 --seeds 3 --views 1 10 --out views-200-epochs.json
    python benchmarks/training/views.py --quick

CoOp with 16 random vectors on the embedded CLIP, with the tasks and settings of `clipcal demo`: half of each
task's classes are base, the rest is new, and each base class has 16 training images. For each seed, all
values of `n_views` are fitted on the same images and from the same start vectors, and compared in pairs. A
difference is clear if its mean over the runs is more than two standard errors from zero. Nothing is chosen on
the test images. Fit seconds are processor time on one thread, with the encoding of the images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from clipcal import make_shapes
from clipcal.demo import COOP, METHODS, N_SHOTS, N_TEST, TASKS, Cell, class_halves, embedded_subset
from clipcal.metrics import expected_calibration_error, negative_log_likelihood

RESULTS = Path(__file__).parent / "results" / "views.json"
VIEWS = (1, 4, 10, 30, "fresh")
PAIRS = (("fresh", 1), ("fresh", 4), ("fresh", 10), ("fresh", 30), (4, 1), (10, 1), (30, 1))
HALVES = ("base", "new")
QUANTITIES = ("accuracy", "confidence", "gap", "ece", "nll")
N_SEEDS, MAX_EPOCHS = 10, 30
QUICK_EPOCHS, QUICK_VIEWS = 2, (1, 4, "fresh")

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [str(n_views) for n_views in VIEWS]
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--epochs", type=int, default=MAX_EPOCHS)
    parser.add_argument("--views", nargs="+", choices=names, default=names)
    parser.add_argument("--quick", action="store_true", help="one task, one seed, two epochs, fewer views")
    parser.add_argument("--out", type=Path, help="by default the stored results, with --quick nothing")
    args = parser.parse_args()
    tasks, n_seeds, epochs, views = TASKS, args.seeds, args.epochs, [v for v in VIEWS if str(v) in args.views]
    if args.quick:
        tasks, n_seeds, epochs, views = TASKS[:1], 1, QUICK_EPOCHS, QUICK_VIEWS
    out = args.out or (None if args.quick else RESULTS)
    # The seed varies most slowly, so that each task has results if the script is stopped early.
    cells = [Cell(task, domain, seed, epochs) for seed in range(n_seeds) for task, domain in tasks]
    records: list[Record] = []
    jobs = [delayed(run)(cell, views) for cell in cells]
    for found in Parallel(n_jobs=args.jobs, return_as="generator")(jobs):
        records += found
        if out is not None:
            write(out, records, epochs)
    print(as_tables(summarize(records), compare(records)))


def run(cell: Cell, views: Sequence[int | str]) -> list[Record]:
    """Return one record for each value of `n_views` and each half of the classes."""
    with threadpool_limits(1):
        halves = class_halves(cell)
        test = embedded_subset(cell, "test", N_TEST)
        images, y = base_images(cell, halves["base"])
        records = []
        for n_views in views:
            classifier = METHODS[COOP](cell, None).set_params(n_views=n_views)
            start, wall = time.process_time(), time.perf_counter()
            classifier.fit(images, y)
            seconds, wall = time.process_time() - start, time.perf_counter() - wall
            of_run = {"task": cell.task, "domain": cell.domain, "seed": cell.seed, "n_views": n_views}
            of_run |= {"fit_seconds": seconds, "wall_seconds": wall}
            for half, classes in halves.items():
                of_half = classifier if half == "base" else classifier.with_classes(classes)
                X, y_true = test.of(classes)
                numbers = measure(y_true, of_half.predict_proba(X), of_half.classes_)
                records.append({**of_run, "half": half, **numbers})
        return records


def base_images(cell: Cell, base: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the training images that the demo embeds, and their labels."""
    images, y = make_shapes(
        cell.task,
        domain=cell.domain,
        subset="train",
        n_per_class=N_SHOTS,
        random_state=cell.seed,
        return_X_y=True,
    )
    rows = np.isin(y, base)
    return images[rows], y[rows]


def measure(y_true: np.ndarray, y_prob: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    accuracy = float((labels[y_prob.argmax(axis=1)] == y_true).mean())
    confidence = float(y_prob.max(axis=1).mean())
    return {
        "accuracy": accuracy,
        "confidence": confidence,
        "gap": confidence - accuracy,
        "ece": float(expected_calibration_error(y_true, y_prob, labels=labels)),
        "nll": float(negative_log_likelihood(y_true, y_prob, labels=labels)),
    }


def write(path: Path, records: list[Record], epochs: int) -> None:
    views = list(dict.fromkeys(record["n_views"] for record in records))
    setup = {"tasks": TASKS, "views": views, "n_shots": N_SHOTS, "n_test": N_TEST, "max_epochs": epochs}
    parts = {"table": summarize(records), "differences": compare(records), "records": records}
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'"setup": {json.dumps(setup)}']
    lines += [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in parts.items()]
    path.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def summarize(records: list[Record]) -> list[Record]:
    """Return mean and standard deviation over runs, for each task and over all of them."""
    table = []
    for task, of_task in by_task(records).items():
        for n_views in VIEWS:
            for half in HALVES:
                chosen = [r for r in of_task if (r["n_views"], r["half"]) == (n_views, half)]
                if not chosen:
                    continue
                row = {"task": task, "n_views": n_views, "half": half, "n_runs": len(chosen)}
                for quantity in (*QUANTITIES, "fit_seconds"):
                    row[quantity] = mean_and_deviation([r[quantity] for r in chosen])
                table.append(row)
    return table


def compare(records: list[Record]) -> list[Record]:
    """Return paired differences, of all quantities, for each task and over all of them."""
    rows = []
    for task, of_task in by_task(records).items():
        runs = {(r["n_views"], r["half"], r["domain"], r["task"], r["seed"]): r for r in of_task}
        for first, second in PAIRS:
            for half in HALVES:
                pairs = [
                    (runs[key], runs[second, *key[1:]])
                    for key in runs
                    if key[:2] == (first, half) and (second, *key[1:]) in runs
                ]
                for quantity in QUANTITIES if pairs else ():
                    differences = [a[quantity] - b[quantity] for a, b in pairs]
                    row = {"task": task, "difference": f"{first} - {second}", "half": half}
                    rows.append({**row, "quantity": quantity, **summarize_differences(differences)})
    return rows


def summarize_differences(differences: list[float]) -> Record:
    """Return mean, standard deviation, in how many runs the sign is the mean's, and whether it is clear."""
    mean, deviation = mean_and_deviation(differences)
    error = deviation / np.sqrt(len(differences))
    return {
        "mean": mean,
        "deviation": deviation,
        "n_agreeing": int(np.sum(np.sign(differences) == np.sign(mean))),
        "n_runs": len(differences),
        # One run has no standard error.
        "clear": len(differences) > 1 and bool(abs(mean) > 2 * error),
    }


def by_task(records: list[Record]) -> dict[str, list[Record]]:
    names = dict.fromkeys(f"{r['task']} ({r['domain']})" for r in records)
    of_each = {name: [r for r in records if f"{r['task']} ({r['domain']})" == name] for name in names}
    return of_each | {"all": records}


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def as_tables(table: list[Record], differences: list[Record]) -> str:
    columns = [f"{half} {quantity}" for half in HALVES for quantity in QUANTITIES]
    lines = [f"| task | n_views | runs | {' | '.join(columns)} | fit seconds |"]
    lines.append("|---" * (4 + len(columns)) + "|")
    for base in [row for row in table if row["half"] == "base"]:
        key = (base["task"], base["n_views"])
        new = next(row for row in table if (row["task"], row["n_views"], row["half"]) == (*key, "new"))
        cells = [row[quantity] for row in (base, new) for quantity in QUANTITIES]
        numbers = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in cells]
        seconds = "{:.1f} ± {:.1f}".format(*base["fit_seconds"])
        lines.append(f"| {key[0]} | {key[1]} | {base['n_runs']} | {' | '.join(numbers)} | {seconds} |")
    lines += ["", "| difference | half | quantity | mean ± sd | runs that agree | clear |"]
    lines.append("|---" * 6 + "|")
    for row in [row for row in differences if row["task"] == "all"]:
        lines.append(
            f"| {row['difference']} | {row['half']} | {row['quantity']} "
            f"| {row['mean']:+.4f} ± {row['deviation']:.4f} | {row['n_agreeing']} of {row['n_runs']} "
            f"| {'yes' if row['clear'] else 'no'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
