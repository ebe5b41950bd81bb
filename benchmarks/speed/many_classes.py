"""Time and peak memory of fits with 1,000 classes and 16 images of each, and of the published loop.

    python benchmarks/speed/many_classes.py

Each fit of CoOp with 16 random context vectors runs in a process of its own, with recipe="fast", which
chooses the number of epochs, and with max_epochs=10 of the same recipe. Embeddings are random, so times and
memory are realistic, but few epochs are chosen, and the search ends early. Its time is that of the part
before training, less this part in the fit without a search. DOR has a small lexicon, for which no table of
all nouns of WordNet is needed, and draws one outlier per class in each step.

The rows "computed" are computed from measured times: the fast recipe if the search ends after 15 epochs and
chooses 10; encoding the images once; and the published recipe on ImageNet, 50 epochs with batches of 32. For
this, a step of the plain loop is measured with fewer classes, because 1,000 do not fit in memory, and the
time of its text side is multiplied by the ratio of the numbers of prompts.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from functools import partial
from typing import Any

import numpy as np
from fit import BATCH, SHOTS, plain_step, random_pixels
from models import class_names, random_clip
from paired import compare, in_a_process, report
from scale import read_peak, reset_peak, steps

from clipcal import CoOp, DynamicOutlierRegularizer, PromptTunedCLIPClassifier
from clipcal.backbones import OpenClipBackbone
from clipcal.text import load_nouns

FIXED_EPOCHS = 10
# Epochs of a search that chooses FIXED_EPOCHS: training stops five epochs later.
SEARCH_EPOCHS = 15
PUBLISHED_EPOCHS = 50
FAST, FIXED = "fast", f"fast, max_epochs={FIXED_EPOCHS}"


class Stamps:
    """Callback that records when training begins and when its epochs end."""

    def __init__(self) -> None:
        self.begin = 0.0
        self.epoch_ends: list[float] = []

    def setup(self, estimator: Any, context: Any) -> None:
        pass

    def teardown(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        if context.task_name != "epoch":
            self.begin = time.perf_counter()

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        if context.task_name == "epoch":
            self.epoch_ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--plain", type=int, default=100, help="classes of the plain step")
    parser.add_argument("--rounds", type=int, default=2, help="of the steps")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "DOR"), help="measure one fit, print JSON")
    args = parser.parse_args()
    if args.one:
        recipe, dor = args.one
        print(json.dumps(measure(recipe, dor == "dor", args.classes)))
        return
    fits = [
        in_a_process("--one", recipe, dor, "--classes", str(args.classes))
        for dor in ("none", "dor")
        for recipe in (FIXED, FAST)
    ]
    for fixed, fast in (fits[:2], fits[2:]):
        add_search(fixed, fast)
    times = step_times(args.classes, args.plain, args.rounds)
    rows = [{"what": name, "seconds": seconds} for name, seconds in times.items()]
    report("many_classes", [*fits, *rows, *computed(fits, times, args.classes, args.plain)])


def measure(recipe: str, with_dor: bool, n_classes: int) -> dict[str, Any]:
    """Fit once; return the times of its parts and the peak memory in addition to the model."""
    backbone = random_clip()
    names = class_names(n_classes)
    # The rate only changes the number of epochs, which has no meaning on random data.
    classifier = partial(
        PromptTunedCLIPClassifier,
        backbone,
        method=CoOp(context_init=None),
        recipe="fast",
        learning_rate=0.03,
        random_state=0,
    )
    fit(classifier(max_epochs=1), names[:4], backbone)  # loads libraries
    nouns = load_nouns()[::100]
    clf = classifier(
        regularizer=DynamicOutlierRegularizer(lexicon=nouns) if with_dor else None,
        max_epochs=FIXED_EPOCHS if recipe == FIXED else None,
    )
    stamps = Stamps()
    clf.set_callbacks(stamps)
    before = reset_peak(backbone.device)
    start = time.perf_counter()
    fit(clf, names, backbone)
    peak = read_peak(backbone.device) - before  # waits for the device
    seconds = time.perf_counter() - start
    n_steps = len(stamps.epoch_ends)
    training = stamps.epoch_ends[-1] - stamps.begin if n_steps else 0.0
    return {
        "what": recipe,
        "outliers": min(n_classes, len(nouns)) if with_dor else 0,
        "seconds": seconds,
        "before training": stamps.begin - start,
        "search epochs": len(getattr(clf, "validation_history_", [None])) - 1,
        "steps": n_steps,
        "seconds a step": training / n_steps if n_steps else None,
        "peak GiB": peak / 2**30,
    }


def fit(clf: PromptTunedCLIPClassifier, names: list[str], backbone: OpenClipBackbone) -> None:
    """Fit on random embeddings."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((SHOTS * len(names), backbone.embedding_dim), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(X, np.repeat(names, SHOTS))


def add_search(fixed: dict[str, Any], fast: dict[str, Any]) -> None:
    """Add the time of the search, by which the part before training is longer than without a search."""
    fast["search"] = fast["before training"] - fixed["before training"]
    fast["seconds a search epoch"] = fast["search"] / fast["search epochs"]


def step_times(n_classes: int, n_plain: int, n_rounds: int) -> dict[str, float]:
    """Return the seconds of steps of 32 images, and of the image tower alone."""
    backbone = random_clip()
    contenders = {
        f"plain step, {n_plain} classes": plain_step(backbone, class_names(n_plain)),
        "image tower": partial(backbone.encode_images, random_pixels(backbone)),
        "our step": steps("ours", backbone, n_classes, 0)[1],
        "our step, with DOR": steps("ours", backbone, n_classes, n_classes)[1],
    }
    times = compare(contenders, n_rounds=n_rounds)
    return {name: times[name]["seconds"] for name in contenders}


def computed(
    fits: list[dict[str, Any]], times: dict[str, float], n_classes: int, n_plain: int
) -> list[dict[str, Any]]:
    """Return rows that are computed from measured times."""
    plain, images = times[f"plain step, {n_plain} classes"], times["image tower"]
    n_steps = n_classes * SHOTS // BATCH
    rows = [{"what": "computed: images encoded once", "seconds": n_steps * images}]
    for fixed, fast, our_step in (
        (*fits[:2], times["our step"]),
        (*fits[2:], times["our step, with DOR"]),
    ):
        n_outliers = fast["outliers"]
        plain_step = images + (plain - images) * (n_classes + n_outliers) / n_plain
        n_published = PUBLISHED_EPOCHS * n_steps
        typical = fixed["seconds"] + SEARCH_EPOCHS * fast["seconds a search epoch"]
        for what, seconds, n, one in (
            ("fast, 15 epochs searched, 10 chosen", typical, FIXED_EPOCHS, fixed["seconds a step"]),
            ("published recipe, ours", n_published * our_step, n_published, our_step),
            ("published recipe, plain loop", n_published * plain_step, n_published, plain_step),
        ):
            rows.append(
                {
                    "what": f"computed: {what}",
                    "outliers": n_outliers,
                    "seconds": seconds,
                    "steps": n,
                    "seconds a step": one,
                }
            )
    return rows


if __name__ == "__main__":
    main()
