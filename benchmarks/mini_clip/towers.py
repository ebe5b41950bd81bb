"""The architecture of the embedded CLIP model, its encoders and its optimizer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 128, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 4},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
LOGIT_SCALE = 100.0
TOKENIZER = open_clip.SimpleTokenizer()


def new_model() -> CLIP:
    model = CLIP(**MODEL)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(LOGIT_SCALE))
    return model


def load_model(folder: Path) -> CLIP:
    """Load a model that was written by ``publish``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config != {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}:
        raise ValueError(f"{folder / 'config.json'} describes another architecture than this script.")
    model = new_model()
    state = load_file(folder / "weights.safetensors")
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return model


def round_to_half(model: CLIP) -> CLIP:
    """Round the weights to float16, as which they are published."""
    return model.half().float()


def tokenize(text: str) -> list[int]:
    return [TOKENIZER.sot_token_id, *TOKENIZER.encode(text)[:75], TOKENIZER.eot_token_id]


def encode_tokens(model: CLIP, rows: list[list[int]]) -> Tensor:
    """Encode rows of tokens, truncated to the longest one; exact, as the text tower is causal."""
    length = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length]).float()
    ends = tokens.argmax(dim=-1)
    x = model.ln_final(x[torch.arange(len(rows)), ends]) @ model.text_projection
    return F.normalize(x, dim=-1)


def encode_text(model: CLIP, texts: list[str]) -> Tensor:
    return encode_tokens(model, [tokenize(text) for text in texts])


def encode_by_length(
    model: CLIP, texts: list[str], tokens_of: Callable[[str], list[int]] = tokenize, size: int = 128
) -> Tensor:
    """Encode texts in groups of similar length, so that few positions are padding."""
    rows = [tokens_of(text) for text in texts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    features = torch.cat([encode_tokens(model, [rows[i] for i in group]) for group in groups])
    return features[torch.from_numpy(np.argsort(order))]


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


class Optimization:
    """AdamW with a linear warm-up and a cosine schedule."""

    def __init__(self, named: Iterable[tuple[str, Tensor]], lr: float, steps: int) -> None:
        trained = {name: value for name, value in named if name != "logit_scale"}
        decayed = [p for n, p in trained.items() if p.ndim >= 2 and "embedding" not in n]
        other = [p for n, p in trained.items() if not (p.ndim >= 2 and "embedding" not in n)]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}]
        self.parameters = list(trained.values())
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
        warmup = 200

        def rate(step: int) -> float:
            return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
