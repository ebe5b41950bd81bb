"""What the choice of the outlier pool does to CoOp + DOR, on validation pictures of the demo's tasks.

    python benchmarks/dor/pools.py

Prints one row a pool: mean and standard deviation over tasks and seeds, in per cent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
from joblib import Memory, Parallel, cpu_count, delayed

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, expected_calibration_error, make_shapes
from clipcal.backbones import open_backbone
from clipcal.methods import CoOp, zero_shot_features
from clipcal.regularizers import DynamicOutlierRegularizer
from clipcal.text import DEFAULT_TEMPLATE, load_nouns

TASKS = (("colors", "street"), ("colored-shapes", "street"), ("colors", "faded"))
REGULARIZERS = {
    "none": None,
    "near": DynamicOutlierRegularizer(pool="near"),
    "random": DynamicOutlierRegularizer(pool="random"),
    "far": DynamicOutlierRegularizer(pool="far"),
}


def measure(pool: str, task: str, domain: str, seed: int, memory: Memory) -> tuple[str, list[float]]:
    train = make_shapes(task, domain=domain, n_per_class=16, random_state=seed)
    held_out = make_shapes(task, domain=domain, subset="validation", n_per_class=50, random_state=seed)
    encoder = CLIPImageEncoder("mini")
    X, X_held_out = encoder.transform(train.images), encoder.transform(held_out.images)
    n_base = (len(train.class_names) + 1) // 2
    base = np.isin(train.target, train.class_names[:n_base])
    clf = PromptTunedCLIPClassifier(
        "mini",
        method=CoOp(context_init=None),
        regularizer=REGULARIZERS[pool],
        random_state=seed,
        memory=memory,
    ).fit(X[base], train.target[base])

    def scores() -> Iterator[float]:
        for names in (train.class_names[:n_base], train.class_names[n_base:]):
            rows = np.isin(held_out.target, names)
            half = clf.with_classes(names)
            y, y_prob = held_out.target[rows], half.predict_proba(X_held_out[rows])
            yield float((half.classes_[y_prob.argmax(axis=1)] == y).mean())
            yield expected_calibration_error(y, y_prob, labels=half.classes_)

    return pool, list(scores())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(folder, verbose=0)
        zero_shot_features(open_backbone("mini"), load_nouns(), DEFAULT_TEMPLATE, memory=memory)
        results = Parallel(n_jobs=cpu_count())(
            delayed(measure)(pool, task, domain, seed, memory)
            for pool in REGULARIZERS
            for task, domain in TASKS
            for seed in range(3)
        )
    print("| pool | base accuracy | base ECE | new accuracy | new ECE |")
    print("|---|---|---|---|---|")
    for pool in REGULARIZERS:
        values = 100 * np.array([scores for name, scores in results if name == pool])
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
        cells = " | ".join(f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, spread, strict=True))
        print(f"| {pool} | {cells} |")


if __name__ == "__main__":
    main()
