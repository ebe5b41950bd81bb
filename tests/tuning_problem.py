"""Tuning problems for tests, made without a classifier."""

from functools import partial

import torch
from torch.nn.functional import normalize

from clipcal.images import encode_images, input_kind
from clipcal.methods import zero_shot_features
from clipcal.training import Batch, EmbeddedData, Forward, TuningProblem, torch_generator


def problem_of(backbone, names, *, method="coop", regularizers=(), seed=0, data=None):
    encode = partial(zero_shot_features, backbone)

    def other_images(images):
        if input_kind(images) != "embeddings":
            images = encode_images(images, backbone)
        raw = torch.as_tensor(images)[:, None]
        return EmbeddedData.from_raw(raw, torch.zeros(len(raw), dtype=torch.long), torch.ones(len(raw)))

    return TuningProblem(
        backbone,
        list(names),
        zero_shot=encode,
        zero_shot_table=partial(encode, skip_long=True),
        generator=torch_generator(seed),
        data=data,
        method=method,
        regularizers=regularizers,
        other_images=other_images,
    )


def encode(learner, prompts):
    """Return the text features of prompts without images."""
    return learner.encode_texts(prompts, None)


def batch_of(embeddings, targets=None, weights=None):
    """Return a batch, with weights rescaled to mean 1."""
    norms = embeddings.norm(dim=-1)
    n = len(embeddings)
    weights = torch.ones(n) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    return Batch(
        normalize(embeddings, dim=-1),
        norms,
        torch.zeros(n, dtype=torch.long) if targets is None else torch.as_tensor(targets),
        weights / weights.mean(),
    )


def out_of(texts):
    """Return a forward pass that has text features only."""
    return Forward(torch.zeros(0), texts, torch.zeros(0))
