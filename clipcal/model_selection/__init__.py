"""Model selection and evaluation on unseen classes."""

from clipcal.model_selection._leave_classes_out import LeaveClassesOut
from clipcal.model_selection._open_vocabulary import open_vocabulary
from clipcal.model_selection._predictions import OpenVocabularyPredictions, open_vocabulary_predictions

__all__ = [
    "LeaveClassesOut",
    "OpenVocabularyPredictions",
    "open_vocabulary",
    "open_vocabulary_predictions",
]
