"""Sphinx directive ``package-map``: a diagram and tables of the packages and their imports."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from html import escape
from itertools import pairwise
from typing import Any

from docutils import nodes
from package_imports import ROOT, imports_of
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Graph = Mapping[str, set[str]]

_LAYER_HEIGHT = 84.0
_BOX_HEIGHT = 34.0
_GAP = 26.0
_MARGIN = 12.0
_LETTER = 8.4
_N_SWEEPS = 24


@dataclass
class Packages:
    """The packages, what each contains, and what each imports at module level and only inside functions."""

    contents: dict[str, str] = field(default_factory=dict)
    at_import: dict[str, set[str]] = field(default_factory=dict)
    in_functions: dict[str, set[str]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)  # modules that any package may import


def read_packages() -> Packages:
    found = Packages()
    for place in sorted(ROOT.iterdir()):
        path = place / "__init__.py" if place.is_dir() else place
        if path.suffix != ".py" or not path.is_file() or place.name in {"__init__.py", "__main__.py"}:
            continue
        contents = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        is_package = place.is_dir() or place.name in {"cli.py", "_environment.py"}
        (found.contents if is_package else found.shared)[place.stem] = contents
    for name in found.contents:
        place = ROOT / name
        imports = [
            one
            for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")])
            for one in imports_of(path)
            if one.top == "clipcal" and not one.for_types
        ]
        targets = {deferred: set[str]() for deferred in (False, True)}
        for one in imports:
            targets[one.deferred].add(one.target.split(".")[1])
        others = found.contents.keys() - {name}
        found.at_import[name] = targets[False] & others
        found.in_functions[name] = (targets[True] & others) - targets[False]
    return found


def layers_of(graph: Graph) -> list[list[str]]:
    """Return the nodes in layers, the lowest first; a node imports from lower layers only."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = max((height[target] + 1 for target in graph[name]), default=0)
    layers: list[list[str]] = [[] for _ in range(max(height.values(), default=-1) + 1)]
    for name in sorted(height):
        layers[height[name]].append(name)
    return layers


def reduced(graph: Graph) -> dict[str, set[str]]:
    """Remove redundant edges, such as A to C if A imports B and B imports C."""
    below: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        below[name] = set(graph[name]).union(*(below[target] for target in graph[name]))
    return {
        name: targets - {far for target in targets for far in below[target]}
        for name, targets in graph.items()
    }


def drawn(graph: Graph, dashed: Graph) -> str:
    """Draw a graph as SVG; edges that are also in `dashed` are dashed."""
    arrows = reduced(graph)
    layers, routes = _with_bends(graph, arrows)
    width = {name: len(name) * _LETTER + 24 if name in graph else 2.0 for layer in layers for name in layer}
    x = _columns(layers, routes, width)
    left = min(x[name] - width[name] / 2 for name in x) - _MARGIN
    right = max(x[name] + width[name] / 2 for name in x) + _MARGIN
    height = (len(layers) - 1) * _LAYER_HEIGHT + _BOX_HEIGHT + 2 * _MARGIN
    y = {
        name: height - _MARGIN - _BOX_HEIGHT / 2 - level * _LAYER_HEIGHT
        for level, layer in enumerate(layers)
        for name in layer
    }
    lines = [_curve(route, x, y, route[-1] in dashed[route[0]]) for route in routes]
    boxes = [
        f'<rect x="{x[name] - width[name] / 2:.1f}" y="{y[name] - _BOX_HEIGHT / 2:.1f}" rx="6" '
        f'width="{width[name]:.1f}" height="{_BOX_HEIGHT}"/>'
        for name in sorted(graph)
    ]
    names = [f'<text x="{x[name]:.1f}" y="{y[name] + 5:.1f}">{escape(name)}</text>' for name in sorted(graph)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:.1f} 0 {right - left:.1f} {height:.1f}" '
            f'role="img" style="max-width: {right - left:.0f}px; width: 100%">',
            "<title>Which package imports which</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" fill="currentColor"/></marker></defs>',
            '<g fill="none" stroke="currentColor" stroke-opacity="0.65" stroke-width="1.2">',
            *lines,
            '</g><g fill="none" stroke="currentColor">',
            *boxes,
            '</g><g fill="currentColor" font-family="monospace" font-size="14" text-anchor="middle">',
            *names,
            "</g></svg>",
        ]
    )


def _with_bends(graph: Graph, arrows: Graph) -> tuple[list[list[str]], list[list[str]]]:
    """Return the layers with a bend for each edge that crosses them, and the nodes and bends of each edge."""
    layers = layers_of(graph)
    level = {name: number for number, layer in enumerate(layers) for name in layer}
    routes = []
    for source in sorted(arrows):
        for target in sorted(arrows[source]):
            bends = {
                number: f"{source}>{target}@{number}" for number in range(level[target] + 1, level[source])
            }
            for number, bend in bends.items():
                layers[number].append(bend)
            routes.append([source, *(bends[number] for number in sorted(bends, reverse=True)), target])
    return layers, routes


def _columns(
    layers: list[list[str]], routes: list[list[str]], width: Mapping[str, float]
) -> dict[str, float]:
    """Compute horizontal positions: repeatedly move each node towards the mean of its neighbors."""
    joined: dict[str, list[str]] = {name: [] for layer in layers for name in layer}
    for route in routes:
        for upper, lower in pairwise(route):
            joined[upper].append(lower)
            joined[lower].append(upper)
    x = {name: 100.0 * place for layer in layers for place, name in enumerate(layer)}
    for _ in range(_N_SWEEPS):
        for layer in [*layers, *layers[::-1]]:
            wanted = {
                name: sum(x[other] for other in joined[name]) / len(joined[name]) if joined[name] else x[name]
                for name in layer
            }
            layer.sort(key=lambda name: wanted[name])
            edge = float("-inf")
            for name in layer:
                x[name] = max(wanted[name], edge + width[name] / 2)
                edge = x[name] + width[name] / 2 + _GAP
            shift = sum(wanted[name] - x[name] for name in layer) / len(layer)
            for name in layer:
                x[name] += shift
    return x


def _curve(route: list[str], x: Mapping[str, float], y: Mapping[str, float], dashed: bool) -> str:
    points = [(x[name], y[name]) for name in route]
    points[0] = (points[0][0], points[0][1] + _BOX_HEIGHT / 2)
    points[-1] = (points[-1][0], points[-1][1] - _BOX_HEIGHT / 2)
    path = f"M {points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (y1 - y0) / 2
        path += f" C {x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" marker-end="url(#tip)"{dashes}/>'


def listed(packages: Packages) -> str:
    """Return reStructuredText tables of the packages, highest layer first, and of the shared modules."""
    graph = whole(packages)
    lines = [".. list-table::", "   :header-rows: 1", "", "   * - Package", "     - Contents"]
    lines += ["     - Imports", "     - Imports inside functions"]
    for layer in reversed(layers_of(graph)):
        for name in layer:
            lines += [f"   * - ``{name}``", f"     - {packages.contents[name]}"]
            for targets in (packages.at_import[name], packages.in_functions[name]):
                lines.append("     - " + (", ".join(f"``{target}``" for target in sorted(targets)) or "—"))
    lines += ["", "Any package may import these modules:", "", ".. list-table::", ""]
    for name, contents in sorted(packages.shared.items()):
        lines += [f"   * - ``{name}.py``", f"     - {contents}"]
    return "\n".join(lines)


def whole(packages: Packages) -> dict[str, set[str]]:
    return {name: packages.at_import[name] | packages.in_functions[name] for name in packages.contents}


class PackageMap(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        for path in ROOT.rglob("*.py"):
            self.env.note_dependency(str(path))
        packages = read_packages()
        diagram = nodes.raw("", drawn(whole(packages), packages.in_functions), format="html")
        return [diagram, *self.parse_text_to_nodes(listed(packages))]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("package-map", PackageMap)
    return {"parallel_read_safe": True}
