"""Time whole fits of CoOp on images with the embedded CLIP: the published loop, and `fit` with two recipes.

    python benchmarks/speed/whole_fit.py

`fast` is `fit` with recipe="fast" on images: it encodes them, chooses the number of epochs on held-out
training images, and trains. The others train until the cross-entropy on the whole training set is as low as
at the end of `fast`; it is evaluated after each epoch, while the clock is stopped. `plain` is the published
loop: in each step, a batch of 32 images through the image tower, all class prompts on 77 positions through
the text tower, loss, backward pass, SGD, with a cosine schedule over 200 epochs. `ours` is `fit` with the
published recipe. All start from the same vectors, use center crops and one thread.

The rows "whole recipe" train for all 200 epochs, as published; that of `plain` is computed from its time per
step. The rows "computed for ViT-B-16" multiply these numbers of steps by the times of fit.py, for 50 classes
with 16 images of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from models import padded_features
from paired import RESULTS, report
from PIL import Image
from threadpoolctl import threadpool_limits
from torch.nn import functional as F

from clipcal import CLIPImageEncoder, CoOp, PromptTunedCLIPClassifier
from clipcal.backbones import OpenClipBackbone, open_backbone
from clipcal.datasets import make_shapes
from clipcal.demo import N_SHOTS, Cell, class_halves
from clipcal.training import cosine_with_warmup, tokenize_prompts, torch_generator

CONTEXTS = {"16 random vectors": None, "a photo of a": "a photo of a"}
BATCH, EPOCHS = 32, 200
# The plain loop is not trained for all epochs if it reaches the cross-entropy before.
MIN_EPOCHS = 2
# Up to rounding, equal cross-entropies are equal.
TOLERANCE = 1e-4
# A search trains on four splits if there are fewer than 1,000 images.
N_SPLITS = 4


class Problem(NamedTuple):
    """Images of base classes, and the function that evaluates text features on all of them."""

    backbone: OpenClipBackbone
    images: np.ndarray
    y: np.ndarray
    classes: list[str]
    targets: torch.Tensor
    cross_entropy: Callable[[torch.Tensor], float]


class Point(NamedTuple):
    """Cross-entropy after a number of steps, which took some seconds."""

    steps: int
    seconds: float
    cross_entropy: float


@dataclass
class Trace:
    """Clock that is stopped for evaluations, and the points of a training run. It is a callback of ``fit``.

    Parameters
    ----------
    evaluate : callable
        Returns the cross-entropy of a fitted classifier.
    first : float
        Cross-entropy before training.
    steps_per_epoch : int
        Steps between two points.
    """

    evaluate: Callable[[Any], float]
    first: float
    steps_per_epoch: int
    points: list[Point] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)
    stopped: float = 0.0

    def stop(self) -> None:
        self.stopped = time.perf_counter()

    def resume(self, value: float) -> None:
        """Note the cross-entropy at the time when the clock was stopped, and start the clock again."""
        n_steps = len(self.points) * self.steps_per_epoch
        self.points.append(Point(n_steps, self.stopped - self.start, value))
        self.start += time.perf_counter() - self.stopped

    def setup(self, estimator: Any, context: Any) -> None:
        pass

    def teardown(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        # The task of an epoch begins after its last step, and its text features are computed before it ends.
        self.stop()
        if context.task_name != "epoch":
            self.resume(self.first)

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any) -> None:
        if context.task_name == "epoch":
            self.resume(self.evaluate(fitted_estimator))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the published recipe")
    args = parser.parse_args()
    steps = json.loads((RESULTS / "fit.json").read_text(encoding="utf-8"))["records"]
    with threadpool_limits(1):
        rows = [row for seed in range(args.seeds) for row in run(seed, args.epochs)]
        medians = summarize(rows)
        report("whole_fit", [*rows, *medians, *for_vit(medians, steps)])


def run(seed: int, n_epochs: int) -> list[dict[str, Any]]:
    """Return the rows of one seed, whose runs follow each other."""
    problem = make_problem(*base_images(seed))
    return [row for context in CONTEXTS for row in compare_runs(problem, context, seed, n_epochs)]


def base_images(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training images of the base classes of a task, and their labels."""
    cell = Cell("colors", "street", seed, EPOCHS)
    images, y = make_shapes(
        cell.task, domain=cell.domain, n_per_class=N_SHOTS, random_state=seed, return_X_y=True
    )
    rows = np.isin(y, class_halves(cell)["base"])
    return images[rows], y[rows]


def make_problem(images: np.ndarray, y: np.ndarray) -> Problem:
    classes, targets = np.unique(y, return_inverse=True)
    backbone = open_backbone("mini", device="cpu")
    embeddings = torch.from_numpy(CLIPImageEncoder(backbone).transform(images)).double()
    targets = torch.from_numpy(targets)

    def cross_entropy(texts: torch.Tensor) -> float:
        logits = backbone.logit_scale * F.normalize(embeddings, dim=-1) @ texts.double().T
        return float(F.cross_entropy(logits, targets))

    return Problem(backbone, images, y, classes.tolist(), targets, cross_entropy)


def compare_runs(problem: Problem, context: str, seed: int, n_epochs: int) -> list[dict[str, Any]]:
    """Return one row for each way of fitting."""

    def classifier(recipe: str = "original", **params: Any) -> PromptTunedCLIPClassifier:
        method = CoOp(context_init=CONTEXTS[context])
        return PromptTunedCLIPClassifier(
            problem.backbone, method=method, recipe=recipe, random_state=seed, **params
        )

    untrained = classifier(max_epochs=0).fit(problem.images, problem.y)
    first = loss_of(problem, untrained)
    start = time.perf_counter()
    fast = classifier(recipe="fast").fit(problem.images, problem.y)
    seconds = time.perf_counter() - start
    target = loss_of(problem, fast)
    plain = train_plain(problem, untrained.learned_["context"], seed, n_epochs, first=first, target=target)
    ours, whole = train_ours(problem, classifier(max_epochs=n_epochs), first=first)
    n_steps = n_epochs * plain.steps_per_epoch
    per_step = plain.points[-1].seconds / plain.points[-1].steps
    rows = [
        {"what": "fast", **row_of(Point(len(fast.history_), seconds, target))}
        | {"search epochs": len(fast.validation_history_) - 1},
        {"what": "plain", **row_of(first_reached(plain.points, target))},
        {"what": "ours", **row_of(first_reached(ours.points, target))},
        {"what": "plain, whole recipe", "steps": n_steps, "seconds": n_steps * per_step},
        {"what": "ours, whole recipe", **row_of(Point(n_steps, whole, ours.points[-1].cross_entropy))},
    ]
    times_fast = [{"times fast": row["seconds"] / seconds} if row["seconds"] else {} for row in rows]
    given = {"context": context, "seed": seed}
    return [{**given, **row, **times} for row, times in zip(rows, times_fast, strict=True)]


def loss_of(problem: Problem, clf: Any) -> float:
    """Return the cross-entropy of a classifier on the whole training set."""
    return problem.cross_entropy(torch.from_numpy(clf.text_features_))


def row_of(point: Point | None) -> dict[str, Any]:
    return dict.fromkeys(Point._fields) if point is None else point._asdict()


def first_reached(points: Sequence[Point], target: float) -> Point | None:
    """Return the first point whose cross-entropy is at most the target, None if there is none."""
    return next((point for point in points if point.cross_entropy <= target + TOLERANCE), None)


def train_plain(
    problem: Problem, start: np.ndarray, seed: int, n_epochs: int, *, first: float, target: float
) -> Trace:
    """Run the published loop until it reaches a cross-entropy."""
    backbone, targets = problem.backbone, problem.targets
    n_batches = len(targets) // BATCH
    context = torch.from_numpy(start.copy()).requires_grad_()
    texts = [" ".join(["X"] * len(context)) + f" {name}." for name in problem.classes]
    generator = torch_generator(seed)
    trace = Trace(problem.cross_entropy, first, n_batches)
    # Images are read and cropped once, which the published loop does in each epoch.
    pixels = torch.stack([backbone.preprocess(Image.fromarray(image)) for image in problem.images])
    tokens = tokenize_prompts(backbone, texts, len(context)).tokens
    optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9, weight_decay=5e-4)
    trace.stop()
    trace.resume(first)
    for epoch, rate in enumerate(cosine_with_warmup(n_epochs, 0.002)):
        optimizer.param_groups[0]["lr"] = rate
        for rows in torch.randperm(len(targets), generator=generator).split(BATCH)[:n_batches]:
            images = F.normalize(backbone.encode_images(pixels[rows]), dim=-1)
            features = padded_features(backbone, context, tokens)
            loss = F.cross_entropy(backbone.logit_scale * images @ features.T, targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        trace.stop()
        with torch.no_grad():
            trace.resume(trace.evaluate(padded_features(backbone, context, tokens)))
        if epoch + 1 >= MIN_EPOCHS and first_reached(trace.points, target):
            break
    return trace


def train_ours(problem: Problem, clf: PromptTunedCLIPClassifier, *, first: float) -> tuple[Trace, float]:
    """Fit with the published recipe; return the points of the run, and the seconds of the whole fit."""

    trace = Trace(partial(loss_of, problem), first, len(problem.y) // BATCH)
    clf.set_callbacks(trace)
    clf.fit(problem.images, problem.y)
    return trace, time.perf_counter() - trace.start


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians over seeds, only of rows that all seeds have."""
    found = []
    for context, what in dict.fromkeys((row["context"], row["what"]) for row in rows):
        runs = [row for row in rows if (row["context"], row["what"]) == (context, what)]
        names = [name for name in runs[0] if name not in ("context", "what", "seed")]
        values = {name: [row.get(name) for row in runs] for name in names}
        medians = {
            name: statistics.median(of_runs) for name, of_runs in values.items() if None not in of_runs
        }
        found.append({"context": context, "seed": "median", "what": what, **medians})
    return found


def for_vit(medians: list[dict[str, Any]], steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the times for ViT-B-16: these numbers of steps, times the seconds of fit.py."""
    seconds = {row["what"]: row["seconds a step"] for row in steps}
    encoding = steps[0]["classes"] * N_SHOTS / BATCH * seconds["image tower"]
    found = []
    for context in dict.fromkeys(row["context"] for row in medians):
        of_context = {row["what"]: row for row in medians if row["context"] == context}
        times = {}
        for what, row in of_context.items():
            n_steps = row.get("steps")
            if n_steps is None:
                continue
            if what == "fast":
                # Half of the classes are trained in a step of a split, and all of them are evaluated.
                n_steps += N_SPLITS * row["search epochs"]
            if what.startswith("plain"):
                times[what] = n_steps * seconds["plain"]
            else:
                times[what] = encoding + n_steps * seconds["ours"]
                times[f"{what}, embeddings given"] = n_steps * seconds["ours"]
        for what, value in times.items():
            given = times["fast, embeddings given"] if what.endswith("given") else times["fast"]
            row = {"context": context, "seed": "computed for ViT-B-16", "what": what, "seconds": value}
            found.append({**row, "times fast": value / given if given else None})
    return found


if __name__ == "__main__":
    main()
