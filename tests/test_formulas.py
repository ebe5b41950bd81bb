"""Formulas of the documentation are drawn, and unknown commands are errors."""

from xml.etree import ElementTree

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("ziamath")

from formulas import drawn


@pytest.mark.parametrize(
    "formula",
    [
        r"x^2",
        r"\Bigl\langle x, y \Bigr\rangle",
        r"\big\langle x \big\rangle",
        r"[a] &= b \\ [c] &= d",
        r"\frac{1}{\|v\|}",
    ],
)
@pytest.mark.parametrize("inline", [True, False])
def test_formulas_are_drawn_and_described(formula, inline):
    svg = ElementTree.fromstring(drawn(formula, inline))
    assert svg.attrib["aria-label"] == formula
    assert ("style" in svg.attrib) == inline
    assert svg.findall(".//{http://www.w3.org/2000/svg}path")


def test_lines_are_below_each_other():
    one, two = (ElementTree.fromstring(drawn(text, inline=False)) for text in ("a = b", r"a &= b \\ c &= d"))
    assert float(two.attrib["height"]) > 1.5 * float(one.attrib["height"])


def test_unknown_commands_are_errors():
    with pytest.raises(ValueError, match=r"cannot be drawn.*unknowncommand"):
        drawn(r"\unknowncommand x", inline=True)
