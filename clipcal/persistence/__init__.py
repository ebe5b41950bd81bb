"""Fitted estimators as files: what was learned, without the backbone's weights and without pickle."""

from clipcal.persistence._files import load, save

__all__ = ["load", "save"]
