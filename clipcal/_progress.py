"""Progress bars, in terminals and in notebooks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(iterable: Any = None, *, shown: bool, description: str, unit: str, total: Any = None) -> Any:
    """Return a bar of tqdm; without `shown` it does nothing.

    Parameters
    ----------
    iterable : iterable, default=None
        What is walked through; without one, the bar is moved by ``update``.
    shown : bool
        Whether anything is written.
    description : str
        What stands before the bar.
    unit : str
        What is counted.
    total : int, default=None
        How many there are, where `iterable` does not tell.

    Returns
    -------
    bar : tqdm.tqdm
    """
    # In a notebook without ipywidgets tqdm.auto would warn of that, and then show what this one shows.
    if find_spec("ipywidgets") is None:
        from tqdm.std import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm(iterable, total=total, desc=description, unit=unit, disable=not shown)
