"""Evaluate a temperature fitted on held-out classes on new classes.

    python benchmarks/calibration/unseen_temperature.py --jobs 2

Half of the classes of each task are base and half are new, as in `clipcal demo`. Two temperatures are fitted
on 16 training images per base class: one with ordinary folds, which train on every class, and one with folds
that leave half of the base classes out (`cv="classes"`). Both are evaluated on the new classes, together with
no temperature and the best one in hindsight, fitted on the test images of the new classes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Memory, Parallel, delayed
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from clipcal.backbones import open_backbone
from clipcal.calibration import CalibratedCLIPClassifier, fit_temperature
from clipcal.demo import (
    COOP,
    COOP_DOR,
    KGCOOP,
    METHODS,
    N_SHOTS,
    N_TEST,
    TASKS,
    Cell,
    class_halves,
    embedded_subset,
)
from clipcal.methods import zero_shot_features
from clipcal.metrics import expected_calibration_error, mean_confidence_gap, negative_log_likelihood
from clipcal.text import DEFAULT_TEMPLATE, load_nouns

RESULTS = Path(__file__).parent / "results" / "unseen_temperature.json"
TUNED = (COOP, KGCOOP, COOP_DOR)
METRICS = {
    "ece": expected_calibration_error,
    "gap": mean_confidence_gap,
    "nll": negative_log_likelihood,
}
N_FOLDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    start = time.perf_counter()
    cells = [Cell(task, domain, seed, args.epochs) for task, domain in TASKS for seed in range(args.seeds)]
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(folder, verbose=0)
        # Fill the cache before starting processes, each of which would compute it otherwise.
        zero_shot_features(open_backbone("mini"), load_nouns(), DEFAULT_TEMPLATE, memory=memory)
        jobs = [delayed(run)(cell, method, memory) for cell in cells for method in TUNED]
        found = Parallel(n_jobs=args.jobs)(jobs)
    records = [record for part in found for record in part]
    table = summarize(records)
    setup = {
        "tasks": TASKS,
        "n_seeds": args.seeds,
        "max_epochs": args.epochs,
        "n_shots": N_SHOTS,
        "n_test": N_TEST,
        "seconds": round(time.perf_counter() - start),
        "jobs": args.jobs,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    written = {"setup": setup, "table": table, "records": records}
    args.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(as_table(table))


def run(cell: Cell, method: str, memory: Memory) -> list[dict[str, Any]]:
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        train, test = embedded_subset(cell, "train", N_SHOTS), embedded_subset(cell, "test", N_TEST)
        base, new = class_halves(cell).values()
        seen, unseen = train.of(base), test.of(new)
        classifier = METHODS[method](cell, memory)
        by_row = CalibratedCLIPClassifier(clone(classifier), cv=N_FOLDS).fit(seen.X, seen.y)
        by_class = CalibratedCLIPClassifier(clone(classifier), cv="classes").fit(seen.X, seen.y)
        tuned = by_row.estimator_.with_classes(sorted(set(unseen.y)))
        logits = tuned.decision_function(unseen.X)
        temperatures = {
            "none": 1.0,
            "cv=4": by_row.calibrator_.temperature_,
            'cv="classes", seen': by_class.calibrator_.temperature_,
            'cv="classes", unseen': by_class.unseen_calibrator_.temperature_,
            "in hindsight": 1.0 / fit_temperature(logits, np.searchsorted(tuned.classes_, unseen.y)),
        }
        records = []
        for name, temperature in temperatures.items():
            scaled = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
            prob = scaled / scaled.sum(axis=1, keepdims=True)
            numbers = {key: metric(unseen.y, prob, labels=tuned.classes_) for key, metric in METRICS.items()}
            here = {"task": cell.task, "domain": cell.domain, "seed": cell.seed, "method": method}
            records.append({**here, "temperature_from": name, "temperature": temperature, **numbers})
        return records


def summarize(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = []
    for method in TUNED:
        for source in dict.fromkeys(record["temperature_from"] for record in records):
            group = [r for r in records if (r["method"], r["temperature_from"]) == (method, source)]
            row: dict[str, Any] = {"method": method, "temperature_from": source, "n_runs": len(group)}
            for name in ("temperature", *METRICS):
                values = [record[name] for record in group]
                row[name] = [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)]
            row["runs_better_than_folds"] = {
                name: sum(r[name] < f[name] for r, f in zip(group, folds(records, method), strict=True))
                for name in ("ece", "nll")
            }
            table.append(row)
    return table


def folds(records: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """Return the runs of one method with the temperature from ordinary folds."""
    source = f"cv={N_FOLDS}"
    return [r for r in records if (r["method"], r["temperature_from"]) == (method, source)]


def as_table(table: list[dict[str, Any]]) -> str:
    lines = [
        "| method | temperature from | temperature | new ECE | new gap | new NLL | better than folds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table:
        numbers = [
            f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in (row[k] for k in ("temperature", *METRICS))
        ]
        wins = row["runs_better_than_folds"]
        better = f"{wins['ece']} by ECE, {wins['nll']} by NLL of {row['n_runs']}"
        lines.append(
            f"| {row['method']} | {row['temperature_from']} | " + " | ".join(numbers) + f" | {better} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
