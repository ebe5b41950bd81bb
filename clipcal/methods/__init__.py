"""Prompt tuning methods."""

from clipcal.methods._base import TuningMethod
from clipcal.methods._cocoop import CoCoOp
from clipcal.methods._coop import CoOp, KgCoOp
from clipcal.methods._zero_shot import zero_shot_features

METHODS: dict[str, type[TuningMethod]] = {method.name: method for method in (CoOp, KgCoOp, CoCoOp)}

__all__ = ["METHODS", "CoCoOp", "CoOp", "KgCoOp", "TuningMethod", "zero_shot_features"]
