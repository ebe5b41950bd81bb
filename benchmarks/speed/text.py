"""Time forward and backward pass of the text side: padded, ours, and bare matrix products.

    python benchmarks/speed/text.py

`padded` encodes as in the papers: each prompt separately on all 77 positions, with the tower of open_clip.
`ours` is the computation in `fit`. `floor` consists of the matrix products of the linear layers on the tokens
of `ours`, forward and with respect to their inputs: a lower bound for computing these tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from models import class_names, padded_features, random_clip, random_context
from paired import compare, report
from torch.nn import functional as F

from clipcal.backbones import OpenClipBackbone
from clipcal.text import load_nouns
from clipcal.training import torch_generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="*", default=[50, 100])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    backbone = random_clip()
    records = []
    for n_classes in args.classes:
        records += measure(backbone, n_classes, args.rounds)
    report("text", records)


def measure(backbone: OpenClipBackbone, n_classes: int, n_rounds: int) -> list[dict[str, Any]]:
    learner = random_context(backbone, class_names(n_classes))
    context = learner.context
    classes = learner.prompts(class_names(n_classes))
    drawn = torch.randperm(5000, generator=torch_generator(1))[:n_classes].tolist()
    nouns = load_nouns()[::20]
    outliers = learner.prompts([nouns[i] for i in drawn])
    both = classes.joined(outliers)

    def padded(prompts: Any) -> torch.Tensor:
        return padded_features(backbone, context, prompts.tokens)

    def ours(prompts: Any) -> torch.Tensor:
        return learner.encode_texts(prompts, None)

    def passes(encode: Callable[[Any], torch.Tensor], prompts: Any) -> Callable[[], torch.Tensor]:
        weights = torch.randn(len(prompts), backbone.embedding_dim, generator=torch_generator(2))
        weights = weights.to(backbone.device)

        def run() -> torch.Tensor:
            context.grad = None
            (encode(prompts) * weights).sum().backward()
            return context.grad

        return run

    contenders = {
        "padded": passes(padded, classes),
        "ours": passes(ours, classes),
        "floor": floor(backbone, 17 + int((classes.lengths - 17).sum()), n_classes),
        "padded, with outliers": passes(padded, both),
        "ours, with outliers": passes(ours, both),
        "floor, with outliers": floor(backbone, 17 + int((both.lengths - 17).sum()), len(both)),
    }
    differences = {
        "ours": difference(contenders["ours"](), contenders["padded"]()),
        "ours, with outliers": difference(
            contenders["ours, with outliers"](), contenders["padded, with outliers"]()
        ),
    }
    synchronize = torch.cuda.synchronize if backbone.device.type == "cuda" else lambda: None
    times = compare(contenders, n_rounds=n_rounds, synchronize=synchronize)
    counts = {"": classes, ", with outliers": both}
    return [
        {
            "classes": n_classes,
            "what": name,
            "tokens": len(prompts) * 77
            if name.startswith("padded")
            else 17 + int((prompts.lengths - 17).sum()),
            "seconds": times[name]["seconds"],
            "times padded": times[f"padded{kind}"]["seconds"] / times[name]["seconds"],
            "of floor": times[name]["seconds"] / times[f"floor{kind}"]["seconds"],
            "of without outliers": times[name]["seconds"] / times[name.removesuffix(kind)]["seconds"]
            if kind
            else None,
            "gradient off by": differences.get(name),
        }
        for kind, prompts in counts.items()
        for name in (f"padded{kind}", f"ours{kind}", f"floor{kind}")
    ]


def difference(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return float((ours - expected).norm() / expected.norm())


def floor(backbone: OpenClipBackbone, n_tokens: int, n_names: int) -> Callable[[], None]:
    """Return a function that runs the matrix products of a pass, in the last block on end markers only."""
    dtype = torch.bfloat16 if backbone.precision == "bf16" else torch.float32
    blocks = backbone.text_tower.module.transformer.resblocks
    work = []
    for number, block in enumerate(blocks):
        width = block.attn.embed_dim
        into = block.attn.in_proj_weight.to(dtype)
        rest = [w.to(dtype) for w in (block.attn.out_proj.weight, *block.mlp.parameters()) if w.ndim == 2]
        if number < len(blocks) - 1:
            work += [(weight, n_tokens) for weight in (into, *rest)]
        else:
            work += [(into[width:], n_tokens), (into[:width], n_names)]
            work += [(weight, n_names) for weight in rest]
    return products(work)


def products(work: list[tuple[torch.Tensor, int]]) -> Callable[[], None]:
    """Return a function that multiplies n rows by each weight, forward and backward."""
    inputs = {(n, w.shape[1]): w.new_empty(n, w.shape[1]).normal_() for w, n in work}
    outputs = {(n, w.shape[0]): w.new_empty(n, w.shape[0]).normal_() for w, n in work}

    def run() -> None:
        with torch.no_grad():
            for weight, n in work:
                F.linear(inputs[n, weight.shape[1]], weight)
            for weight, n in reversed(work):
                outputs[n, weight.shape[0]] @ weight

    return run


if __name__ == "__main__":
    main()
