"""Components of an estimator that can be given by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from sklearn.base import BaseEstimator

__all__ = ["NamedComponents", "named_component"]

_Component = TypeVar("_Component")


def named_component(
    parameter: str, value: str | _Component, known: Mapping[str, Callable[[], _Component]], *, example: str
) -> _Component:
    """Return the component for a parameter that takes a name or an instance.

    Parameters
    ----------
    parameter : str
        Name of the parameter, for error messages.
    value : str or object
        A name, or the component itself.
    known : mapping of str to callable
        Function that creates the component, for each name.
    example : str
        Code of an example instance, for error messages.

    Returns
    -------
    component : object

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If the value is a class.
    """
    if isinstance(value, type):
        raise TypeError(f"{parameter} is the class {value.__name__}; pass an instance: {value.__name__}().")
    if not isinstance(value, str):
        return value
    if value not in known:
        raise ValueError(
            f"{parameter}={value!r} is not known; choose among {', '.join(map(repr, known))}, "
            f"or pass an instance such as {example}."
        )
    return known[value]()


class NamedComponents(BaseEstimator):
    """Base class for estimators with components that can be given by name.

    A subclass lists these parameters in ``_components`` and implements ``_named_component``.
    """

    _components: ClassVar[tuple[str, ...]] = ()

    def _named_component(self, parameter: str, name: str, params: Mapping[str, Any]) -> Any:
        """Return a new component for the given name of a parameter."""
        raise NotImplementedError

    def set_params(self, **params: Any) -> Self:
        """Set the parameters of this estimator and its components.

        If a component is given by name, setting one of its parameters replaces the name by an instance. A
        search over ``regularizer__weight`` therefore works with ``regularizer="dor"``.

        Parameters
        ----------
        **params : dict
            Parameter values by name; ``component__parameter`` sets a parameter of a component.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If a parameter does not exist, or the component is None or a list.
        """
        before = {parameter: getattr(self, parameter) for parameter in self._components}
        for key in sorted(params):
            parameter, nested, inner = key.partition("__")
            if not nested or parameter not in self._components:
                continue
            value = params.get(parameter, getattr(self, parameter))
            if isinstance(value, str):
                params[parameter] = self._named_component(parameter, value, params)
            elif not hasattr(value, "set_params"):
                raise ValueError(
                    f"{key} cannot be set, as {parameter}={value!r} has no parameter {inner!r}. Set "
                    f"{parameter} to a name or an object first; in a search, search over whole objects: "
                    f"{{{parameter!r}: [...]}}."
                )
        try:
            return super().set_params(**params)
        except ValueError:
            # Restore the names, which were replaced although a parameter does not exist.
            for parameter, value in before.items():
                setattr(self, parameter, value)
            raise
