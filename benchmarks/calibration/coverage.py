"""Measure the coverage of the intervals and tests of `clipcal.metrics` on simulated data.

    python benchmarks/calibration/coverage.py --out benchmarks/calibration/results/coverage.json

Confidences of ten-class rows are drawn for each replicate. The true error is constant ("shift"), of
alternating sign from bin to bin ("mixed"), or in the last bin only ("one bin"). True values are those of the
15 bins in the limit of infinitely many rows. Adverse settings follow: few or saturated rows in one bin, where
errors are rare, and pairs of models with errors of opposite sign, whose true errors are equal although they
agree on every row. Takes about four minutes with the default replicates.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from clipcal.metrics import calibration_interval, calibration_test, compare_calibration

ERRORS = [0.0, 0.01, 0.02, 0.05, 0.10]
SIZES = [200, 1000, 10_000]
N_CLASSES = 10
LABELS = np.arange(N_CLASSES)
LAST = 14 / 15
POPULATION = 400_000


def confidences(rng: np.random.Generator, n: int, sharp: float = 1.0) -> np.ndarray:
    return 0.1 + 0.9 * rng.beta(4, 1.5, n) ** (1 / sharp)


LAST_SHARE = float((confidences(np.random.default_rng(0), POPULATION) > LAST).mean())


def truth(confidence: np.ndarray, error: float, pattern: str) -> np.ndarray:
    """Return the probability that each prediction is right."""
    if pattern == "shift":
        off = np.full(len(confidence), error)
    elif pattern == "mixed":
        # If the probability would exceed 1, the sign is changed: the model is overconfident there.
        over = (np.ceil(confidence * 15) % 2 == 1) | (confidence > 1 - error)
        off = np.where(over, error, -error)
    else:
        off = np.where(confidence > LAST, error / LAST_SHARE, 0.0)
    return np.clip(confidence - off, 0, 1)


def rows(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return the class probabilities of rows whose true class is 0."""
    prob = np.repeat((1 - confidence)[:, None] / (N_CLASSES - 1), N_CLASSES, axis=1)
    prob[np.arange(len(prob)), np.where(correct, 0, 1)] = confidence
    return prob


@lru_cache
def true_values(error: float, pattern: str) -> tuple[float, float]:
    """Return the true calibration error and mean gap."""
    confidence = confidences(np.random.default_rng(1), POPULATION)
    gap = confidence - truth(confidence, error, pattern)
    true = float(np.abs(np.bincount(np.ceil(confidence * 15).astype(int), gap)).sum() / len(gap))
    return true, float(gap.mean())


def intervals(replicates: Callable[[int], int]) -> list[dict[str, Any]]:
    records = []
    for n in SIZES:
        for pattern in ("shift", "mixed", "one bin"):
            for error in ERRORS:
                if error == 0 and pattern != "shift":
                    continue
                ways = ["inversion", "gap"] + (["basic"] if pattern == "shift" else [])
                for way in ways:
                    count = replicates(n) // (2 if way == "basic" and n > 1000 else 1)
                    records.append(interval_record(n, pattern, error, way, count))
    return records


def interval_record(n: int, pattern: str, error: float, way: str, count: int) -> dict[str, Any]:
    rng = np.random.default_rng([n, int(error * 100), len(pattern)])
    true = true_values(error, pattern)[way == "gap"]
    options = {"metric": "gap"} if way == "gap" else {"method": way, "n_resamples": 400}
    above = below = 0
    ends = np.zeros(3)
    for _ in range(count):
        confidence = confidences(rng, n)
        prob = rows(confidence, rng.random(n) < truth(confidence, error, pattern))
        seed = int(rng.integers(2**31))
        found = calibration_interval(np.zeros(n, int), prob, labels=LABELS, random_state=seed, **options)
        above += found.low > true + 1e-12
        below += found.high < true - 1e-12
        ends += np.array(found) / count
    return {
        "n": n, "pattern": pattern, "error": error, "method": way, "replicates": count,
        "coverage": 1 - (above + below) / count, "low too high": above / count,
        "high too low": below / count, "mean estimate": ends[0], "mean low": ends[1], "mean high": ends[2],
    }  # fmt: skip


def tests(replicates: Callable[[int], int]) -> list[dict[str, Any]]:
    records = []
    for n in SIZES:
        for error in ERRORS:
            rng = np.random.default_rng([n, int(error * 100)])
            rejected, count = 0, replicates(n)
            for _ in range(count):
                confidence = confidences(rng, n)
                prob = rows(confidence, rng.random(n) < truth(confidence, error, "shift"))
                seed = int(rng.integers(2**31))
                options = {"labels": LABELS, "n_resamples": 399, "random_state": seed}
                rejected += calibration_test(np.zeros(n, int), prob, **options).pvalue <= 0.05
            records.append({"n": n, "error": error, "replicates": count, "rejected": rejected / count})
    return records


# Error and pattern of two models, and the sharpness of the second relative to the first.
PAIRS = {
    "both calibrated": (0.0, "shift", 0.0, "shift", 1.0),
    "both calibrated, one sharper": (0.0, "shift", 0.0, "shift", 4.0),
    "both off by .05 everywhere": (0.05, "shift", 0.05, "shift", 1.0),
    "both .05, one all in one bin": (0.05, "shift", 0.05, "one bin", 1.0),
    ".05 and calibrated": (0.05, "shift", 0.0, "shift", 1.0),
    ".10 and .05": (0.10, "shift", 0.05, "shift", 1.0),
}


def comparisons(replicates: Callable[[int], int]) -> list[dict[str, Any]]:
    records = []
    for n in SIZES:
        for name, pair in PAIRS.items():
            for metric in ("ece", "brier"):
                count = replicates(n) // (2 if metric == "ece" and n > 1000 else 1)
                records.append(comparison_record(n, name, pair, metric, count))
    return records


def draw_pair(rng: np.random.Generator, n: int, pair: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    error_a, pattern_a, error_b, pattern_b, sharp = pair
    a, b = confidences(rng, n), confidences(rng, n, sharp)
    alike = rng.random(n) < 0.7
    b = np.where(alike, 0.1 + 0.9 * ((a - 0.1) / 0.9) ** (1 / sharp), b)
    return a, b, truth(a, error_a, pattern_a), truth(b, error_b, pattern_b)


def expected_brier(confidence: np.ndarray, right: np.ndarray) -> float:
    rest = (1 - confidence) / (N_CLASSES - 1)
    square = confidence**2 + (N_CLASSES - 1) * rest**2
    return float((square + 1 - 2 * (right * confidence + (1 - right) * rest)).mean())


def comparison_record(n: int, name: str, pair: tuple[Any, ...], metric: str, count: int) -> dict[str, Any]:
    rng = np.random.default_rng([n, len(name)])
    if metric == "ece":
        true = true_values(*pair[:2])[0] - true_values(*pair[2:4])[0]
    else:
        a, b, right_a, right_b = draw_pair(np.random.default_rng(1), POPULATION, pair)
        true = expected_brier(a, right_a) - expected_brier(b, right_b)
    covered = rejected = 0
    width = 0.0
    for _ in range(count):
        a, b, right_a, right_b = draw_pair(rng, n, pair)
        chance = rng.random(n)
        other = np.where(rng.random(n) < 0.7, chance, rng.random(n))
        prob_a, prob_b = rows(a, chance < right_a), rows(b, other < right_b)
        seed = int(rng.integers(2**31))
        options = {"labels": LABELS, "metric": metric, "n_resamples": 300, "random_state": seed}
        found = compare_calibration(np.zeros(n, int), prob_a, prob_b, **options)
        covered += found.low <= true <= found.high
        rejected += found.pvalue <= 0.05
        width += (found.high - found.low) / count
    return {
        "n": n, "pair": name, "metric": metric, "replicates": count, "true": true,
        "coverage": covered / count, "rejected": rejected / count, "mean width": width,
    }  # fmt: skip


# Number of rows, whether weights are exponential, and confidence and accuracy of all rows.
SATURATED = [
    (50, False, 0.99, 0.95), (100, False, 0.99, 0.97), (200, False, 0.99, 0.97), (500, False, 0.99, 0.98),
    (1000, False, 0.99, 0.97), (100, False, 0.95, 0.90), (100, False, 0.90, 0.97), (100, True, 0.99, 0.97),
    (300, True, 0.99, 0.97), (1000, True, 0.99, 0.97), (300, True, 0.95, 0.90),
]  # fmt: skip


def saturated_intervals(count: int) -> list[dict[str, Any]]:
    records = []
    for n, weigh, confidence, accuracy in SATURATED:
        rng = np.random.default_rng([n, weigh, int(confidence * 100)])
        true = abs(confidence - accuracy)
        covered, width = 0, 0.0
        for seed in range(count):
            y = (rng.random(n) < accuracy).astype(int)
            weight = rng.exponential(size=n) if weigh else None
            options = {"labels": [0, 1], "sample_weight": weight, "n_resamples": 400, "random_state": seed}
            found = calibration_interval(y, np.full(n, confidence), **options)
            covered += found.low - 1e-9 <= true <= found.high + 1e-9
            width += (found.high - found.low) / count
        records.append(
            {"n": n, "weights": weigh, "confidence": confidence, "accuracy": accuracy, "replicates": count,
             "coverage": covered / count, "mean width": width}
        )  # fmt: skip
    return records


def draw_certain(rng: np.random.Generator, n: int, kind: str) -> tuple[np.ndarray, float]:
    """Return the probability that predictions are right, and the errors of the two models around it."""
    if kind == "one bin, .70":
        return np.full(n, 0.70), 0.02
    if kind == "one bin, .97":
        return np.full(n, 0.97), 0.02
    if kind == "saturated":
        return np.maximum(0.01 + 0.98 * rng.beta(30, 1, n), 0.5), 0.02
    return rng.uniform(0.55, 0.95, n), 0.04 if kind == "spread, .04" else 0.02


OPPOSITE = {
    "one bin, .70": (100, 300, 1000),
    "one bin, .97": (30, 100, 300, 1000),
    "spread, .02": (100, 300, 1000),
    "spread, .04": (300,),
    "saturated": (100, 300),
}


def opposite_comparisons(count: int) -> list[dict[str, Any]]:
    records = []
    for kind, sizes in OPPOSITE.items():
        right, off = draw_certain(np.random.default_rng(0), POPULATION, kind)
        errors = []
        for confidence in clipped(right, off):
            gap = np.bincount(np.ceil(confidence * 15).astype(int), confidence - right)
            errors.append(float(np.abs(gap).sum() / POPULATION))
        true = errors[0] - errors[1] if kind == "saturated" else 0.0
        for n in sizes:
            rng = np.random.default_rng([n, len(kind)])
            covered, rejected, width = 0, 0, 0.0
            for seed in range(count):
                right, off = draw_certain(rng, n, kind)
                y, (a, b) = (rng.random(n) < right).astype(int), clipped(right, off)
                found = compare_calibration(y, a, b, labels=[0, 1], n_resamples=400, random_state=seed)
                covered += found.low - 1e-9 <= true <= found.high + 1e-9
                rejected += found.pvalue <= 0.05
                width += (found.high - found.low) / count
            records.append(
                {"n": n, "kind": kind, "replicates": count, "true": true, "coverage": covered / count,
                 "rejected": rejected / count, "mean width": width}
            )  # fmt: skip
    return records


def clipped(right: np.ndarray, off: float) -> tuple[np.ndarray, np.ndarray]:
    return np.minimum(right + off, 0.9999), np.maximum(right - off, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=200, help="for up to 1000 rows; a half beyond")
    default = Path(__file__).parent / "results" / "coverage.json"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args()

    def replicates(n: int) -> int:
        return args.replicates if n <= 1000 else args.replicates // 2

    start = time.perf_counter()
    found = {
        "intervals": intervals(replicates),
        "tests": tests(replicates),
        "comparisons": comparisons(replicates),
        "saturated intervals": saturated_intervals(2 * args.replicates),
        "opposite comparisons": opposite_comparisons(2 * args.replicates),
    }
    found["seconds"] = round(time.perf_counter() - start, 1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
