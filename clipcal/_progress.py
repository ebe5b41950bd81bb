"""Progress bars for terminals and notebooks."""

from __future__ import annotations

import warnings
from typing import Any

# In a notebook without ipywidgets the first import of tqdm.auto warns and falls back to the text bar.
# Dependencies of open_clip import it too, so `backbones` imports this module first.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["end_early", "progress_bar"]

# Seconds between updates. Log files and exported notebooks keep every update as a line of its own.
_INTERVAL = 0.5


def progress_bar(iterable: Any = None, *, shown: bool, description: str, unit: str, total: Any = None) -> Any:
    """Return a tqdm progress bar.

    Parameters
    ----------
    iterable : iterable, default=None
        Iterable to wrap. If None, the bar advances with ``update``.
    shown : bool
        Whether to display the bar.
    description : str
        Text before the bar.
    unit : str
        Unit of the items.
    total : int, default=None
        Number of items, if `iterable` has no length.

    Returns
    -------
    bar : tqdm.auto.tqdm
    """
    return tqdm(iterable, total=total, desc=description, unit=unit, disable=not shown, mininterval=_INTERVAL)


def end_early(bar: Any) -> None:
    """Reduce the total of a bar to what has been done, if the rest is not needed.

    Otherwise the bar would remain below 100 %, and in a notebook it would be red, as after an error.

    Parameters
    ----------
    bar : tqdm.auto.tqdm
        A bar from :func:`progress_bar`.
    """
    if bar.disable or bar.n == bar.total:
        return
    done, began = bar.n, bar.start_t
    bar.reset(total=done)  # unlike an assignment to bar.total, this also scales the bar of a notebook
    bar.n, bar.start_t = done, began
    bar.refresh()
