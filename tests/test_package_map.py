"""The diagram and the tables of the packages match the imports."""

from xml.etree import ElementTree

import pytest

pytest.importorskip("sphinx")

import itertools

from package_map import drawn, layers_of, listed, read_packages, reduced, whole

DIAMOND = {"top": {"left", "right", "base"}, "left": {"base"}, "right": {"base"}, "base": set()}
SVG = "{http://www.w3.org/2000/svg}"


def test_layers_and_edges_of_a_small_graph():
    assert layers_of(DIAMOND) == [["base"], ["left", "right"], ["top"]]
    # The edge from top to base is redundant.
    assert reduced(DIAMOND) == {"top": {"left", "right"}, "left": {"base"}, "right": {"base"}, "base": set()}


def test_long_edges_bend_and_deferred_ones_are_dashed():
    graph = {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}
    assert layers_of(graph) == [["c", "d"], ["b"], ["a"]]
    diagram = ElementTree.fromstring(drawn(graph, {"a": {"d"}, "b": set()}))
    arrows = [path.attrib for path in diagram.iter(f"{SVG}path") if "marker-end" in path.attrib]
    assert len(arrows) == 3
    [dashed] = [arrow for arrow in arrows if "stroke-dasharray" in arrow]
    assert dashed["d"].count("C") == 2  # one bend, in the layer of b


def test_boxes_do_not_overlap_and_are_above_their_imports():
    packages = read_packages()
    graph = whole(packages)
    diagram = ElementTree.fromstring(drawn(graph, packages.in_functions))
    names = [text.text for text in diagram.iter(f"{SVG}text")]
    assert sorted(names) == sorted(graph)
    boxes = dict(zip(names, [rect.attrib for rect in diagram.iter(f"{SVG}rect")], strict=True))
    for name, targets in graph.items():
        assert all(float(boxes[name]["y"]) < float(boxes[target]["y"]) for target in targets)
    spans = sorted(
        (float(box["y"]), float(box["x"]), float(box["x"]) + float(box["width"])) for box in boxes.values()
    )
    for (y, _, end), (other_y, start, _) in itertools.pairwise(spans):
        assert y < other_y or end < start


def test_imports_at_module_level_and_in_functions_are_separate():
    packages = read_packages()
    assert "metrics" in packages.at_import["calibration"]
    assert "demo" in packages.in_functions["cli"] and not packages.at_import["cli"]
    assert "backbones" in packages.in_functions["images"]
    assert packages.contents.keys() >= {"text", "scenes"} and "exceptions" in packages.shared


def test_tables_list_all_packages_and_modules():
    packages = read_packages()
    table = listed(packages)
    for name, contents in {**packages.contents, **packages.shared}.items():
        assert name in table and contents.endswith(".") and contents in table
