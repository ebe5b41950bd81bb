"""Compare calibrators by several metrics, with 4, 16 and 64 calibration rows per class.

    python benchmarks/calibration/calibrators.py --jobs 2

Three scikit-learn classifiers on handwritten digits, and CoOp on generated images with the embedded CLIP.
Each classifier is fitted once per seed; its calibrators are fitted on held-out rows; all metrics are computed
on separate test rows. Class-agnostic calibrators are also evaluated on unseen classes. The results are means
over seeds, with the standard deviation. Nothing is selected on the test rows.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from threadpoolctl import threadpool_limits

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, make_shapes
from clipcal.calibration import (
    CALIBRATORS,
    CalibratedCLIPClassifier,
    Calibrator,
    HistogramBinning,
    IsotonicCalibration,
    TemperatureScaling,
)
from clipcal.methods import CoOp
from clipcal.metrics import (
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    mean_confidence_gap,
    negative_log_likelihood,
    smooth_calibration_error,
)

RESULTS = Path(__file__).parent / "results" / "calibrators.json"
PER_CLASS = (4, 16, 64)
METRICS = {
    "nll": negative_log_likelihood,
    "brier": brier_score,
    "ece": expected_calibration_error,
    "smooth ece": smooth_calibration_error,
    "classwise ece": classwise_calibration_error,
    "gap": mean_confidence_gap,
}
METHODS: dict[str, Calibrator] = {
    **CALIBRATORS,
    "temperature, shrunk": TemperatureScaling(shrinkage=1.0),
    "isotonic, pooled": IsotonicCalibration("pooled"),
    "isotonic, one-vs-rest": IsotonicCalibration("one-vs-rest"),
    "histogram, one-vs-rest": HistogramBinning(scope="one-vs-rest"),
}


class Task(NamedTuple):
    """A fitted classifier, calibration rows, test rows, and rows of unseen classes."""

    name: str
    classifier: Any
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    X_new: np.ndarray | None = None
    y_new: np.ndarray | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    start = time.perf_counter()
    makers = [digits, shapes]
    found = Parallel(n_jobs=args.jobs)(
        delayed(run)(maker, seed) for maker in makers for seed in range(args.seeds)
    )
    records = [record for part in found for record in part]
    table = summarize(records)
    setup = {"seeds": args.seeds, "per_class": PER_CLASS, "seconds": round(time.perf_counter() - start)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(row) for row in table)
    args.out.write_text(f'{{"setup": {json.dumps(setup)},\n"table": [\n{rows}\n]}}\n', encoding="utf-8")
    print(as_tables(table))


def digits(seed: int) -> list[Task]:
    """Return three classifiers on few digits: an underfitted, an averaged and a very overconfident one."""
    X, y = load_digits(return_X_y=True)
    X_train, X_rest, y_train, y_rest = train_test_split(X, y, train_size=200, stratify=y, random_state=seed)
    X_cal, X_test, y_cal, y_test = train_test_split(
        X_rest, y_rest, train_size=0.5, stratify=y_rest, random_state=seed
    )
    classifiers = {
        "digits, logistic regression": LogisticRegression(C=1.0, max_iter=2000),
        "digits, random forest": RandomForestClassifier(random_state=seed),
        "digits, naive Bayes": GaussianNB(var_smoothing=1e-2),
    }
    return [
        Task(name, classifier.fit(X_train, y_train), X_cal, y_cal, X_test, y_test)
        for name, classifier in classifiers.items()
    ]


def shapes(seed: int) -> list[Task]:
    """Return CoOp on the embedded CLIP model, tuned on 16 images of each base class."""
    tasks = []
    encoder = CLIPImageEncoder("mini", device="cpu")
    for task in ("colors", "colored-shapes"):

        def embedded(subset: str, n_per_class: int, task: str = task) -> tuple[np.ndarray, np.ndarray]:
            options = {"domain": "street", "random_state": seed, "return_X_y": True}
            images, y = make_shapes(task, subset=subset, n_per_class=n_per_class, **options)
            return encoder.transform(images), y

        X, y = embedded("train", 16)
        X_cal, y_cal = embedded("validation", max(PER_CLASS))
        X_test, y_test = embedded("test", 50)
        names = make_shapes(task, domain="street", n_per_class=1, random_state=seed).class_names
        base = names[: (len(names) + 1) // 2]
        clf = PromptTunedCLIPClassifier(
            "mini",
            method=CoOp(context_init=None),
            recipe="original",
            max_epochs=30,
            random_state=seed,
            device="cpu",
        )
        seen, cal, test = (np.isin(labels, base) for labels in (y, y_cal, y_test))
        clf.fit(X[seen], y[seen])
        tested = X_test[test], y_test[test], X_test[~test], y_test[~test]
        tasks.append(Task(f"{task}, CoOp", clf, X_cal[cal], y_cal[cal], *tested))
    return tasks


def run(maker: Any, seed: int) -> list[dict[str, Any]]:
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return [record for task in maker(seed) for record in measure_task(task, seed)]


def measure_task(task: Task, seed: int) -> list[dict[str, Any]]:
    records = []
    here = {"task": task.name, "seed": seed}
    halves = {"base": (task.X_test, task.y_test)}
    if task.X_new is not None:
        halves["new"] = (task.X_new, task.y_new)

    def add(method: str, per_class: int, classifier: Any, half: str) -> None:
        X, y = halves[half]
        numbers = measure(classifier, X, y)
        records.append({**here, "method": method, "per_class": per_class, "half": half, **numbers})

    uncalibrated = {"base": task.classifier}
    if task.y_new is not None:
        uncalibrated["new"] = task.classifier.with_classes(sorted(set(task.y_new)))
    for half, classifier in uncalibrated.items():
        add("none", 0, classifier, half)
    for per_class in PER_CLASS:
        rows = few(task.y, per_class, seed)
        for name, method in METHODS.items():
            calibrated = CalibratedCLIPClassifier(task.classifier, method=method, cv="prefit")
            try:
                calibrated.fit(task.X[rows], task.y[rows])
            except (TypeError, ValueError) as refusal:
                records.append(
                    {**here, "method": name, "per_class": per_class, "half": "base", "refused": str(refusal)}
                )
                continue
            add(name, per_class, calibrated, "base")
            if calibrated.calibrator_.preserves_argmax:
                check_accuracy(records)
            if task.y_new is not None and calibrated.calibrator_.class_agnostic:
                add(name, per_class, calibrated.with_classes(sorted(set(task.y_new))), "new")
    return records


def check_accuracy(records: list[dict[str, Any]]) -> None:
    """Raise if a calibrator with ``preserves_argmax`` changed the accuracy."""
    last = records[-1]
    before = next(r for r in records if r["method"] == "none" and r["half"] == last["half"])
    if last["accuracy"] != before["accuracy"]:
        raise AssertionError(f"{last['method']} changed the accuracy of {last['task']}")


def few(y: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(y == label))[:per_class] for label in np.unique(y)]
    return np.concatenate(chosen)


def measure(classifier: Any, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    prob, labels = classifier.predict_proba(X), classifier.classes_
    numbers = {name: float(metric(y, prob, labels=labels)) for name, metric in METRICS.items()}
    return {"accuracy": float((classifier.predict(X) == y).mean()), **numbers}


def summarize(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        key = (record["task"], record["half"], record["per_class"], record["method"])
        groups[key].append(record)
    table = []
    for (task, half, per_class, method), group in groups.items():
        row: dict[str, Any] = {"task": task, "half": half, "per_class": per_class, "method": method}
        measured = [record for record in group if "refused" not in record]
        row["n_runs"], row["n_refused"] = len(measured), len(group) - len(measured)
        for name in ("accuracy", *METRICS):
            values = [record[name] for record in measured]
            if values:
                row[name] = [round(float(np.mean(values)), 5), round(float(np.std(values)), 5)]
        table.append(row)
    return table


def as_tables(table: list[dict[str, Any]]) -> str:
    """Return one Markdown table per task and half: methods by rows per class, log loss and ECE."""
    lines = []
    for task, half in dict.fromkeys((row["task"], row["half"]) for row in table):
        rows = {
            (row["method"], row["per_class"]): row
            for row in table
            if (row["task"], row["half"]) == (task, half)
        }
        none = rows["none", 0]
        lines += [
            f"\n{task}, {half} classes. Uncalibrated: log loss {none['nll'][0]:.3f}, "
            f"ECE {none['ece'][0]:.3f}, accuracy {none['accuracy'][0]:.3f}\n",
            "| method | " + " | ".join(f"NLL {n} | ECE {n} | acc. {n}" for n in PER_CLASS) + " |",
            "|---" * (1 + 3 * len(PER_CLASS)) + "|",
        ]
        for method in dict.fromkeys(name for name, _ in rows if name != "none"):
            cells = []
            for n in PER_CLASS:
                row = rows.get((method, n), {})
                cells += [cell(row, "nll"), cell(row, "ece"), cell(row, "accuracy", spread=False)]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any], name: str, *, spread: bool = True) -> str:
    if name not in row:
        return "-"
    mean, deviation = row[name]
    return f"{mean:.3f} ± {deviation:.3f}" if spread else f"{mean:.3f}"


if __name__ == "__main__":
    main()
