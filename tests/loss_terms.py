"""Inputs for tests of loss terms: logits, text features and samples that are given, without a classifier."""

import numpy as np
import torch
from toy_backbone import AnyWidthBackbone
from tuning_problem import batch_of, problem_of

from clipcal import PromptTunedCLIPClassifier
from clipcal.methods import CoOp
from clipcal.training import Forward

NAMES = ["dog", "river", "hammer"]
X = np.random.default_rng(0).normal(size=(24, 32))
Y = np.array(NAMES * 8)
# Logits of four samples of three classes, and their classes.
LOGITS = [[2.0, 1.0, -1.0], [0.0, 3.0, 0.5], [-1.0, 0.0, 4.0], [1.0, 1.5, 1.0]]
TARGETS = [0, 1, 2, 0]


def term_of(regularizer, backbone=None, method=None, names=NAMES):
    problem = problem_of(backbone or AnyWidthBackbone(), names)
    return regularizer.prepare(problem, (method or CoOp()).learner(problem))


def samples(weights=None, targets=TARGETS):
    """Return a batch of four samples of the given classes and weights."""
    embeddings = torch.randn(len(targets), 32, generator=torch.Generator().manual_seed(0))
    return batch_of(embeddings, targets, weights)


def logits_out(logits=LOGITS):
    """Return a forward pass that has logits only."""
    logits = logits if isinstance(logits, torch.Tensor) else torch.tensor(logits)
    return Forward(torch.zeros(0), torch.zeros(0), logits)


def value(term, logits=LOGITS, weights=None, targets=TARGETS):
    return term(logits_out(logits), samples(weights, targets), None)


def fitted(regularizer, **params):
    params = {
        "recipe": "original",
        "max_epochs": 3,
        "batch_size": 8,
        "random_state": 0,
        "learning_rate": 0.02,
        **params,
    }
    return PromptTunedCLIPClassifier(AnyWidthBackbone(), regularizer=regularizer, **params).fit(X, Y)
