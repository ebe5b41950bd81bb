"""The method, the recipe and the regularizers of a prompt-tuned classifier, from its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clipcal._compat import validate_parameters
from clipcal._components import named_component
from clipcal.text import find_templates

if TYPE_CHECKING:
    from clipcal.methods import TuningMethod
    from clipcal.regularizers import Regularizer
    from clipcal.training import Recipe

__all__ = ["find_method", "find_recipe", "find_regularizer", "find_regularizers"]


def find_method(method: str | TuningMethod, recipe: str = "original") -> TuningMethod:
    """Return the tuning method that a parameter names or is; a named one as its recipe has it.

    Raises
    ------
    ValueError
        If the name of the method or of the recipe is not known.
    TypeError
        If the method is a class.
    """
    from clipcal.methods import METHODS

    found = named_component("method", method, METHODS, example="CoOp(n_context=16, context_init=None)")
    if isinstance(method, str):
        found.set_params(**find_recipe(found, recipe).method_params)
    return found


def find_recipe(method: TuningMethod, name: str, given: object = None) -> Recipe:
    """Return a method's published training settings of a name, with the user's values in their place.

    Parameters
    ----------
    method : TuningMethod
    name : str
    given : object, default=None
        Has an attribute for each setting, None where the published value is to be used.

    Raises
    ------
    ValueError
        If the method has no recipe of the name, or momentum is given for an optimizer without one.
    """
    if name not in method.recipes:
        raise ValueError(
            f"recipe={name!r} is not known for method {type(method).__name__}; choose among "
            f"{', '.join(map(repr, method.recipes))}, and set single parameters, such as max_epochs, where "
            "they should differ."
        )
    recipe = method.recipes[name]
    values = {setting: getattr(given, setting, None) for setting in recipe.names()}
    recipe = recipe.with_values(**values)
    if values["momentum"] is not None and not recipe.uses_momentum:
        raise ValueError(
            f"momentum={values['momentum']} belongs to optimizer='sgd', but the optimizer is "
            f"{recipe.plain()['optimizer']!r}; leave momentum=None."
        )
    return recipe


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
    """Return the method's own regularizers, followed by those that the user asked for.

    A regularizer of the user's replaces the method's own of the same kind.

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
    return [own for own in method.regularizers() if own.name not in names] + wanted
