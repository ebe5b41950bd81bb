"""Random logits, and labels sampled from them."""

import numpy as np


def drawn_from(logits, seed=0):
    """Sample labels from the softmax of `logits`."""
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return (logits + noise).argmax(axis=1)


def random_logits(n=400, n_classes=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_classes)) * 2
