"""Folders of generated benchmark results, in the format that a run writes."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipcal.metrics import brier_score, calibration_bins, negative_log_likelihood

Cell = dict[str, Any]

VERSIONS = {"clipcal": "0.1.0", "numpy": "2.4.6", "python": "3.11.9", "torch": "2.8.0"}
CONTENDERS = (("zero-shot", "none"), ("CoOp", "none"), ("CoOp", "DOR"))


def never(cell: Cell) -> bool:
    return False


def base_to_new_cells(
    datasets: Sequence[str] = ("mini/colors-street", "mini/shapes-plain"),
    contenders: Sequence[tuple[str, str]] = CONTENDERS,
    calibrators: Sequence[str] = ("none",),
    seeds: Sequence[int] = (1, 2, 3),
    n_shots: int = 16,
) -> list[Cell]:
    """Return the cells of a plan, without seeds for zero-shot models that are not calibrated."""
    cells = []
    for (method, regularizer), dataset, calibrator in itertools.product(contenders, datasets, calibrators):
        drawn = method != "zero-shot" or calibrator != "none"
        for seed, classes in itertools.product(seeds if drawn else (0,), ("base", "new")):
            shots = n_shots if drawn else 0
            cells.append(
                make_cell(
                    "base-to-new", dataset, dataset, classes, method, regularizer, calibrator, shots, seed
                )
            )
    return cells


def transfer_cells(
    protocol: str = "cross-dataset",
    source: str = "imagenet",
    targets: Sequence[str] = ("dtd", "eurosat"),
    contenders: Sequence[tuple[str, str]] = CONTENDERS,
    seeds: Sequence[int] = (1, 2, 3),
) -> list[Cell]:
    """Return cells of models that are trained on one data set and evaluated on all."""
    cells = []
    for (method, regularizer), dataset in itertools.product(contenders, (source, *targets)):
        drawn = method != "zero-shot"
        for seed in seeds if drawn else (0,):
            shots = 16 if drawn else 0
            cells.append(
                make_cell(protocol, source, dataset, "all", method, regularizer, "none", shots, seed)
            )
    return cells


def few_shot_cells(
    datasets: Sequence[str] = ("dtd", "eurosat"),
    contenders: Sequence[tuple[str, str]] = CONTENDERS,
    n_shots: Sequence[int] = (1, 16),
    seeds: Sequence[int] = (1, 2, 3),
) -> list[Cell]:
    """Return cells of models that are trained and evaluated on all classes."""
    cells = []
    for (method, regularizer), dataset in itertools.product(contenders, datasets):
        pairs = [(0, 0)] if method == "zero-shot" else list(itertools.product(n_shots, seeds))
        cells += [
            make_cell("few-shot", dataset, dataset, "all", method, regularizer, "none", shots, seed)
            for shots, seed in pairs
        ]
    return cells


def make_cell(
    protocol: str,
    train_dataset: str,
    dataset: str,
    classes: str,
    method: str,
    regularizer: str = "none",
    calibrator: str = "none",
    n_shots: int = 16,
    seed: int = 1,
) -> Cell:
    return {
        "protocol": protocol,
        "train_dataset": train_dataset,
        "dataset": dataset,
        "classes": classes,
        "method": method,
        "regularizer": regularizer,
        "calibrator": calibrator,
        "n_shots": n_shots,
        "seed": seed,
    }


def key_of(cell: Cell) -> str:
    return hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:32]


def write_results(
    folder: Path,
    cells: Sequence[Cell],
    *,
    name: str = "trial",
    missing: Callable[[Cell], bool] = never,
    failed: Callable[[Cell], bool] = never,
    paper: Sequence[dict[str, Any]] = (),
    metrics: Callable[[Cell], dict[str, float]] | None = None,
    versions: Callable[[Cell], dict[str, str]] = lambda cell: VERSIONS,
    error: str = "ValueError: the loss is not finite.",
    n_test: int = 60,
    n_classes: int = 5,
) -> Path:
    """Write results of generated predictions; `metrics` overrides some of their metrics."""
    for part in ("cells", "failed", "runs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    listed = [{"key": key_of(cell), "cell": cell} for cell in cells]
    plan = {"name": name, "n_bins": 15, "seeds": sorted({cell["seed"] for cell in cells} - {0})}
    _write(
        folder / "plan.json",
        {"format": 1, "name": name, "plan": plan, "cells": listed, "paper": list(paper)},
    )
    for cell in cells:
        key = key_of(cell)
        if failed(cell):
            told = {"error": error, "traceback": f"Traceback (most recent call last):\n{error}\n"}
            _write(folder / "failed" / f"{key}.json", {"format": 1, "key": key, "cell": cell, **told})
        elif not missing(cell):
            y_true, y_prob = make_predictions(cell, n_test, n_classes)
            classes = np.array([f"class {column}" for column in range(n_classes)])
            np.savez(folder / "cells" / f"{key}.npz", y_true=y_true, y_prob=y_prob, classes=classes)
            numbers = measured(y_true, y_prob) | (metrics(cell) if metrics else {})
            _write(folder / "cells" / f"{key}.json", _record(key, cell, numbers, versions(cell), n_test))
            run = {"key": key, "fit_seconds": 1.5, "evaluation_seconds": 0.25, "device": "cpu"}
            _write(folder / "runs" / f"{key}.json", run)
    return folder


def make_predictions(cell: Cell, n_test: int, n_classes: int) -> tuple[Any, Any]:
    """Draw predictions; the true classes depend on the test images only."""
    y_true = _rng(cell["dataset"], cell["classes"]).integers(n_classes, size=n_test)
    rng = _rng(*cell.values())
    # A regularizer lowers confidence and hardly changes accuracy.
    scale = 2.0 if cell["regularizer"] != "none" or cell["method"] == "zero-shot" else 3.5
    logits = rng.normal(size=(n_test, n_classes)) + 1.6 * np.eye(n_classes)[y_true]
    exponential = np.exp(scale * (logits - logits.max(axis=1, keepdims=True)))
    return y_true, (exponential / exponential.sum(axis=1, keepdims=True)).astype(np.float32)


def measured(y_true: Any, y_prob: Any) -> dict[str, float]:
    labels, y_prob = np.arange(y_prob.shape[1]), y_prob.astype(np.float64)
    bins = calibration_bins(y_true, y_prob, labels=labels, n_bins=15)
    return {
        "accuracy": float((y_prob.argmax(axis=1) == y_true).mean()),
        "confidence": float(y_prob.max(axis=1).mean()),
        "ece": bins.error,
        "brier": float(brier_score(y_true, y_prob, labels=labels)),
        "log_loss": float(negative_log_likelihood(y_true, y_prob, labels=labels)),
    }


def _record(key: str, cell: Cell, metrics: Any, versions: Any, n_test: int) -> dict[str, Any]:
    return {
        "format": 1,
        "key": key,
        "cell": cell,
        "settings": {"estimator": {"max_epochs": 5}, "calibrator": None, "n_bins": 15},
        "backbone": {"name": "mini", "fingerprint": "0123456789abcdef", "precision": "float32"},
        "data": {
            "train": {"n": cell["n_shots"] * 5, "digest": "aa"},
            "validation": None,
            "test": {"n": n_test, "digest": hashlib.sha256(cell["dataset"].encode()).hexdigest()},
            "draw": "stable",
            "template": "a photo of a {}.",
            "notes": [],
        },
        "versions": versions,
        "metrics": metrics,
    }


def _rng(*parts: Any) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(repr(parts).encode()).digest()))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
