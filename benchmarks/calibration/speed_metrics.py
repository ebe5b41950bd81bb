"""Time binned calibration errors against netcal, torchmetrics and scikit-learn.

    python benchmarks/calibration/speed_metrics.py
    python benchmarks/calibration/speed_metrics.py --binary-samples 100000 --samples 5000 --classes 100

`ratio` is the time of the other library divided by that of clipcal: 3 means that clipcal takes a third. The
libraries compute the same value, which is checked before the timing. The inputs of the others are prepared
outside of the timing: float32 tensors for torchmetrics, and confidence and correctness for libraries that
support binary events only. clipcal starts from labels and probabilities and validates both each time. The
others have no classwise error, so they are called for each column; scikit-learn's curves have no counts, so
`np.bincount` is added. Everything runs in one thread. Requires netcal and torchmetrics, about 2 GiB, and
several minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import netcal.metrics as netcal
import numpy as np
import torch
from sklearn.calibration import calibration_curve
from threadpoolctl import threadpool_limits
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))

from paired import compare, report

from clipcal.metrics import (
    adaptive_calibration_error,
    calibration_bins,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    root_mean_square_calibration_error,
)

N_BINS = 15


class Pair(NamedTuple):
    metric: str
    other: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    tolerance: float = 1e-4  # torchmetrics sums a million values in float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary-samples", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--classwise-rounds", type=int, default=3)
    args = parser.parse_args()

    torch.set_num_threads(1)
    records = []
    with threadpool_limits(1):
        for pair in binary(args.binary_samples):
            records.append(measure(pair, args.binary_samples, 2, args.rounds))
        y, prob = many_classes(args.samples, args.classes)
        for pair in top_label(y, prob):
            records.append(measure(pair, args.samples, args.classes, args.rounds))
        for pair in classwise(y, prob):
            records.append(measure(pair, args.samples, args.classes, args.classwise_rounds))
    report("speed_metrics", records, results=Path(__file__).parent / "results")


def measure(pair: Pair, n_samples: int, n_classes: int, n_rounds: int) -> dict[str, Any]:
    # Comparing the values also warms up.
    np.testing.assert_allclose(pair.ours(), pair.theirs(), atol=pair.tolerance, err_msg=str(pair[:2]))
    timed = compare({"theirs": pair.theirs, "ours": pair.ours}, n_rounds=n_rounds, n_warmup=0)
    return {
        "metric": pair.metric,
        "other": pair.other,
        "samples": n_samples,
        "classes": n_classes,
        "theirs, s": timed["theirs"]["seconds"],
        "ours, s": timed["ours"]["seconds"],
        "ratio": timed["ours"]["ratio"],
        "rounds": n_rounds,
    }


def binary(n_samples: int) -> Iterator[Pair]:
    rng = np.random.default_rng(0)
    p = rng.random(n_samples)
    y = (rng.random(n_samples) < p**1.3).astype(np.int64)
    confidence = np.maximum(p, 1 - p)
    correct = ((p > 0.5) == y).astype(np.int64)
    tensors = torch.tensor(confidence, dtype=torch.float32), torch.tensor(correct)

    def torch_error(norm: Any) -> Callable[[], float]:
        return lambda: float(binary_calibration_error(*tensors, n_bins=N_BINS, norm=norm))

    def ece() -> float:
        return expected_calibration_error(y, p)

    def mce() -> float:
        return maximum_calibration_error(y, p)

    yield Pair("ECE", "netcal", lambda: netcal.ECE(N_BINS).measure(confidence, correct), ece)
    yield Pair("ECE", "torchmetrics", torch_error("l1"), ece)
    yield Pair("MCE", "netcal", lambda: netcal.MCE(N_BINS).measure(confidence, correct), mce)
    yield Pair("MCE", "torchmetrics", torch_error("max"), mce)
    yield Pair("RMSCE", "torchmetrics", torch_error("l2"), lambda: root_mean_square_calibration_error(y, p))
    # Quantile edges differ slightly from those of clipcal.
    equal_mass = netcal.ECE(N_BINS, equal_intervals=False)
    yield Pair(
        "ACE",
        "netcal",
        lambda: equal_mass.measure(confidence, correct),
        lambda: adaptive_calibration_error(y, p),
        tolerance=5e-3,
    )
    yield Pair(
        "curve",
        "scikit-learn",
        lambda: calibration_curve(correct, confidence, n_bins=N_BINS)[0],
        lambda: filled(calibration_bins(y, p)),
    )


def many_classes(n_samples: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    prob = rng.standard_normal((n_samples, n_classes), dtype=np.float32) * 3
    np.exp(prob, out=prob)
    prob /= prob.sum(axis=1, keepdims=True)
    guess = rng.integers(0, n_classes, n_samples)
    guess[:n_classes] = np.arange(n_classes)
    return np.where(rng.random(n_samples) < 0.4, prob.argmax(axis=1), guess), prob


def top_label(y: np.ndarray, prob: np.ndarray) -> Iterator[Pair]:
    n_classes = prob.shape[1]
    labels = np.arange(n_classes)
    tensors = torch.tensor(prob), torch.tensor(y)

    def torch_error(norm: Any) -> Callable[[], float]:
        return lambda: float(multiclass_calibration_error(*tensors, n_classes, n_bins=N_BINS, norm=norm))

    def ece() -> float:
        return expected_calibration_error(y, prob, labels=labels)

    def mce() -> float:
        return maximum_calibration_error(y, prob, labels=labels)

    def rmsce() -> float:
        return root_mean_square_calibration_error(y, prob, labels=labels)

    def curve() -> np.ndarray:
        first = prob.argmax(axis=1)
        return calibration_curve(first == y, prob.max(axis=1), n_bins=N_BINS)[0]

    yield Pair("ECE", "netcal", lambda: netcal.ECE(N_BINS).measure(prob, y), ece)
    yield Pair("ECE", "torchmetrics", torch_error("l1"), ece)
    yield Pair("MCE", "netcal", lambda: netcal.MCE(N_BINS).measure(prob, y), mce)
    yield Pair("MCE", "torchmetrics", torch_error("max"), mce)
    yield Pair("RMSCE", "torchmetrics", torch_error("l2"), rmsce)
    yield Pair("curve", "scikit-learn", curve, lambda: filled(calibration_bins(y, prob, labels=labels)))


def classwise(y: np.ndarray, prob: np.ndarray) -> Iterator[Pair]:
    classes = range(prob.shape[1])
    columns, events = np.ascontiguousarray(prob.T), np.array([y == k for k in classes], dtype=np.int64)
    tensors = torch.tensor(columns), torch.tensor(events)

    def by_netcal() -> float:
        ece = netcal.ECE(N_BINS)
        return float(np.mean([ece.measure(columns[k], events[k]) for k in classes]))

    def by_torchmetrics() -> float:
        pairs = zip(*tensors, strict=True)
        return float(np.mean([float(binary_calibration_error(p, a, n_bins=N_BINS)) for p, a in pairs]))

    def ours() -> float:
        return classwise_calibration_error(y, prob, labels=np.array(classes))

    def by_scikit_learn() -> float:
        cuts = np.linspace(0, 1, N_BINS + 1)[1:-1]
        errors = []
        for k in classes:
            accuracy, claim = calibration_curve(events[k], columns[k], n_bins=N_BINS)
            count = np.bincount(np.searchsorted(cuts, columns[k]), minlength=N_BINS)
            errors.append(count[count > 0] @ np.abs(accuracy - claim) / len(y))
        return float(np.mean(errors))

    yield Pair("classwise ECE", "netcal", by_netcal, ours)
    yield Pair("classwise ECE", "torchmetrics", by_torchmetrics, ours)
    yield Pair("classwise ECE", "scikit-learn", by_scikit_learn, ours)


def filled(bins: Any) -> np.ndarray:
    return bins.accuracy[bins.count > 0]


if __name__ == "__main__":
    main()
