"""Save and load fitted estimators, without the weights of the backbone and without pickle."""

from clipcal.persistence._files import load, save

__all__ = ["load", "save"]
