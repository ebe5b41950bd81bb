"""Measure the effect of the edges of equal-weight bins on ACE and PIECE.

    python benchmarks/calibration/equal_weight_cuts.py

In clipcal, edges are between rows, and ties are in the lower bin. In the published code, edges are quantiles,
as in ``KBinsDiscretizer(strategy="quantile")`` of scikit-learn before 1.9, and values on an edge are in the
upper bin. Both are computed on simulated sets of predictions for ten classes, with somewhat too high
confidences and random proximities. The printed values are absolute differences.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from clipcal.metrics import adaptive_calibration_error, proximity_informed_calibration_error

N_CLASSES, N_BINS = 10, 10
N_ROWS = (53, 203, 1003, 5003, 10003)
RESULTS = Path(__file__).parent / "results" / "equal_weight_cuts.json"


def main() -> None:
    """Print a table and write it to ``results/equal_weight_cuts.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=400)
    n_simulations = parser.parse_args().simulations
    warnings.filterwarnings("ignore", message=".*leave fewer than")
    records = []
    for n_rows in N_ROWS:
        generator = np.random.default_rng(n_rows)
        found = np.array([differences(generator, n_rows) for _ in range(n_simulations)])
        ace, by_ace, by_piece = found.T
        record = {
            "rows": n_rows,
            "ACE": float(ace.mean()),
            "ACE differs by, median": float(np.median(by_ace)),
            "ACE differs by, largest": float(by_ace.max()),
            "PIECE differs by, median": float(np.median(by_piece)),
            "PIECE differs by, largest": float(by_piece.max()),
        }
        records.append({name: round(value, 5) for name, value in record.items()})
        print(records[-1], flush=True)
    content = {"simulations": n_simulations, "records": records}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def differences(generator: np.random.Generator, n_rows: int) -> tuple[float, float, float]:
    """Return the ACE of one simulated set, and the differences of ACE and PIECE from the published code."""
    logits = 2.0 * generator.normal(size=(n_rows, N_CLASSES))
    true_prob, prob = softmax(logits, axis=1), softmax(1.4 * logits, axis=1)
    y = (true_prob.cumsum(axis=1) < generator.random((n_rows, 1))).sum(axis=1).clip(max=N_CLASSES - 1)
    nearness = generator.random(n_rows)
    confidence, correct = prob.max(axis=1), prob.argmax(axis=1) == y
    given = {"labels": np.arange(N_CLASSES), "n_bins": N_BINS}
    ace = adaptive_calibration_error(y, prob, **given)
    piece = proximity_informed_calibration_error(
        y, prob, proximity=nearness, n_proximity_bins=N_BINS, closed="left", **given
    )
    gap = confidence - correct
    theirs = binned_error(gap, quantile_bins(confidence))
    by_width = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    cells = quantile_bins(nearness) * N_BINS + by_width
    return ace, abs(ace - theirs), abs(piece - binned_error(gap, cells))


def quantile_bins(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the bins of values with quantiles as edges; a value on an edge is in the upper bin."""
    cuts = np.quantile(values, np.arange(1, N_BINS) / N_BINS)
    return np.searchsorted(cuts, values, side="right")


def binned_error(gap: NDArray[np.float64], index: NDArray[np.intp]) -> float:
    """Return the mean over rows of the absolute mean gap of their bin."""
    return float(np.abs(np.bincount(index, weights=gap)).sum() / len(gap))


if __name__ == "__main__":
    main()
