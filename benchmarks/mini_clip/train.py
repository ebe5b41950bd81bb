"""Train the embedded CLIP model from scratch on generated images and WordNet glosses.

    python benchmarks/mini_clip/train.py --out clipcal/backbones/mini

Requires a WordNet 3.0 database folder (Debian: ``apt-get install wordnet-base``). Writes
``weights.safetensors`` (float16), ``config.json`` and ``MODEL_CARD.md`` to the output folder, and the
training curve to ``curve.jsonl`` next to this script.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from captions import Captioner, read_glosses
from evaluate import zero_shot_table
from open_clip.model import CLIP
from publish import publish
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipcal.scenes import Conditions, render, sample_scenes

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 128, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 4},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
LOGIT_SCALE = 100.0
CONDITIONS = Conditions(color_spread=0.05, noise=0.035, tail=0.9)


def encode_text(model: CLIP, tokenizer: open_clip.SimpleTokenizer, texts: list[str]) -> Tensor:
    """Encode texts, truncated to the longest one; exact, as the text tower is causal."""
    rows = [[tokenizer.sot_token_id, *tokenizer.encode(text)[:75], tokenizer.eot_token_id] for text in texts]
    length = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length]).float()
    ends = tokens.argmax(dim=-1)
    x = model.ln_final(x[torch.arange(len(rows)), ends]) @ model.text_projection
    return F.normalize(x, dim=-1)


def encode_images(model: CLIP, pixels: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
        features = model.visual(pixels)
    return F.normalize(features.float(), dim=-1)


def normalised(images: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - PREPROCESS["mean"][0]) / PREPROCESS["std"][0]


def contrast(a: Tensor, b: Tensor) -> Tensor:
    logits = LOGIT_SCALE * a @ b.T
    target = torch.arange(len(a))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def parameter_groups(model: CLIP, weight_decay: float) -> list[dict]:
    trained = {n: p for n, p in model.named_parameters() if n != "logit_scale"}
    decayed = [p for n, p in trained.items() if p.ndim >= 2 and "embedding" not in n]
    other = [p for n, p in trained.items() if not (p.ndim >= 2 and "embedding" not in n)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": other, "weight_decay": 0.0}]


def train(args: argparse.Namespace) -> CLIP:
    torch.manual_seed(args.seed)
    generator = np.random.default_rng(args.seed)
    tokenizer = open_clip.SimpleTokenizer()
    model = CLIP(**MODEL)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(LOGIT_SCALE))
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=args.lr, betas=(0.9, 0.98), fused=True)
    warmup = 200

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / args.steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    captioner = Captioner(args.imprecise)
    glosses = read_glosses(args.wordnet)
    args.out.mkdir(parents=True, exist_ok=True)
    curve = (Path(__file__).parent / "curve.jsonl").open("w")
    start = time.time()
    for step in range(args.steps):
        scenes = sample_scenes(generator, args.batch_size, CONDITIONS)
        images = normalised(render(scenes, generator))
        long = generator.random() < 0.12
        captions = [captioner(generator, scenes, row, long) for row in range(len(scenes))]
        loss = contrast(encode_images(model, images), encode_text(model, tokenizer, captions))
        record = {"step": step, "loss": loss.item(), "long": bool(long)}
        if step % 2 == 0:
            chosen = [glosses[i] for i in generator.choice(len(glosses), args.n_glosses, replace=False)]
            prompts = [f"a photo of a {lemmas[generator.integers(len(lemmas))]}." for lemmas, _ in chosen]
            gloss_loss = contrast(
                encode_text(model, tokenizer, prompts),
                encode_text(model, tokenizer, [gloss[:160] for _, gloss in chosen]),
            )
            record["gloss_loss"] = gloss_loss.item()
            loss = loss + args.gloss_weight * gloss_loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            record["seconds"] = round(time.time() - start, 1)
            curve.write(json.dumps(record) + "\n")
            curve.flush()
        if step % args.check_every == args.check_every - 1:
            model.eval()
            seconds = round(time.time() - start, 1)
            for row in zero_shot_table(model, encode_text, tokenizer, normalised, subset="validation"):
                curve.write(json.dumps({"step": step, "seconds": seconds, **row}) + "\n")
            curve.flush()
            model.train()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--imprecise", type=float, default=0.2)
    parser.add_argument("--n-glosses", type=int, default=64)
    parser.add_argument("--gloss-weight", type=float, default=0.5)
    parser.add_argument("--check-every", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # On CPUs, plain attention is several times faster than the flash kernels at these lengths.
    with sdpa_kernel(SDPBackend.MATH):
        model = train(args)
    table = zero_shot_table(model, encode_text, open_clip.SimpleTokenizer(), normalised, subset="test")
    publish(model, MODEL, PREPROCESS, table, args)


if __name__ == "__main__":
    main()
