"""ViT-B-16 with random weights, which take as long as trained ones, and real class names."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import open_clip
import torch
from torch.nn import functional as F

from clipcal import CoOp
from clipcal.backbones import OpenClipBackbone
from clipcal.methods import zero_shot_features
from clipcal.text import load_nouns
from clipcal.training import TrainingData, TuningProblem, torch_generator


def random_clip(device: str = "auto", precision: str = "auto") -> OpenClipBackbone:
    """Build OpenAI's ViT-B-16 with seeded random weights."""
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random, which is intended
    model = open_clip.create_model("ViT-B-16-quickgelu")
    logging.disable(logging.NOTSET)
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    return OpenClipBackbone(model, tokenizer, device=device, precision=precision)


def class_names(n: int) -> list[str]:
    """Return ImageNet's class names, followed by nouns of WordNet if n > 1000."""
    names = list(dict.fromkeys([*open_clip.IMAGENET_CLASSNAMES, *load_nouns()[::7]]))
    step = 9  # mix the order, as neighbors in ImageNet's list are similar
    spread = [name for start in range(step) for name in names[:1000][start::step]]
    return [*spread, *names[1000:]][:n]


def random_context(backbone: OpenClipBackbone, names: list[str], n_context: int = 16) -> Any:
    """Return CoOp's learner with random vectors, as a fit makes it."""
    return CoOp(context_init=None, n_context=n_context).learner(tuning_problem(backbone, names))


def tuning_problem(
    backbone: OpenClipBackbone, names: list[str], data: TrainingData | None = None
) -> TuningProblem:
    """Return the tuning problem of some classes, as a fit makes it."""
    zero_shot = partial(zero_shot_features, backbone)
    return TuningProblem(
        backbone,
        names,
        zero_shot=zero_shot,
        zero_shot_table=zero_shot,
        generator=torch_generator(0),
        data=data,
    )


def padded_features(backbone: OpenClipBackbone, context: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Encode as in the papers: each prompt separately, on all 77 positions."""
    tokens = F.pad(tokens, (0, 77 - tokens.shape[1]))
    embeddings = backbone.embed_tokens(tokens)
    spread = context.expand(len(tokens), -1, -1)
    embeddings = torch.cat([embeddings[:, :1], spread, embeddings[:, 1 + len(context) :]], dim=1)
    return F.normalize(backbone.encode_text(embeddings, tokens), dim=-1)
