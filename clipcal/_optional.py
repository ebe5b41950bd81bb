"""One wording for every missing optional package."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["import_optional"]


def import_optional(module: str, *, extra: str, caller: str) -> ModuleType:
    """Import a module of an optional package, or say how to install it.

    Parameters
    ----------
    module : str
        Name of the module, dots included, such as ``"matplotlib.pyplot"``.

    extra : str
        Name of the optional dependency group of clipcal which brings the package.

    caller : str
        What the user asked for; the error message starts with it.

    Returns
    -------
    module : module
        The imported module.

    Raises
    ------
    ImportError
        If the package is not installed. An installed package that fails while it is imported raises
        its own error, because installing it again would not help.

    Examples
    --------
    >>> from clipcal._optional import import_optional
    >>> import_optional("json", extra="plots", caller="An example").dumps([1])
    '[1]'
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f"{caller} needs the package {package!r}, which is not installed. "
            f'Install it with: pip install "clipcal[{extra}]"',
            name=error.name,
        ) from error
