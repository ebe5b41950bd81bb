"""Time a step of CoOp: the published loop with both towers, `fit` on embeddings, and the floor.

    python benchmarks/speed/fit.py
    python benchmarks/speed/fit.py --profile

`plain` is a step of the published trainers: 32 images through the image tower, all class prompts on 77
positions through the text tower, loss, backward pass, SGD. `image tower` is the part of it for the images.
`ours` is an epoch of `fit` on embeddings, divided by the number of steps and including all overhead. `floor`
is the matrix products of a step, see text.py.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from models import class_names, padded_features, random_clip, random_context
from paired import compare, report
from text import floor
from torch.nn import functional as F

from clipcal import CoOp, DynamicOutlierRegularizer, PromptTunedCLIPClassifier
from clipcal.backbones import OpenClipBackbone
from clipcal.text import load_nouns
from clipcal.training import torch_generator

SHOTS, BATCH = 16, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="of ours, in each round")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes, and end")
    args = parser.parse_args()
    backbone = random_clip()
    names = class_names(args.classes)
    learner = random_context(backbone, names)
    lengths = learner.prompts(names).lengths
    ours, dor = (fitting(backbone, names, args.epochs, with_dor) for with_dor in (False, True))
    if args.profile:
        profile(ours)
        return
    n_steps = args.epochs * (SHOTS * len(names) // BATCH)
    contenders = {
        "plain": plain_step(backbone, names),
        "image tower": partial(backbone.encode_images, random_pixels(backbone)),
        "ours": ours,
        "ours, with DOR": dor,
        "floor": floor(backbone, 17 + int((lengths - 17).sum()), len(names)),
    }
    synchronize = torch.cuda.synchronize if backbone.device.type == "cuda" else lambda: None
    times = compare(contenders, n_rounds=args.rounds, synchronize=synchronize)
    per_step = {name: times[name]["seconds"] / (n_steps if "ours" in name else 1) for name in times}
    report(
        "fit",
        [
            {
                "what": name,
                "classes": len(names),
                "seconds a step": seconds,
                "times plain": per_step["plain"] / seconds,
                "of floor": seconds / per_step["floor"],
            }
            for name, seconds in per_step.items()
        ],
    )


def plain_step(backbone: OpenClipBackbone, names: list[str]) -> Callable[[], None]:
    learner = random_context(backbone, names)
    context, tokens = learner.context, learner.prompts(names).tokens
    pixels = random_pixels(backbone)
    targets = torch.arange(BATCH, device=backbone.device) % len(names)
    optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9, weight_decay=5e-4)

    def run() -> None:
        images = F.normalize(backbone.encode_images(pixels), dim=-1)
        features = padded_features(backbone, context, tokens)
        loss = F.cross_entropy(100 * images @ features.T, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def random_pixels(backbone: OpenClipBackbone) -> torch.Tensor:
    size = backbone.model.visual.image_size
    return torch.randn(BATCH, 3, *size, generator=torch_generator(1)).to(backbone.device)


def fitting(
    backbone: OpenClipBackbone, names: list[str], epochs: int, with_dor: bool
) -> Callable[[], object]:
    X = np.random.default_rng(0).standard_normal((SHOTS * len(names), backbone.embedding_dim))
    # A small lexicon, for which no table of features is computed; each step draws one outlier per class.
    regularizer = DynamicOutlierRegularizer(lexicon=load_nouns()[::120]) if with_dor else None
    clf = PromptTunedCLIPClassifier(
        backbone,
        method=CoOp(context_init=None),
        recipe="original",
        regularizer=regularizer,
        max_epochs=epochs,
        batch_size=BATCH,
        random_state=0,
    )

    def run() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return clf.fit(X, np.repeat(names, SHOTS))

    return run


def profile(run: Callable[[], object]) -> None:
    run()
    with torch.profiler.profile() as record:
        run()
    print(record.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))


if __name__ == "__main__":
    main()
