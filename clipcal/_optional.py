"""Import optional packages with a common error message."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["import_optional"]


def import_optional(module: str, *, extra: str, caller: str) -> ModuleType:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Dotted name of the module, such as ``"matplotlib.pyplot"``.

    extra : str
        Extra of clipcal that installs the package.

    caller : str
        Name of the feature that requires the package; the error message starts with it.

    Returns
    -------
    module : module
        The imported module.

    Raises
    ------
    ImportError
        If the package is not installed. If it is installed and its import fails, its own error is raised.

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
            f"{caller} requires the package {package!r}, which is not installed. "
            f'Install it with: pip install "clipcal[{extra}]"',
            name=error.name,
        ) from error
