"""Draw formulas as SVG when the pages are built, so that browsers need no script or network for them."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator
from ziamath.tex import tex2mml

_SIZE = 17.0  # pixels; its small letters are as high as those of the text
ziamath.config.svg2 = False
ziamath.config.math.color = "currentColor"


def drawn(formula: str, inline: bool) -> str:
    """Return a formula, in LaTeX, as SVG."""
    source = formula = " ".join(formula.split())
    if r"\\" in formula and r"\begin" not in formula:
        # Without the braces, brackets at the start of a line are read as an optional argument.
        formula = r"\begin{split}{}" + formula.replace(r"\\ ", r"\\{} ") + r"\end{split}"
    # The converter does not know names of brackets after commands that enlarge them.
    formula = re.sub(r"(\\[bB]igg?[lr]?)\\langle", r"\1⟨", formula)
    formula = re.sub(r"(\\[bB]igg?[lr]?)\\rangle", r"\1⟩", formula)
    if unknown := re.findall(r"\\[a-zA-Z]+", tex2mml(formula)):
        raise ValueError(f"The formula {source} has commands that cannot be drawn: {unknown}")
    svg = ziamath.Latex(formula, size=_SIZE, inline=inline).svgxml()
    svg.set("role", "img")
    svg.set("aria-label", source)
    if inline:
        _, top, _, height = map(float, svg.attrib["viewBox"].split())
        svg.set("style", f"vertical-align: {-(top + height):.1f}px")
    return ElementTree.tostring(svg, encoding="unicode")


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(f'<span class="math">{drawn(node.astext(), inline=True)}</span>')
    raise nodes.SkipNode


def visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{drawn(node.astext(), inline=False)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("svg", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
