"""The relation of the spread of logits, the divergence of class features, and confidence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import spearmanr

SPREADS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
CLASSES = (2, 5, 15, 50, 500)
N_DRAWS = 10_000


def logit_spread(logits: NDArray[np.float64]) -> float:
    """Return the standard deviation of the logits of the classes, averaged over the images."""
    return float(logits.std(axis=1, ddof=1).mean())


def stretched(features: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Multiply the deviations of class features from their mean, and normalize the features again."""
    mean = features.mean(axis=0)
    moved = mean + factor * (features - mean)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def expected_confidence(
    spread: float, n_classes: int, *, n_draws: int = N_DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Return the mean of the highest probability for independent normal logits, and its standard error."""
    logits = spread * np.random.default_rng(seed).standard_normal((n_draws, n_classes))
    highest = softmax(logits, axis=1).max(axis=1)
    return float(highest.mean()), float(highest.std(ddof=1) / np.sqrt(n_draws))


def rank_correlations(x: Iterable[NDArray[np.float64]], y: Iterable[NDArray[np.float64]]) -> list[float]:
    """Return Spearman's correlation over variants in each run, from one array of all runs per variant."""
    return [
        float(spearmanr(first, second).statistic)
        for first, second in zip(np.transpose(list(x)), np.transpose(list(y)), strict=True)
    ]
