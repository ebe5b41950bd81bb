"""Names of models, classes and terms of a loss, drawn as they are spelled.

A name is data: matplotlib would take what stands between two dollar signs for a formula, and leave out of a
legend what begins with an underscore. Text that a user passes to matplotlib himself, such as ``label=``,
keeps matplotlib's rules, and with ``rcParams["text.usetex"]`` LaTeX reads names like all other text.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np

from clipcal._optional import import_optional

__all__ = ["as_text", "entitle", "grow", "room_of", "width_of", "write", "write_ticks"]

# A title may reach a little beyond its axes.
_TITLE_ROOM = 1.05
# Height of a line of text, in heights of a letter.
_LINE = 1.2
# A line may end behind any of these.
_BREAKS = frozenset(" -_/.,;:|+")


def as_text(name: Any) -> str:
    """Return a name or a label as text that fonts can draw."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    # Names of folders that are not valid text hold lone surrogates.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write(text: Any, name: Any, room: float | None = None) -> Any:
    """Write a name into a matplotlib text: no formula, and in lines that are no wider than the room.

    Parameters
    ----------
    text : matplotlib.text.Text
        Where to write.

    name : object
        A name or a label.

    room : float, default=None
        Width for the name, in points; by default any.

    Returns
    -------
    text : matplotlib.text.Text
        The same object.
    """
    spelled = as_text(name)
    if "$" in spelled:
        # The switch stays, so it is only thrown where it matters: formulas may be written here later.
        text.set_parse_math(False)
    if room is not None and not text.get_usetex():
        spelled = _in_lines(spelled, text.get_fontproperties(), room)
    text.set_text(spelled)
    return text


def entitle(ax: Any, name: Any, *, room: float | None = None, **style: Any) -> None:
    """Write the title of some axes, unless there is no name; by default the room is their width."""
    if name is not None:
        write(ax.set_title("", **style), name, _TITLE_ROOM * (room_of(ax)[0] if room is None else room))


def write_ticks(axis: Any, names: Sequence[Any], room: float) -> list[Any]:
    """Write names at 0, 1, 2, ..., and return the texts."""
    axis.set_ticks(range(len(names)), [as_text(name) for name in names])
    labels = axis.get_ticklabels()
    # The axis writes its own list whenever it is drawn.
    axis.set_ticklabels(
        [write(label, name, room).get_text() for label, name in zip(labels, names, strict=True)]
    )
    return list(labels)


def grow(axes: Sequence[Any]) -> None:
    """Enlarge a new figure by what the further lines of names take, so that the axes in it stay as they are.

    The axes are one below the other, or alone.
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
        # Axes of equal scales find their place only from where a first layout has put them.
        figure.draw_without_rendering()


def room_of(ax: Any) -> tuple[float, float]:
    """Return width and height of the place that axes have before the layout is made, in points."""
    place = ax.get_position(original=True)
    # A SubFigure's figure is the whole one; a Figure's is itself.
    points = 72 / ax.figure.figure.dpi
    return place.width * ax.figure.bbox.width * points, place.height * ax.figure.bbox.height * points


def width_of(text: Any) -> float:
    """Return the width of the longest line of a text, in points; estimated if LaTeX is to write it."""
    lines = text.get_text().split("\n")
    if text.get_usetex():
        return float(0.6 * text.get_size() * max(map(len, lines)))
    return max(_line_width(line, text.get_fontproperties()) for line in lines)


def _line_width(line: str, font: Any) -> float:
    paths = import_optional("matplotlib.textpath", extra="plot", caller="A name")
    return float(paths.text_to_path.get_text_width_height_descent(line, font, False)[0])


def _in_lines(name: str, font: Any, room: float) -> str:
    """Break lines that are wider than the room, where there is a space in its place."""
    # Hardly a letter is wider than high.
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
        # Between words, unless that leaves half of the line empty.
        end = next((end for end in range(most, most // 2, -1) if line[end - 1] in _BREAKS), most)
        parts.append(line[:end].removesuffix(" "))
        line = line[end:]
    return [*parts, line]
