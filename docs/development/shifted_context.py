"""Example of a tuning method: a learned context and a learned shift of all text features."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize

from clipcal.methods import TuningMethod
from clipcal.training import Learner, PromptEncoder, Recipe, tokenize_prompts

WORDS = "a photo of a"  # four tokens


class ShiftedContextLearner(Learner):
    """The learned tensors, and the text features computed from them."""

    def __init__(self, problem, scale):
        super().__init__(problem.backbone.logit_scale)
        self.encoder = PromptEncoder(problem.backbone)
        self.scale = scale
        start = problem.backbone.n_start_tokens
        words = problem.backbone.embed_tokens(problem.backbone.tokenize([WORDS]))[0, start : start + 4]
        self.context = nn.Parameter(words.detach().clone())
        self.shift = nn.Parameter(torch.zeros(problem.backbone.embedding_dim))

    def prompts(self, names):
        """Tokenize the prompts of names, which may be classes, new classes or nouns."""
        texts = [f"{WORDS} {name}." for name in names]
        return tokenize_prompts(self.encoder.backbone, texts, n_context=4)

    def encode_texts(self, prompts, images):
        """Encode the prompts with the learned context in place of the words, and shift the features."""
        features = normalize(self.encoder(prompts, self.context), dim=-1)
        return normalize(features + self.scale * self.shift, dim=-1)


class ShiftedContext(TuningMethod):
    """CoOp with text features ``n(w_c + scale * b)``: those of CoOp, ``w_c``, and a learned shift ``b``."""

    name = "shifted-context"
    recipes: ClassVar = {"original": Recipe(max_epochs=50, batch_size=32)}

    def __init__(self, scale=1.0):
        self.scale = scale

    def learner(self, problem):
        """Return the learner of one fit, with initial values."""
        if self.scale < 0:
            raise ValueError(f"scale must be at least 0, got {self.scale}.")
        return ShiftedContextLearner(problem, self.scale)
