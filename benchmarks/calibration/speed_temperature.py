"""Compare the temperature solver with torch's L-BFGS in its common form, and with scikit-learn's solver.

    python benchmarks/calibration/speed_temperature.py
    python benchmarks/calibration/speed_temperature.py --samples 5000 --classes 100

`ratio` is the time of the other solver divided by that of clipcal. `excess` is the difference of its log loss
from the lowest one, in nats, and `off` is the relative difference of its inverse temperature from the
optimum. The optimum is verified by an independent derivative in float64, which must be negative 1e-8 below
the solution of clipcal and positive 1e-8 above it. The common form of L-BFGS starts at a temperature of 1.5,
with a learning rate of 0.01 and 50 iterations, on float32 logits. scikit-learn's solver is called through
`CalibratedClassifierCV` with a frozen classifier that returns its input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))

from paired import compare, report

from clipcal.calibration import TemperatureScaling, fit_temperature


class Logits(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose logits are its input."""

    def __init__(self, n_classes: int = 2) -> None:
        self.n_classes = n_classes

    def fit(self, X, y):
        self.classes_ = np.arange(self.n_classes)
        return self

    def decision_function(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(args.samples, args.classes)).astype(np.float32) * 3
    y = np.empty(args.samples, dtype=np.int64)
    for start in range(0, args.samples, 4096):  # noise for all rows would double the memory
        rows = slice(start, start + 4096)
        y[rows] = (0.55 * logits[rows] + rng.gumbel(size=logits[rows].shape)).argmax(axis=1)

    frozen = FrozenEstimator(Logits(args.classes).fit(logits, y))

    def scikit_learn() -> float:
        rows = np.arange(len(y))
        model = CalibratedClassifierCV(frozen, method="temperature", cv=[(rows, rows)], ensemble=False)
        model.fit(logits, y)
        return model.calibrated_classifiers_[0].calibrators[0].beta_

    contenders = {
        "fit_temperature": lambda: fit_temperature(logits, y),
        "TemperatureScaling": lambda: 1 / TemperatureScaling().fit(logits, y).temperature_,
        "torch L-BFGS": lambda: lbfgs(logits, y),
        "scikit-learn": scikit_learn,
    }
    found = {name: float(run()) for name, run in contenders.items()}
    best = found["fit_temperature"]
    check_bracket(logits, y, best)
    lowest = log_loss(logits, y, best)
    times = compare(contenders, n_rounds=args.rounds, n_warmup=0)
    report(
        "speed_temperature",
        [
            {
                "solver": name,
                "samples": args.samples,
                "classes": args.classes,
                "seconds": times[name]["seconds"],
                "ratio": 1 / times[name]["ratio"],
                "inverse_temperature": beta,
                "off": abs(beta / best - 1),
                "excess": max(0.0, log_loss(logits, y, beta) - lowest),
            }
            for name, beta in found.items()
        ],
        results=Path(__file__).parent / "results",
    )


def lbfgs(logits: np.ndarray, y: np.ndarray) -> float:
    inputs, targets = torch.from_numpy(logits), torch.from_numpy(y)
    temperature = torch.nn.Parameter(torch.ones(1) * 1.5)
    optimizer = torch.optim.LBFGS([temperature], lr=0.01, max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs / temperature, targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    return 1 / temperature.item()


def check_bracket(logits: np.ndarray, y: np.ndarray, best: float) -> None:
    below, above = (slope(logits, y, best * (1 + shift)) for shift in (-1e-8, 1e-8))
    if not below < 0 < above:
        raise AssertionError(f"{best} is further than 1e-8 from the optimum: slopes {below}, {above}")


def slope(logits: np.ndarray, y: np.ndarray, beta: float) -> float:
    total = 0.0
    for rows in blocks(len(y)):
        block = logits[rows].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        expected = (softmax(beta * block, axis=1) * block).sum(axis=1)
        total += float((expected - block[np.arange(len(block)), y[rows]]).sum())
    return total / len(y)


def log_loss(logits: np.ndarray, y: np.ndarray, beta: float) -> float:
    total = 0.0
    for rows in blocks(len(y)):
        log_prob = log_softmax(beta * logits[rows].astype(np.float64), axis=1)
        total -= float(log_prob[np.arange(len(log_prob)), y[rows]].sum())
    return total / len(y)


def blocks(n_rows: int) -> list[slice]:
    return [slice(start, start + 1024) for start in range(0, n_rows, 1024)]


if __name__ == "__main__":
    main()
