"""Estimate calibration on new classes, and select the weight of DOR, from images of base classes.

    python benchmarks/calibration/leave_classes_out.py --jobs 2

Half of the classes of each task are base and half are new, as in `clipcal demo`. Two estimates are computed
from 16 training images per base class. `leave classes out` fits on half of the base classes and predicts the
other half; `stratified` is ordinary cross-validation, which trains on every class. The truth is the result of
the classifier, fitted on all base classes, on the test images of the new classes, which are not used for
selection. Errors are computed from the pooled rows of all splits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from joblib import Memory, Parallel, delayed
from scipy.stats import spearmanr
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from clipcal import DynamicOutlierRegularizer, LeaveClassesOut
from clipcal.backbones import open_backbone
from clipcal.demo import (
    COOP,
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
from clipcal.metrics import expected_calibration_error
from clipcal.model_selection import open_vocabulary_predictions
from clipcal.text import DEFAULT_TEMPLATE, load_nouns

RESULTS = Path(__file__).parent / "results" / "leave_classes_out.json"
N_SEEDS, MAX_EPOCHS, N_SPLITS, N_FOLDS = 3, 30, 4, 3
WEIGHTS = (0.0, 1.0, 4.0, 8.0, 16.0)
# The weight of regularizer="dor" with CoOp is 8.
DEFAULT_WEIGHT = 8.0
NAMES = {0.0: "CoOp", DEFAULT_WEIGHT: "CoOp + DOR"}
CONFIGURATIONS = [KGCOOP, *WEIGHTS]
ESTIMATES = ("leave classes out", "stratified")
QUANTITIES = ("ece", "gap", "accuracy", "nll")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--epochs", type=int, default=MAX_EPOCHS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    start = time.perf_counter()
    cells = [Cell(task, domain, seed, args.epochs) for task, domain in TASKS for seed in range(args.seeds)]
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(folder, verbose=0)
        # Fill the cache before starting processes, each of which would compute it otherwise.
        zero_shot_features(open_backbone("mini"), load_nouns(), DEFAULT_TEMPLATE, memory=memory)
        jobs = [delayed(run)(cell, name, memory) for cell in cells for name in CONFIGURATIONS]
        records = Parallel(n_jobs=args.jobs)(jobs)
    estimates, choices = summarize_estimates(records), summarize_choices(records)
    setup = {
        "tasks": TASKS,
        "n_seeds": args.seeds,
        "max_epochs": args.epochs,
        "n_shots": N_SHOTS,
        "n_test": N_TEST,
        "leave_classes_out": f"{N_SPLITS} splits, half of the base classes",
        "stratified": f"{N_FOLDS} folds",
        "weights": WEIGHTS,
        "seconds": round(time.perf_counter() - start),
        "jobs": args.jobs,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"setup": setup, "estimates": estimates, "choices": choices, "records": records}
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(as_tables(estimates, choices))


def run(cell: Cell, configuration: str | float, memory: Memory) -> dict:
    """Return the true values and the estimates of one classifier on one task."""
    with threadpool_limits(1):
        base, new = class_halves(cell).values()
        train = embedded_subset(cell, "train", N_SHOTS).of(base)
        test = embedded_subset(cell, "test", N_TEST)
        clf = classifier(cell, configuration, memory)
        fitted = clf.fit(train.X, train.y)
        truths = {}
        for half, classes, model in (("base", base, fitted), ("new", new, fitted.with_classes(new))):
            X, y = test.of(classes)
            truths[half] = quantities(y, model.predict_proba(X), model.classes_)
        record = {"task": cell.task, "domain": cell.domain, "seed": cell.seed, "configuration": configuration}
        record |= {"truth": truths["new"], "truth on base": truths["base"]}
        splitters = {
            "leave classes out": (LeaveClassesOut(N_SPLITS, random_state=cell.seed), "unseen"),
            "stratified": (StratifiedKFold(N_FOLDS, shuffle=True, random_state=cell.seed), "fold"),
        }
        for name, (cv, classes) in splitters.items():
            said = open_vocabulary_predictions(clf, train.X, train.y, cv=cv, classes=classes)
            record[name] = quantities(said.y_true, said.y_prob, said.labels)
        return record


def classifier(cell: Cell, configuration: str | float, memory: Memory):
    if isinstance(configuration, str):
        return METHODS[configuration](cell, memory)
    clf = METHODS[COOP](cell, memory)
    if configuration > 0:
        clf.set_params(regularizer=DynamicOutlierRegularizer(weight=configuration))
    return clf


def quantities(y_true, y_prob, labels) -> dict[str, float]:
    accuracy = float((labels[y_prob.argmax(axis=1)] == y_true).mean())
    return {
        "ece": expected_calibration_error(y_true, y_prob, labels=labels),
        "gap": float(y_prob.max(axis=1).mean() - accuracy),
        "accuracy": accuracy,
        "nll": float(log_loss(y_true, y_prob, labels=labels)),
        "n_rows": len(y_true),
    }


def summarize_estimates(records: list[dict]) -> list[dict]:
    """Compare estimates with the true values, per method and over all methods."""
    groups = {KGCOOP: [KGCOOP], **{name: [weight] for weight, name in NAMES.items()}}
    groups["these three"] = [KGCOOP, *NAMES]
    rows = []
    for group, members in groups.items():
        chosen = [record for record in records if record["configuration"] in members]
        for quantity in QUANTITIES:
            truth = np.array([record["truth"][quantity] for record in chosen])
            for estimate in ESTIMATES:
                values = np.array([record[estimate][quantity] for record in chosen])
                error = values - truth
                rows.append(
                    {
                        "method": group,
                        "quantity": quantity,
                        "estimate": estimate,
                        "mean_truth": float(truth.mean()),
                        "mean_absolute_error": float(np.abs(error).mean()),
                        "standard_error": standard_error(np.abs(error)),
                        "bias": float(error.mean()),
                        "rank_correlation": rank_correlation(values, truth),
                    }
                )
    return rows


def summarize_choices(records: list[dict]) -> list[dict]:
    """Return the regret of each way to select the weight, relative to the best weight in hindsight."""
    cells: dict[tuple, dict[float, dict]] = {}
    for record in records:
        if record["configuration"] != KGCOOP:
            cell = (record["task"], record["domain"], record["seed"])
            cells.setdefault(cell, {})[record["configuration"]] = record
    rows = []
    rules: list[tuple[str, str | None]] = [(name, by) for name in ESTIMATES for by in ("ece", "nll")]
    for rule, by in [*rules, *((f"always {weight:g}", None) for weight in WEIGHTS)]:
        weights = [
            min(WEIGHTS, key=lambda weight, of=of: of[weight][rule][by]) if by else float(rule.split()[1])
            for of in cells.values()
        ]
        row = {"rule": rule, "by": by, "weights": weights}
        for quantity in ("ece", "nll"):
            truth = [{weight: of[weight]["truth"][quantity] for weight in WEIGHTS} for of in cells.values()]
            regret = [of[weight] - min(of.values()) for of, weight in zip(truth, weights, strict=True)]
            row |= {
                f"true_{quantity}": float(np.mean([of[w] for of, w in zip(truth, weights, strict=True)])),
                f"regret_{quantity}": float(np.mean(regret)),
                f"standard_error_{quantity}": standard_error(np.array(regret)),
            }
        if by:
            ranks = [
                rank_correlation(
                    np.array([of[weight][rule][by] for weight in WEIGHTS]),
                    np.array([of[weight]["truth"][by] for weight in WEIGHTS]),
                )
                for of in cells.values()
            ]
            row["rank_correlation_of_weights"] = float(np.mean(ranks))
        rows.append(row)
    return rows


def rank_correlation(values: np.ndarray, truth: np.ndarray) -> float:
    constant = np.ptp(values) == 0 or np.ptp(truth) == 0
    return 0.0 if constant else float(spearmanr(values, truth).statistic)


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def as_tables(estimates: list[dict], choices: list[dict]) -> str:
    lines = ["| method | of new classes | truth | estimate | mean abs. error | bias | rank corr. |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in estimates:
        lines.append(
            f"| {row['method']} | {row['quantity']} | {row['mean_truth']:.3f} | {row['estimate']} "
            f"| {row['mean_absolute_error']:.3f} ± {row['standard_error']:.3f} | {row['bias']:+.3f} "
            f"| {row['rank_correlation']:+.2f} |"
        )
    head = ("weight chosen by", "true ECE", "regret", "true NLL", "regret", "rank corr. in a cell", "weights")
    lines += ["", f"| {' | '.join(head)} |", "|---|---|---|---|---|---|---|"]
    for row in choices:
        rule = f"{row['rule']}, {row['by'].upper()}" if row["by"] else row["rule"]
        rank = f"{row['rank_correlation_of_weights']:+.2f}" if row["by"] else ""
        chosen = " ".join(f"{weight:g}" for weight in row["weights"]) if row["by"] else ""
        lines.append(
            f"| {rule} | {row['true_ece']:.3f} | {row['regret_ece']:.3f} ± {row['standard_error_ece']:.3f} "
            f"| {row['true_nll']:.3f} | {row['regret_nll']:.3f} ± {row['standard_error_nll']:.3f} "
            f"| {rank} | {chosen} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
