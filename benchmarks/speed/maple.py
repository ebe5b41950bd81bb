"""Time and memory of a training step of MaPLe, which has prompts in both towers.

    python benchmarks/speed/maple.py

A step of 4 images is a forward and a backward pass, as in `fit`. `published` computes what the published code
does: each class prompt on all 77 positions, and each image from its pixels, with the blocks of open_clip.
`ours` starts from kept patches; `from pixels` computes them again; `checkpointing` has
`activation_checkpointing=True`. `text only` and `images only` are the two parts of `ours`, and `floor` is the
matrix products of both, without attention, norms and activations. `patches` embeds the pixels, and `frozen`
computes the features of the frozen CLIP, without gradients: both are kept for later epochs. The peak is the
memory in addition to the model, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from models import class_names, random_clip, tuning_problem
from paired import compare, in_a_process, report
from scale import read_peak, reset_peak
from text import floor as text_floor
from text import products
from torch.nn import functional as F

from clipcal.backbones import OpenClipBackbone
from clipcal.methods import MaPLe
from clipcal.training import Batch, Learner, seeded, torch_generator

BATCH = 4
WITH_PEAK = ("published", "ours", "checkpointing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", choices=WITH_PEAK, help="measure a peak, print JSON")
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(peak(args.peak, args.classes)))
        return
    records = times(args.classes, args.rounds)
    for record in records:
        if record["what"] in WITH_PEAK:
            found = in_a_process("--peak", record["what"], "--classes", str(args.classes))
            record["peak GiB"] = found["peak GiB"]
    report("maple", records)


def times(n_classes: int, n_rounds: int) -> list[dict[str, Any]]:
    """Return the seconds of each way and part, and the relative difference of the gradients."""
    backbone = random_clip()
    steps = {way: step_of(backbone, way, n_classes) for way in WITH_PEAK}
    learner, prompts, batch = setting(backbone, n_classes)
    fresh = Batch(batch.embeddings, batch.norms, batch.targets, batch.weights, batch.pixels)
    n_tokens = prompts.n_shared + int((prompts.lengths - prompts.n_shared).sum())
    contenders = {
        **steps,
        "from pixels": partial(step, learner, prompts, fresh),
        "text only": lambda: passed(learner.encode_texts(prompts, None), learner),
        "images only": lambda: passed(learner.encode_images(batch), learner),
        "floor": both(text_floor(backbone, n_tokens, n_classes), image_floor(backbone)),
        "patches": partial(backbone.embed_pixels, batch.pixels),
        "frozen": partial(backbone.encode_images, batch.pixels),
    }
    gradients = {way: run() for way, run in steps.items()}
    expected = gradients["published"]
    synchronize = torch.cuda.synchronize if backbone.device.type == "cuda" else lambda: None
    measured = compare(contenders, n_rounds=n_rounds, synchronize=synchronize)
    return [
        {
            "what": name,
            "images": BATCH,
            "classes": n_classes,
            "seconds": found["seconds"],
            "times published": found["ratio"],
            "of ours": found["seconds"] / measured["ours"]["seconds"],
            "gradient off by": float((gradients[name] - expected).norm() / expected.norm())
            if name in gradients and name != "published"
            else None,
        }
        for name, found in measured.items()
    ]


def peak(way: str, n_classes: int) -> dict[str, Any]:
    """Return the peak memory of a step in addition to the model."""
    backbone = random_clip()
    learner, prompts, _ = setting(backbone, 2)
    passed(learner.encode_texts(prompts, None), learner)  # loads libraries, but keeps little memory
    run = step_of(backbone, way, n_classes)
    before = reset_peak(backbone.device)
    run()
    return {"peak GiB": (read_peak(backbone.device) - before) / 2**30}


def setting(backbone: OpenClipBackbone, n_classes: int, **parameters: Any) -> tuple[Learner, Any, Batch]:
    """Return the learner of MaPLe, the prompts of the classes and random images."""
    problem = tuning_problem(backbone, class_names(n_classes))
    with seeded(problem.generator):
        learner = MaPLe(**parameters).learner(problem).to(backbone.device).train()
    size = backbone.model.visual.image_size
    pixels = torch.randn(BATCH, 3, *size, generator=torch_generator(1)).to(backbone.device)
    ones = torch.ones(BATCH, device=backbone.device)
    targets = torch.arange(BATCH, device=backbone.device) % n_classes
    features = F.normalize(backbone.encode_images(pixels), dim=-1)
    batch = Batch(features, ones, targets, ones, pixels, backbone.embed_pixels(pixels))
    return learner, learner.prompts(problem.names), batch


def step_of(backbone: OpenClipBackbone, way: str, n_classes: int) -> Callable[[], torch.Tensor]:
    """Return a function that computes a step and returns the gradients of all parameters."""
    learner, prompts, batch = setting(backbone, n_classes, activation_checkpointing=way == "checkpointing")
    if way == "published":
        return partial(published_step, backbone, learner, class_names(n_classes), batch)
    return partial(step, learner, prompts, batch)


def step(learner: Learner, prompts: Any, batch: Batch) -> torch.Tensor:
    learner.zero_grad(set_to_none=True)
    out, _ = learner(batch, prompts, len(prompts))
    learner.backward(learner.losses(out, batch))
    return gradients_of(learner)


def published_step(backbone: OpenClipBackbone, learner: Any, names: list[str], batch: Batch) -> torch.Tensor:
    """Compute the step with all 77 positions and the whole image tower."""
    learner.zero_grad(set_to_none=True)
    texts = padded_texts(backbone, learner, [f"a photo of a {name}." for name in names])
    images = prompted_images(backbone, learner.image_prompts(), batch.pixels)
    logits = learner.logit_scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    F.cross_entropy(logits, batch.targets).backward()
    return gradients_of(learner)


def padded_texts(backbone: OpenClipBackbone, learner: Any, texts: list[str]) -> torch.Tensor:
    """Encode prompts on 77 positions, with prompts at the inputs of the blocks."""
    model, n_context = backbone.model, learner.context.shape[0]
    tokens = backbone.tokenize(texts)
    tokens = F.pad(tokens, (0, 77 - tokens.shape[1]))
    x = model.token_embedding(tokens)
    of_blocks = [learner.context, *learner.deep_context]
    with torch.autocast(backbone.device.type, torch.bfloat16, enabled=backbone.precision == "bf16"):
        for number, block in enumerate(model.transformer.resblocks):
            if number < len(of_blocks):
                own = of_blocks[number].to(x.dtype).expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], own, x[:, 1 + n_context :]], dim=1)
            if number == 0:
                x = x + model.positional_embedding
            x = block(x, attn_mask=model.attn_mask)
        ends = x[torch.arange(len(x)), tokens.argmax(dim=1)]
        return (model.ln_final(ends) @ model.text_projection).float()


def prompted_images(
    backbone: OpenClipBackbone, prompts: dict[int, torch.Tensor], pixels: torch.Tensor
) -> torch.Tensor:
    """Encode images with prompts, all tokens in all blocks."""
    visual, n_prompts = backbone.model.visual, len(prompts[0])
    with torch.autocast(backbone.device.type, torch.bfloat16, enabled=backbone.precision == "bf16"):
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1) + visual.positional_embedding
        x = visual.ln_pre(torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1))
        for number, block in enumerate(visual.transformer.resblocks):
            if number > 0 and number in prompts:
                x = torch.cat([x[:, :-n_prompts], prompts[number].to(x.dtype).expand(len(x), -1, -1)], dim=1)
            x = block(x)
        return (visual.ln_post(x[:, 0]) @ visual.proj).float()


def image_floor(backbone: OpenClipBackbone) -> Callable[[], None]:
    """Return a function that runs the matrix products of the image tower, forward and backward."""
    tower, dtype = backbone.image_tower, torch.bfloat16 if backbone.precision == "bf16" else torch.float32
    n_tokens = BATCH * (tower.n_tokens + MaPLe().n_context)
    work: list[tuple[torch.Tensor, int]] = []
    for number, block in enumerate(tower.module.transformer.resblocks):
        into, rest = block.attn.in_proj_weight, [block.attn.out_proj.weight, *block.mlp.parameters()]
        last = number == tower.n_blocks - 1
        width = block.attn.embed_dim
        work += [(into[width:], n_tokens), (into[:width], BATCH)] if last else [(into, n_tokens)]
        work += [(weight, BATCH if last else n_tokens) for weight in rest if weight.ndim == 2]
    return products([(weight.to(dtype), n) for weight, n in work])


def both(*parts: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for part in parts:
            part()

    return run


def passed(features: torch.Tensor, learner: Learner) -> None:
    """Run the backward pass of features."""
    learner.zero_grad(set_to_none=True)
    features.square().sum().backward()


def gradients_of(learner: Learner) -> torch.Tensor:
    return torch.cat([value.grad.flatten() for value in learner.parameters()])


if __name__ == "__main__":
    main()
