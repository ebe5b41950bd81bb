"""Logits in, better probabilities out."""

from ._temperature import fit_temperature
from ._temperature_scaling import TemperatureScaling

__all__ = ["TemperatureScaling", "fit_temperature"]
