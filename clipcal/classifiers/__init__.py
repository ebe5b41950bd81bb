"""Classifiers on top of CLIP."""

from clipcal.classifiers._prompt_tuned import PromptTunedCLIPClassifier
from clipcal.classifiers._zero_shot import ZeroShotCLIPClassifier

__all__ = ["PromptTunedCLIPClassifier", "ZeroShotCLIPClassifier"]
