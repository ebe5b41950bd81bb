"""The training loop, its schedule and its random numbers."""

from clipcal.training._loop import LabelledEmbeddings, tune
from clipcal.training._schedule import cosine_with_warmup
from clipcal.training._seeding import torch_generator

__all__ = ["LabelledEmbeddings", "cosine_with_warmup", "torch_generator", "tune"]
