"""Reading plans, and expanding them to cells."""

import textwrap
import tomllib
from pathlib import Path

import pytest

from clipcal.benchmark import Plan, expand, load_plan
from clipcal.benchmark._cells import where
from clipcal.datasets import list_benchmarks
from clipcal.exceptions import PlanError
from clipcal.methods import CoOp

PLAN = {"name": "trial", "backbone": "mini", "datasets": ["dtd", "eurosat"], "methods": ["zero-shot", "coop"]}


def plan(**changes):
    return Plan.from_dict({**PLAN, **changes})


def cells_of(plan):
    return [cell for fit in expand(plan) for cell in fit.cells]


def test_plan_is_read_from_toml(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        """
        name = "trial"
        datasets = ["dtd"]
        seeds = [1]
        methods = ["zero-shot", {name = "CoOp, long", method = "coop", max_epochs = 50, none = ["momentum"]}]
        regularizers = ["none", {name = "DOR", regularizer = "dor", regularizer__weight = 2.0}]
        [classifier]
        n_views = 10
        [[paper]]
        method = "CoOp"
        base = 82.69
        """
    )
    read = load_plan(path)
    assert [entry.name for entry in read.methods] == ["zero-shot", "CoOp, long"]
    assert read.methods[1].component == "coop"
    assert read.methods[1].params == {"max_epochs": 50, "momentum": None}
    assert read.regularizers[1].params == {"regularizer__weight": 2.0}
    assert read.classifier == {"n_views": 10} and read.paper == [{"method": "CoOp", "base": 82.69}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": ["coop"]}, "unknown key 'method'; did you mean 'methods'"),
        ({"protocols": ["base2new"]}, "'base2new' is unknown; choose among 'base-to-new'"),
        ({"protocols": "base-to-new"}, "must be a list"),
        ({"seeds": [1, 1]}, "has the entry 1 twice"),
        ({"seeds": [-1]}, "integer of at least 0, got -1"),
        ({"seeds": [True]}, "integer of at least 0, got True"),
        ({"n_shots": [0]}, "integer of at least 1, got 0"),
        ({"n_shots": 16}, "must be a list of integers, got 16"),
        ({"draw": "random"}, "'random' is unknown"),
        ({"methods": []}, "at least one entry"),
        ({"methods": ["coop", "coop"]}, "'coop' twice"),
        ({"methods": [{"name": "mine"}]}, "has no 'method'"),
        ({"methods": [{"method": CoOp()}]}, "needs a name"),
        ({"protocols": ["cross-dataset"]}, "'cross-dataset' needs targets"),
        ({"protocols": ["cross-dataset"], "targets": ["dtd"]}, "needs source"),
        ({"datasets": []}, "needs datasets"),
        ({"methods": "coop"}, "methods must be a list of names and tables, got 'coop'"),
        ({"methods": [{"method": "coop", "none": "momentum"}]}, "none must be a list of parameters"),
        ({"classifier": "fast"}, "classifier must be a table"),
        ({"templates": ["{}."]}, "templates must be a table"),
        ({"templates": {"dtdd": "{}."}}, "no data set 'dtdd'"),
        ({"exclude": {"method": "coop"}}, "exclude must be a list of tables"),
        ({"paper": ["CoOp"]}, "paper must be a list of tables"),
        ({"name": 5}, "name must be a string"),
        ({"root": 5}, "root must be the path of a folder"),
        ({"seeds": [2**32]}, "at most 4294967295"),
        ({"calibrators": [{"name": "uncalibrated", "calibrator": "none"}]}, "must have the name 'none'"),
        ({"regularizers": [{"name": "none", "regularizer": "dor"}]}, "must have the name 'none'"),
        ({"classifier": {"random_state": 0}}, r"\[classifier\] must not set 'random_state'; list seeds"),
        ({"classifier": {"backbone": "mini"}}, "must not set 'backbone'"),
        ({"classifier": {"regularizer": "dor"}}, "must not set 'regularizer'; list regularizers"),
        ({"methods": [{"method": "coop", "precision": "bf16"}]}, r"'precision'; set it in \[classifier\]"),
        ({"regularizers": [{"regularizer": "dor", "method": "coop"}]}, "must not set 'method'"),
    ],
)
def test_faults_of_plans_are_told(changes, message):
    with pytest.raises(PlanError, match=message):
        plan(**changes)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b'nam = "x"'])
def test_faults_of_files_name_the_file(tmp_path, content):
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.toml"):
        load_plan(path)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(tmp_path / "plan.toml")


def test_base_to_new_trains_on_base_classes_and_tests_on_both_halves():
    cells = [cell for cell in cells_of(plan(seeds=[1, 2])) if cell.method == "coop"]
    assert len(cells) == 2 * 2 * 2
    assert {(cell.dataset, cell.classes) for cell in cells} == {
        (name, half) for name in ("dtd", "eurosat") for half in ("base", "new")
    }
    fits = [fit for fit in expand(plan(seeds=[1, 2])) if fit.method.name == "coop"]
    assert [len(fit.cells) for fit in fits] == [2, 2, 2, 2]
    assert {fit.classes for fit in fits} == {"base"}


def test_zero_shot_without_calibrator_is_run_once():
    cells = [cell for cell in cells_of(plan(seeds=[1, 2, 3], n_shots=[4, 16])) if cell.method == "zero-shot"]
    assert len(cells) == 4 and {(cell.n_shots, cell.seed) for cell in cells} == {(0, 0)}
    calibrated = plan(seeds=[1, 2, 3], calibrators=["temperature"])
    assert {cell.seed for cell in cells_of(calibrated) if cell.method == "zero-shot"} == {1, 2, 3}


def test_transfer_protocols_share_one_fit():
    transfer = plan(
        protocols=["cross-dataset", "domain-generalization"],
        source="imagenet",
        targets=["dtd", "eurosat"],
        shifts=["imagenetv2"],
        methods=["coop"],
        seeds=[1],
    )
    (fit,) = expand(transfer)
    assert (fit.train_dataset, fit.classes) == ("imagenet", "all")
    assert [(cell.protocol, cell.dataset) for cell in fit.cells] == [
        ("cross-dataset", "imagenet"),
        ("cross-dataset", "dtd"),
        ("cross-dataset", "eurosat"),
        ("domain-generalization", "imagenet"),
        ("domain-generalization", "imagenetv2"),
    ]


def test_combinations_without_a_meaning_are_left_out():
    grid = plan(
        methods=["zero-shot", "coop", "tip-adapter"],
        regularizers=["none", "dor"],
        calibrators=["none", "temperature", "vector", "dac", "sals"],
        seeds=[1],
    )
    cells = cells_of(grid)
    assert {cell.method for cell in cells if cell.regularizer == "dor"} == {"coop"}
    assert {cell.classes for cell in cells if cell.calibrator == "vector"} == {"base"}
    assert "zero-shot" not in {cell.method for cell in cells if cell.calibrator in ("dac", "sals")}
    assert {cell.classes for cell in cells if cell.calibrator == "temperature"} == {"base", "new"}


def test_excluded_cells_are_left_out():
    cells = cells_of(plan(exclude=[{"method": "coop", "dataset": ["dtd"]}]))
    assert {cell.dataset for cell in cells if cell.method == "coop"} == {"eurosat"}
    assert {cell.dataset for cell in cells if cell.method == "zero-shot"} == {"dtd", "eurosat"}
    with pytest.raises(PlanError, match="no field 'data'"):
        expand(plan(exclude=[{"data": "dtd"}]))
    with pytest.raises(PlanError, match=r"'datset-typo'.* matches no cell"):
        expand(plan(exclude=[{"method": "coop"}, {"dataset": "datset-typo"}]))
    with pytest.raises(PlanError, match="no cells"):
        expand(plan(exclude=[{"protocol": "base-to-new"}]))


def test_models_whose_names_are_alike_are_trained_apart():
    methods = ["coop", {"name": "coop + dor", "method": "coop", "max_epochs": 5}]
    fits = expand(plan(methods=methods, regularizers=["none", "dor"], seeds=[1], datasets=["dtd"]))
    assert [{(cell.method, cell.regularizer) for cell in fit.cells} for fit in fits] == [
        {("coop", "none")},
        {("coop", "dor")},
        {("coop + dor", "none")},
        {("coop + dor", "dor")},
    ]
    for fit in fits:
        assert {(fit.method.name, fit.regularizer.name)} == {(c.method, c.regularizer) for c in fit.cells}


def test_regularizer_of_a_method_is_not_dropped():
    own = {"name": "anchored", "method": "coop", "regularizer": "kg"}
    assert plan(methods=[own]).methods[0].params == {"regularizer": "kg"}
    with pytest.raises(PlanError, match="'anchored' has a regularizer of its own"):
        plan(methods=[own], regularizers=["none", "dor"])


def test_where_keeps_cells_that_meet_all_conditions():
    fits = where(expand(plan(seeds=[1, 2])), {"seed": ["2"], "classes": ["new"]})
    assert {(cell.seed, cell.classes) for fit in fits for cell in fit.cells} == {(2, "new")}
    with pytest.raises(PlanError, match="no field 'halves'"):
        where(expand(plan()), {"halves": ["new"]})
    named = plan(methods=["coop", {"name": "CoOp, fast", "method": "coop"}])
    for values, kept in ((["CoOp, fast"], {"CoOp, fast"}), (["CoOp, fast", "coop"], {"CoOp, fast", "coop"})):
        assert {fit.method.name for fit in where(expand(named), {"method": values})} == kept
    both = where(expand(plan()), {"dataset": ["dtd,eurosat"]})
    assert {cell.dataset for fit in both for cell in fit.cells} == {"dtd", "eurosat"}
    with pytest.raises(PlanError, match="No cell has dataset=imagenet"):
        where(expand(plan()), {"dataset": ["imagenet"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["coopp"]}, "method 'coopp' is unknown; choose among 'zero-shot', 'coop'"),
        ({"calibrators": ["platt"]}, "calibrator 'platt' is unknown"),
        ({"methods": [{"name": "mine", "method": CoOp}]}, "a name or an instance, got <class"),
        ({"methods": [{"name": "mine", "method": 5}]}, "a name or an instance, got 5"),
        (
            {"methods": [{"name": "mine", "method": "coop", "recipe": "orig"}]},
            "'mine'.* recipe 'orig' is unknown",
        ),
        ({"methods": [{"name": "mine", "method": "coop", "max_epochs": "five"}]}, "'mine'.*'max_epochs'"),
        ({"methods": [{"name": "mine", "method": "coop", "method__n_context": 0}]}, "'mine'.*'n_context'"),
        (
            {"regularizers": [{"name": "far", "regularizer": "dor", "regularizer__pool": "fur"}]},
            "far.*'pool'",
        ),
        ({"calibrators": [{"name": "bins", "calibrator": "histogram", "n_bins": 0}]}, "'bins'.*'n_bins'"),
    ],
)
def test_unknown_components_are_told(changes, message):
    with pytest.raises(PlanError, match=message):
        expand(plan(**changes))


PLANS = sorted((Path(__file__).parents[2] / "benchmarks" / "plans").glob("*.toml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_of_the_repository_are_valid(path):
    read = load_plan(path)
    cells = [cell for fit in expand(read) for cell in fit.cells]
    assert {name for cell in cells for name in (cell.dataset, cell.train_dataset)} <= set(list_benchmarks())
    methods = {entry.name for entry in read.methods}
    for figure in read.paper:
        assert figure["method"] in methods and figure["source"]


def test_plan_of_the_documentation_is_valid():
    page = (Path(__file__).parents[2] / "docs" / "guide" / "benchmark.rst").read_text(encoding="utf-8")
    block = page.split(".. code-block:: toml\n")[1].split("\n\n.. ")[0].split("\n\nAn entry")[0]
    read = Plan.from_dict(tomllib.loads(textwrap.dedent(block)))
    assert [entry.name for entry in read.methods] == ["zero-shot", "CoOp", "CoOp, 8 vectors"]
    assert len([cell for fit in expand(read) for cell in fit.cells]) == 3 * 2 * (1 + 3 + 2 * 2 * 2 * 3)
