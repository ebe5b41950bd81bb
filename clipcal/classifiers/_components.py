"""The method and the regularizers of a prompt-tuned classifier, from what the user gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clipcal._compat import validate_parameters
from clipcal._components import named_component
from clipcal.text import find_templates

if TYPE_CHECKING:
    from clipcal.methods import TuningMethod
    from clipcal.regularizers import Regularizer

__all__ = ["find_method", "find_regularizer", "find_regularizers"]


def find_method(method: str | TuningMethod) -> TuningMethod:
    """Return the tuning method that a parameter names or is."""
    from clipcal.methods import METHODS

    return named_component("method", method, METHODS, example="CoOp(n_context=16, context_init=None)")


def find_regularizer(regularizer: str | Regularizer) -> Regularizer:
    """Return the regularizer that a parameter, or an entry of a list, names or is."""
    from clipcal.regularizers import REGULARIZERS

    example = "DynamicOutlierRegularizer(weight=4.0)"
    found = named_component("regularizer", regularizer, REGULARIZERS, example=example)
    if not hasattr(found, "prepare"):
        raise TypeError(
            f"regularizer={regularizer!r} is neither one of {', '.join(map(repr, REGULARIZERS))} nor an "
            f"instance of a Regularizer, such as {example}."
        )
    # ``prepare`` checks the same, but comes after the images are encoded.
    if hasattr(found, "_parameter_constraints"):
        validate_parameters(found)
    if (template := getattr(found, "template", None)) is not None:
        find_templates(template)
    return found


def find_regularizers(
    given: str | Regularizer | Sequence[str | Regularizer] | None, method: TuningMethod
) -> list[Regularizer]:
    """Return what the user asked for, after what belongs to the method.

    A regularizer that the user gives takes the place of the method's own of the same kind.

    Raises
    ------
    ValueError
        If a name is not known, or there are several of one kind.
    TypeError
        If an entry is no regularizer.
    """
    items: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    wanted = [find_regularizer(item) for item in items if item is not None]
    names = [regularizer.name for regularizer in wanted]
    if len(set(names)) < len(names):
        raise ValueError(f"regularizer holds several of one kind: {names}; give each kind once.")
    own = method.default_regularizer
    return wanted if own is None or own in names else [find_regularizer(own), *wanted]
