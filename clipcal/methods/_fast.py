"""The recipe "fast", which several methods share."""

from __future__ import annotations

from clipcal.training import Recipe

__all__ = ["FAST", "FAST_RATE_OF_RANDOM_CONTEXTS"]

# Image features are computed before training, so a step costs its text pass, whatever the number of images.
# With all images in each step, the gradient has no noise from batches, and a large rate is safe.
FAST = Recipe(
    max_epochs=100,
    learning_rate=0.03,
    batch_size="all",
    optimizer="adam",
    weight_decay=0.0,
    schedule="constant",
    warmup_epochs=0,
    early_stopping=True,
)

# Random vectors are farther from useful ones than words.
FAST_RATE_OF_RANDOM_CONTEXTS = 0.1
