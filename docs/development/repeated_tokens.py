"""Example of a method that prompts the image tower: learned tokens, the same in several blocks."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize

from clipcal.methods import TuningMethod
from clipcal.training import ImagePromptEncoder, Learner, Recipe, tokenize_prompts

TEMPLATE = "a photo of a {}."


class RepeatedTokensLearner(Learner):
    """The learned tokens, the image features computed with them, and zero-shot text features."""

    def __init__(self, problem, n_tokens, depth):
        super().__init__(problem.backbone.logit_scale)
        self.encoder = ImagePromptEncoder(problem.backbone)
        self.zero_shot = problem.zero_shot
        self.blocks = range(depth)
        start = 0.02 * torch.randn(n_tokens, self.encoder.width, generator=problem.generator)
        self.tokens = nn.Parameter(start)

    def prompts(self, names):
        """Tokenize the prompts of names, and add their zero-shot features."""
        texts = [TEMPLATE.format(name) for name in names]
        prompts = tokenize_prompts(self.encoder.backbone, texts, n_context=0)
        return replace(prompts, extra={"zero_shot": self.zero_shot(names, TEMPLATE)})

    def encode_texts(self, prompts, images):
        """Return the zero-shot features."""
        return prompts.extra["zero_shot"]

    def encode_images(self, batch):
        """Encode the images with the tokens, which replace the outputs of the previous block."""
        return normalize(self.encoder(batch, {block: self.tokens for block in self.blocks}), dim=-1)


class RepeatedTokens(TuningMethod):
    """Tokens appended to the patches of each image, and put back at the inputs of the first blocks."""

    name = "repeated-tokens"
    needs_pixels = True
    linear = False
    recipes: ClassVar = {"original": Recipe(max_epochs=5, batch_size=4)}

    def __init__(self, n_tokens=8, depth=3):
        self.n_tokens = n_tokens
        self.depth = depth

    def learner(self, problem):
        """Return the learner of one fit, with random tokens."""
        return RepeatedTokensLearner(problem, self.n_tokens, self.depth)
