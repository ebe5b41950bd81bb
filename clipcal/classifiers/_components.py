"""Resolve the parameters ``method``, ``recipe`` and ``regularizer`` of prompt-tuned classifiers."""

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


def find_method(method: str | TuningMethod, recipe: str = "auto") -> TuningMethod:
    """Return the tuning method for the parameter ``method``.

    A method given by name gets the parameters of the recipe.

    Raises
    ------
    ValueError
        If the name of the method or of the recipe is unknown.
    TypeError
        If the method is a class.
    ClassNameError
        If a template is invalid.
    """
    from clipcal.methods import METHODS

    found = named_component("method", method, METHODS, example="CoOp(n_context=16, context_init=None)")
    if isinstance(method, str):
        _, settings = find_recipe(found, recipe)
        found.set_params(**settings.method_params)
    _check_component(found)
    return found


def _check_component(found: TuningMethod | Regularizer) -> None:
    """Raise an error for a method or a regularizer without a name or with invalid parameters.

    ``learner`` and ``prepare`` repeat the checks of parameters, but only after all images are encoded.
    """
    if not isinstance(getattr(found, "name", None), str):
        raise TypeError(
            f"{type(found).__name__} has no attribute name; give the class one, such as name = 'mine'."
        )
    if hasattr(found, "_parameter_constraints"):
        validate_parameters(found)
    for parameter in ("template", "zero_shot_template"):
        if (template := getattr(found, parameter, None)) is not None:
            find_templates(template)
    # The method that another one extends.
    base: Any = getattr(found, "base", None)
    if hasattr(base, "learner") and not isinstance(base, type):
        _check_component(base)


def find_recipe(method: TuningMethod, name: str, given: object = None) -> tuple[str, Recipe]:
    """Return the name and the recipe of a method, with settings replaced by those of the user.

    A method without training has no epochs, whatever the settings. A given number of epochs is used as it is,
    unless early stopping is given, too.

    Parameters
    ----------
    method : TuningMethod
        The method.
    name : str
        Name of the recipe. ``"auto"`` is the default recipe of the method.
    given : object, default=None
        Object whose attributes are the settings of the user. Missing attributes and None are ignored.

    Returns
    -------
    name : str
        Name of the recipe of the method.
    recipe : Recipe
        The settings.

    Raises
    ------
    ValueError
        If the method has no recipe of this name, momentum is given for an optimizer without momentum, or
        early stopping and a warm start are combined.
    """
    if name == "auto":
        name = method.default_recipe
    if name not in method.recipes:
        raise ValueError(
            f"recipe={name!r} is unknown for method {type(method).__name__}; choose one of "
            f"{', '.join(map(repr, method.recipes))}, or 'auto' for its default. To change single "
            "settings, set parameters such as max_epochs."
        )
    recipe = method.recipe(name)
    values = {setting: getattr(given, setting, None) for setting in recipe.names()}
    if values["max_epochs"] is not None and values["early_stopping"] is None:
        values["early_stopping"] = False
    recipe = recipe.with_values(**values)
    if method.training_free:
        recipe = recipe.with_values(max_epochs=0, early_stopping=False)
    if recipe.early_stopping and getattr(given, "warm_start", False):
        raise ValueError(
            f"warm_start=True cannot be used with early stopping ({name!r} recipe), since a previous fit has "
            "seen the held-out data; set max_epochs and early_stopping=False, or use recipe='original'."
        )
    if values["momentum"] is not None and not recipe.uses_momentum:
        raise ValueError(
            f"momentum={values['momentum']} is only supported by optimizer='sgd', but the optimizer is "
            f"{recipe.plain()['optimizer']!r} (recipe {name!r}); use momentum=None, or set optimizer='sgd'."
        )
    return name, recipe


def find_regularizer(regularizer: str | Regularizer) -> Regularizer:
    """Return the regularizer for the parameter ``regularizer``, or for an entry of a list."""
    from clipcal.regularizers import REGULARIZERS

    example = "DynamicOutlierRegularizer(weight=4.0)"
    found = named_component("regularizer", regularizer, REGULARIZERS, example=example)
    if not hasattr(found, "prepare"):
        raise TypeError(
            f"regularizer must be one of {', '.join(map(repr, REGULARIZERS))} or an instance of Regularizer, "
            f"such as {example}, got {regularizer!r}."
        )
    _check_component(found)
    return found


def find_regularizers(
    given: str | Regularizer | Sequence[str | Regularizer] | None, method: TuningMethod
) -> list[Regularizer]:
    """Return the regularizers of the method, followed by those of the user.

    A regularizer of the user replaces a regularizer of the method with the same name.

    Raises
    ------
    ValueError
        If a name is unknown or occurs more than once, or the method is not trained.
    TypeError
        If an entry is not a regularizer.
    """
    items: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    wanted = [find_regularizer(item) for item in items if item is not None]
    names = [regularizer.name for regularizer in wanted]
    if len(set(names)) < len(names):
        raise ValueError(f"regularizer has several entries of the same kind: {names}; pass each kind once.")
    if wanted and method.training_free:
        raise ValueError(
            f"regularizer={names[0]!r} has no effect on method={method.name!r}, which is not trained; use "
            "regularizer=None, or a method that is trained, such as 'tip-adapter-f'."
        )
    return [own for own in method.regularizers() if own.name not in names] + wanted
