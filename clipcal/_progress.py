"""Progress bars, in terminals and in notebooks."""

from __future__ import annotations

import warnings
from typing import Any

# In a notebook without ipywidgets the first import of tqdm.auto, by whomever, warns of that and then gives
# the plain bar. open_clip's dependencies import it too, so `backbones` imports this file first.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

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
    bar : tqdm.auto.tqdm
    """
    return tqdm(iterable, total=total, desc=description, unit=unit, disable=not shown)
