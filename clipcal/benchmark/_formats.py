"""Tables as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from clipcal.benchmark._tables import NO_NUMBER, Row, Table, Value

__all__ = ["csv_of", "latex_of", "markdown_of", "records_to_csv"]

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$",
    NO_NUMBER: "--",
}  # fmt: skip


def markdown_of(table: Table) -> str:
    """Return a table as Markdown, with its title and its caption."""
    lines = [list(table.columns), *([str(cell) for cell in row.cells] for row in table.rows)]
    lines = [[_escaped(text) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    padded.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([f"## {_escaped(table.title)}", "", *padded, "", _escaped(table.caption), ""])


def csv_of(table: Table) -> str:
    """Return a table as CSV with full precision; columns for spreads and notes follow where needed."""
    columns = list(zip(*(row.cells for row in table.rows), strict=True))
    header, content = [], []
    for name, column in zip(table.columns, columns, strict=True):
        header.append(name)
        content.append([cell.number if isinstance(cell, Value) else cell for cell in column])
        for suffix, field in (("spread", "spread"), ("note", "note")):
            extra = [getattr(cell, field, None) or None for cell in column]
            if any(found is not None for found in extra):
                header.append(f"{name} {suffix}")
                content.append(extra)
    return _csv([header, *zip(*content, strict=True)])


def latex_of(table: Table) -> str:
    """Return a table in LaTeX; it needs the package booktabs."""
    n_text = sum(isinstance(cell, str) for cell in table.rows[0].cells[:1])
    columns = "l" * n_text + "r" * (len(table.columns) - n_text)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.title)}. {_latex(table.caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', table.name)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(_latex, table.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_cells(row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def records_to_csv(records: Sequence[dict[str, Any]]) -> str:
    """Return flat records as CSV; columns are in the order of their first occurrence."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return _csv([names, *([record.get(name) for name in names] for record in records)])


def _csv(lines: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _latex_cells(row: Row) -> list[str]:
    return [_latex(cell.text if isinstance(cell, Value) else cell) for cell in row.cells]


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _escaped(text: str) -> str:
    """Escape the characters that Markdown interprets in a table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))
