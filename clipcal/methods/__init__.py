"""Prompt tuning methods."""

from clipcal.methods._base import TuningMethod
from clipcal.methods._coop import CoOp, KgCoOp
from clipcal.methods._zero_shot import zero_shot_features

METHODS: dict[str, type[TuningMethod]] = {method.name: method for method in (CoOp, KgCoOp)}

__all__ = ["METHODS", "CoOp", "KgCoOp", "TuningMethod", "zero_shot_features"]
