"""Literal drawing of the names of models, classes and loss terms.

By default, matplotlib parses text between dollar signs as a formula and hides legend entries that begin with
an underscore. Names are data, so these rules are disabled for them. They still apply to text that users pass
to matplotlib, such as ``label=``. With ``rcParams["text.usetex"]``, LaTeX parses names like all other text.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np

from clipcal._optional import import_optional

__all__ = ["as_text", "draw_title", "enlarge_figure", "room_of", "width_of", "write", "write_ticks"]

# Maximum width of a title, as a fraction of the width of the axes.
_TITLE_ROOM = 1.05
# Height of a line of text, in units of the font size.
_LINE = 1.2
# Characters after which a line may be broken.
_BREAKS = frozenset(" -_/.,;:|+")


def as_text(name: Any) -> str:
    """Return a name or a label as text that can be drawn."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    # Folder names that are not valid text contain lone surrogates, which cannot be drawn.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write(text: Any, name: Any, room: float | None = None) -> Any:
    """Set a matplotlib text to a literal name, wrapped to the available width.

    Parameters
    ----------
    text : matplotlib.text.Text
        The text to set.

    name : object
        A name or a label.

    room : float, default=None
        Available width in points. By default, names are not wrapped.

    Returns
    -------
    text : matplotlib.text.Text
        The same object.
    """
    spelled = as_text(name)
    if "$" in spelled:
        # Only disable formulas if necessary: the setting is permanent, and users may set a formula later.
        text.set_parse_math(False)
    if room is not None and not text.get_usetex():
        spelled = _in_lines(spelled, text.get_fontproperties(), room)
    text.set_text(spelled)
    return text


def draw_title(ax: Any, name: Any, *, room: float | None = None, **style: Any) -> None:
    """Set the title of axes if there is a name. By default, it may be as wide as the axes."""
    if name is not None:
        write(ax.set_title("", **style), name, _TITLE_ROOM * (room_of(ax)[0] if room is None else room))


def write_ticks(axis: Any, names: Sequence[Any], room: float) -> list[Any]:
    """Label the ticks 0, 1, 2, ... with names, and return the texts."""
    axis.set_ticks(range(len(names)), [as_text(name) for name in names])
    labels = axis.get_ticklabels()
    # The axis resets the texts from its own list of labels at each draw.
    axis.set_ticklabels(
        [write(label, name, room).get_text() for label, name in zip(labels, names, strict=True)]
    )
    return list(labels)


def enlarge_figure(axes: Sequence[Any]) -> None:
    """Enlarge a new figure for wrapped names, so that its axes keep their size.

    `axes` holds a single axes, or one for each row of the figure.
    """
    width = height = 0.0
    for ax in axes:
        titles = max(ax.get_title(place).count("\n") for place in ("left", "center", "right"))
        height += titles * ax.title.get_size()
        texts = [ax.xaxis.label, *(ax.get_legend().get_texts() if ax.get_legend() else [])]
        height += sum(text.get_text().count("\n") * text.get_size() for text in texts)
        width += ax.yaxis.label.get_text().count("\n") * ax.yaxis.label.get_size()
    if width or height:
        figure = axes[0].figure
        figure.set_size_inches(figure.get_size_inches() + _LINE / 72 * np.array([width, height]))
        # The layout of axes with equal scales only converges in a second pass.
        figure.draw_without_rendering()


def room_of(ax: Any) -> tuple[float, float]:
    """Return width and height, in points, of axes before the layout engine runs."""
    place = ax.get_position(original=True)
    # `figure` of a SubFigure is the root figure, and `figure` of a Figure is the figure itself.
    points = 72 / ax.figure.figure.dpi
    return place.width * ax.figure.bbox.width * points, place.height * ax.figure.bbox.height * points


def width_of(text: Any) -> float:
    """Return the width of the longest line of a text in points; an estimate if LaTeX is used."""
    lines = text.get_text().split("\n")
    if text.get_usetex():
        return float(0.6 * text.get_size() * max(map(len, lines)))
    return max(_line_width(line, text.get_fontproperties()) for line in lines)


def _line_width(line: str, font: Any) -> float:
    paths = import_optional("matplotlib.textpath", extra="plot", caller="A name")
    return float(paths.text_to_path.get_text_width_height_descent(line, font, False)[0])


def _in_lines(name: str, font: Any, room: float) -> str:
    """Break lines that are wider than the available width; a space at a break is dropped."""
    # Fast path: letters are rarely wider than the font size.
    if max(map(len, name.split("\n"))) * font.get_size_in_points() <= room:
        return name
    return "\n".join(part for line in name.split("\n") for part in _parts(line, font, room))


def _parts(line: str, font: Any, room: float) -> list[str]:
    parts = []
    while len(line) > 1 and _line_width(line, font) > room:
        ends = range(1, len(line))
        most = max(bisect(ends, room, key=lambda end: _line_width(line[:end], font)), 1)
        while most > 1 and unicodedata.combining(line[most]):
            most -= 1
        # Break between words unless that leaves more than half of the line empty.
        end = next((end for end in range(most, most // 2, -1) if line[end - 1] in _BREAKS), most)
        parts.append(line[:end].removesuffix(" "))
        line = line[end:]
    return [*parts, line]
