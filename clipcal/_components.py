"""Parts of an estimator that may be given by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from sklearn.base import BaseEstimator

__all__ = ["NamedComponents", "named_component"]

_Component = TypeVar("_Component")


def named_component(
    parameter: str, value: str | _Component, known: Mapping[str, Callable[[], _Component]], *, example: str
) -> _Component:
    """Return the component that a parameter's value names or is.

    Parameters
    ----------
    parameter : str
        The name of the parameter, for errors.
    value : str or object
        A name, or the component itself.
    known : mapping of str to callable
        What makes each component.
    example : str
        An instance as one would type it, for errors.

    Returns
    -------
    component : object

    Raises
    ------
    ValueError
        If the name is not known.
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
    """Base of estimators some of whose parameters are components, which may be given by name.

    A subclass lists these parameters in ``_components`` and writes ``_named_component``.
    """

    _components: ClassVar[tuple[str, ...]] = ()

    def _named_component(self, parameter: str, name: str) -> Any:
        """Return a new component for the name that was given for the parameter."""
        raise NotImplementedError

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator, or of its components.

        A component that is given by name becomes an object when one of its own parameters is set, so that a
        search over ``regularizer__weight`` needs nothing but ``regularizer="dor"``.

        Parameters
        ----------
        **params : dict
            Values by name; ``component__parameter`` sets a parameter of a component.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If there is no such parameter, or the component is absent or a list.
        """
        before = {parameter: getattr(self, parameter) for parameter in self._components}
        for key in sorted(params):
            parameter, nested, inner = key.partition("__")
            if not nested or parameter not in self._components:
                continue
            value = params.get(parameter, getattr(self, parameter))
            if isinstance(value, str):
                params[parameter] = self._named_component(parameter, value)
            elif not hasattr(value, "set_params"):
                raise ValueError(
                    f"{key} cannot be set, as {parameter}={value!r} has no parameter {inner!r}. Set "
                    f"{parameter} to a name or an object first; in a search, list whole objects: "
                    f"{{{parameter!r}: [...]}}."
                )
        try:
            return super().set_params(**params)
        except ValueError:
            # A name that was replaced for the sake of a parameter that does not exist.
            for parameter, value in before.items():
                setattr(self, parameter, value)
            raise
