"""Time prediction on embeddings against the bare matrix product and softmax.

    python benchmarks/speed/predict.py
    python benchmarks/speed/predict.py --samples 20000 --classes 21000

The bare version computes the product and the softmax of the complete float64 matrix, without validation,
normalization or blocks. Its ratio is 1; a ratio of 0.8 is 80 % of its speed. Memory is the peak allocation of
NumPy in addition to the returned array, without the input. The default takes about 3 GiB.
"""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from paired import compare, report

from clipcal import ZeroShotCLIPClassifier

LOGIT_SCALE = 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    X32 = unit_rows(args.samples, args.features, seed=0)
    X64 = X32.astype(np.float64)
    text_features = unit_rows(args.classes, args.features, seed=1)
    clf = classifier(text_features)
    weights = text_features.astype(np.float64)
    contenders: dict[str, Callable[[], NDArray[Any]]] = {
        "bare product and softmax": lambda: bare(X64, weights),
        "predict_proba, float64": lambda: clf.predict_proba(X64),
        "predict_proba, float32": lambda: clf.predict_proba(X32),
        "predict, float32": lambda: clf.predict(X32),
    }
    few = slice(0, 3000)
    np.testing.assert_allclose(clf.predict_proba(X32[few]), bare(X64[few], weights), atol=1e-6)

    peaks = {name: peak_above_output(run) for name, run in contenders.items()}
    # The measurement of the peaks was the warm-up.
    timed = compare(contenders, n_rounds=args.rounds, n_warmup=0)
    sizes = {"samples": args.samples, "features": args.features, "classes": args.classes}
    report(
        "predict",
        [{"contender": name, **sizes, **timed[name], "MiB above output": peaks[name]} for name in contenders],
    )


def unit_rows(n_rows: int, n_features: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((n_rows, n_features), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def classifier(text_features: NDArray[np.float32]) -> ZeroShotCLIPClassifier:
    # Set the attributes that prediction on embeddings uses, without a fit, which would encode a thousand
    # prompts.
    clf = ZeroShotCLIPClassifier()
    clf.classes_ = np.arange(len(text_features))
    clf.text_features_ = text_features
    clf.logit_scale_ = LOGIT_SCALE
    clf.n_features_in_ = text_features.shape[1]
    return clf


def bare(X: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    Z = X @ weights.T * LOGIT_SCALE
    Z -= Z.max(axis=1, keepdims=True)
    np.exp(Z, out=Z)
    Z /= Z.sum(axis=1, keepdims=True)
    return Z


def peak_above_output(run: Callable[[], NDArray[Any]]) -> float:
    tracemalloc.start()
    try:
        output = run()
        return (tracemalloc.get_traced_memory()[1] - output.nbytes) / 2**20
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
