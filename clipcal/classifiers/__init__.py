"""Classifiers on top of CLIP, and a callback for their training."""

from clipcal.classifiers._early_stopping import EarlyStopping
from clipcal.classifiers._prompt_tuned import PromptTunedCLIPClassifier
from clipcal.classifiers._zero_shot import ZeroShotCLIPClassifier

__all__ = ["EarlyStopping", "PromptTunedCLIPClassifier", "ZeroShotCLIPClassifier"]
