"""Tuning methods: what is learned, and how it enters the text tower."""

from clipcal.methods._base import Prompts, TextLearner, TuningMethod
from clipcal.methods._coop import ContextLearner, CoOp, KgCoOp
from clipcal.methods._zero_shot import zero_shot_features

METHODS: dict[str, type[TuningMethod]] = {"coop": CoOp, "kgcoop": KgCoOp}

__all__ = [
    "METHODS",
    "CoOp",
    "ContextLearner",
    "KgCoOp",
    "Prompts",
    "TextLearner",
    "TuningMethod",
    "zero_shot_features",
]
