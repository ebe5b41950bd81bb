"""Classes that can be saved, by their names in files.

If a class is renamed, its old name must be kept here, so that older files can still be loaded.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
)

from clipcal.calibration import (
    CALIBRATORS,
    BetaMap,
    CalibratedCLIPClassifier,
    HistogramMap,
    IsotonicMap,
    VennAbersMap,
)
from clipcal.classifiers import PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.model_selection import LeaveClassesOut

__all__ = ["CLIP_CLASSIFIERS", "RECORDS", "find_class", "is_fittable", "parameters_of", "registered_name"]

CLIP_CLASSIFIERS = (ZeroShotCLIPClassifier, PromptTunedCLIPClassifier)
_FITTABLE: dict[str, type] = {
    cls.__name__: cls
    for cls in (*CLIP_CLASSIFIERS, CalibratedCLIPClassifier, *map(type, CALIBRATORS.values()))
}
_OTHERS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        FrozenEstimator,
        GroupKFold,
        GroupShuffleSplit,
        KFold,
        LeaveClassesOut,
        ShuffleSplit,
        StratifiedGroupKFold,
        StratifiedKFold,
        StratifiedShuffleSplit,
    )
}
RECORDS: dict[str, Any] = {cls.__name__: cls for cls in (BetaMap, HistogramMap, IsotonicMap, VennAbersMap)}


@cache
def _tuning_classes() -> dict[str, type]:
    # Imported only if needed, because these packages import torch.
    from clipcal.methods import METHODS
    from clipcal.regularizers import REGULARIZERS

    return {cls.__name__: cls for cls in (*METHODS.values(), *REGULARIZERS.values())}


def find_class(name: str) -> type | None:
    """Return the class with a name in a file, or None if there is none."""
    return _FITTABLE.get(name) or _OTHERS.get(name) or _tuning_classes().get(name)


def registered_name(value: object) -> str | None:
    """Return the name of the class of an object, or None if it is not registered."""
    cls = type(value)
    light = _FITTABLE.get(cls.__name__) or _OTHERS.get(cls.__name__)
    if light is None and cls.__module__.startswith("clipcal."):
        light = _tuning_classes().get(cls.__name__)
    # The name is not sufficient: a class of the user may have the same name.
    return cls.__name__ if light is cls else None


def is_fittable(cls: type) -> bool:
    """Return whether objects of a class have fitted attributes that are saved."""
    return cls in _FITTABLE.values()


def parameters_of(cls: type) -> list[str]:
    """Return the names of the parameters of the constructor, which are also attributes of the object."""
    return [name for name in inspect.signature(cls).parameters if name not in ("args", "kwargs")]
