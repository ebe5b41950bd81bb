"""Training: the interface of methods and loss terms, the loop, its settings and its random numbers."""

from clipcal.training._checks import check_learner as check_learner
from clipcal.training._data import Batch, EmbeddedData, TrainingData
from clipcal.training._encoding import PromptEncoder
from clipcal.training._image_prompts import ImagePromptEncoder
from clipcal.training._learner import Learner, LossTerm
from clipcal.training._loop import finished as finished
from clipcal.training._loop import train_epochs as train_epochs
from clipcal.training._loop import tune
from clipcal.training._pixel_data import ImageViews, PixelData
from clipcal.training._prediction import predict_logits as predict_logits
from clipcal.training._prediction import predict_logits_from_pixels as predict_logits_from_pixels
from clipcal.training._problem import Forward, TuningProblem

# Not public: methods get prompts from tokenize_prompts.
from clipcal.training._prompts import Prompts as Prompts
from clipcal.training._prompts import tokenize_prompts
from clipcal.training._recipe import Recipe
from clipcal.training._schedule import constant_with_warmup, cosine_with_warmup
from clipcal.training._seeding import seeded as seeded
from clipcal.training._seeding import torch_generator
from clipcal.training._validation import log_loss as log_loss

__all__ = [
    "Batch",
    "EmbeddedData",
    "Forward",
    "ImagePromptEncoder",
    "ImageViews",
    "Learner",
    "LossTerm",
    "PixelData",
    "PromptEncoder",
    "Recipe",
    "TrainingData",
    "TuningProblem",
    "constant_with_warmup",
    "cosine_with_warmup",
    "tokenize_prompts",
    "torch_generator",
    "tune",
]
