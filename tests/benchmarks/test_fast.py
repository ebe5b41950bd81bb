"""The scripts that compare the fast recipe with the published ones."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "methods"
PAGE = ROOT / "docs" / "results" / "recipes.rst"
# Source distributions have no benchmarks.
pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="there are no benchmarks here")


@pytest.fixture
def fast(scripts):
    return scripts("fast")


def record(fast, recipe, seed, value, *, method="coop", shots=16):
    numbers = dict.fromkeys(fast.QUANTITIES, value)
    of_run = {"run": ["colors", "street", shots, seed], "method": method, "term": "none", "recipe": recipe}
    return {**of_run, **numbers, "epochs": 3, "steps": 3, "search_steps": 4}


class TestDifferences:
    def test_are_paired(self, fast):
        records = [
            record(fast, "published", 0, 0.5),
            record(fast, "published", 1, 0.7),
            record(fast, "fast", 1, 0.6),
            record(fast, "fast", 0, 0.6),
            # Without a partner.
            record(fast, "fast", 2, 0.9),
        ]
        (row,) = fast.compare(records)
        assert (row["kind"], row["method"], row["runs"]) == ("16 images", "coop", 2)
        # The differences are 0.1 and -0.1; the quantile of t with one degree of freedom is 12.706.
        assert row["base ece"] == [0.0, pytest.approx(12.7062 * np.sqrt(0.02 / 2), abs=1e-4)]

    def test_pooled_over_methods_within_a_run(self, fast):
        records = [
            record(fast, recipe, seed, value, method=method)
            for method, seed, published, other in [
                ("coop", 0, 0.5, 0.6),
                ("tcp", 0, 0.5, 0.8),
                ("coop", 1, 0.5, 0.7),
                ("tcp", 1, 0.5, 0.7),
            ]
            for recipe, value in (("published", published), ("fast", other))
        ]
        (row,) = fast.pooled(records)
        assert (row["runs"], row["new accuracy"]) == (2, [0.2, 0.0])

    def test_kinds_of_tasks_are_separate(self, fast):
        records = [
            record(fast, recipe, 0, 0.5, shots=shots) for recipe in ("published", "fast") for shots in (4, 16)
        ]
        records.append({**record(fast, "fast", 0, 0.5), "run": [fast.MANY, "studio", 16, 0]})
        assert [row["kind"] for row in fast.compare(records)] == ["4 images", "16 images"]
        assert {row["kind"] for row in fast.summarize(records)} == {"4 images", "16 images", fast.MANY}

    def test_worse_only_if_the_interval_says_so(self, scripts):
        marked = scripts("fast_tables").marked
        assert marked("base accuracy", -0.02, 0.01).endswith("worse")
        assert marked("base ece", 0.02, 0.01).endswith("worse")
        for name, mean, half in [
            ("base accuracy", 0.02, 0.01),
            ("base ece", -0.02, 0.01),
            ("new log_loss", 0.02, 0.03),
            ("new log_loss", 0.02, None),
        ]:
            assert "worse" not in marked(name, mean, half)


def test_many_colors(scripts):
    colors = scripts("many_colors")
    names = colors.class_names()
    assert len(names) == len(set(names)) == 200
    train = colors.embedded_colors("train", 1, 0)
    assert sorted(train.y) == sorted(names)
    assert np.abs(train.X - colors.embedded_colors("test", 1, 0).X).max() > 0.01
    np.testing.assert_array_equal(train.X, colors.embedded_colors("train", 1, 0).X)


def test_time_of_a_published_fit(scripts):
    # The first epoch takes a second more than each of the others, which take half a second.
    assert scripts("fast_times").seconds_of(200, one=1.5, several=3.5, n_more=4) == 1.5 + 199 * 0.5


@pytest.mark.slow
def test_short_times(scripts, tmp_path, capsys, monkeypatch):
    arguments = ["fast_times.py", "--kinds", "4 images", "--methods", "clip-adapter"]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(tmp_path / "times.json")])
    script = scripts("fast_times")
    script.main()
    rows = json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))["table"]
    assert [row["term"] for row in rows] == ["none", "dor-visual"]
    for row in rows:
        assert row["published"] > 0 < row["fast"]
        assert row["times_faster"] == pytest.approx(row["published"] / row["fast"], rel=0.2)
    assert script.cell_of(rows[0]) in capsys.readouterr().out


@pytest.mark.slow
def test_short_run(fast, tmp_path, capsys, monkeypatch):
    arguments = ["fast.py", "--quick", "--cells", str(tmp_path), "--out", str(tmp_path / "fast.json")]
    monkeypatch.setattr("sys.argv", arguments)
    fast.main()
    results = json.loads((tmp_path / "fast.json").read_text(encoding="utf-8"))
    rows = {(row["method"], row["term"], row["recipe"]): row for row in results["table"]}
    assert set(rows) == {
        (method, term, recipe)
        for method in ("coop", fast.RANDOM_COOP)
        for term in ("none", "dor")
        for recipe in ("published", "fast")
    }
    assert rows["coop", "none", "published"]["epochs"] == 1
    assert rows["coop", "none", "fast"]["search_steps"] >= 4 * 6
    printed = capsys.readouterr().out
    assert "fast differences 4 images" in printed
    # Finished fits are read from the folder.
    monkeypatch.setattr(fast, "fit", lambda *args: pytest.fail("a finished fit was repeated"))
    fast.main()
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_short_choice(scripts, tmp_path, capsys, monkeypatch):
    arguments = ["fast_choice.py", "--quick", "--methods", "coop", "--out", str(tmp_path / "choice.json")]
    monkeypatch.setattr("sys.argv", arguments)
    scripts("fast_choice").main()
    results = json.loads((tmp_path / "choice.json").read_text(encoding="utf-8"))
    settings = {row["setting"] for row in results["table"]}
    assert settings >= {"adam, 0.03, all images", "published"}
    # The title, an empty line, the header and three rules.
    assert len(capsys.readouterr().out.splitlines()) == len(settings) + 6


@pytest.mark.parametrize("name", ["fast", "fast_choice", "fast_times"])
def test_page_has_the_tables_of_the_results(scripts, name):
    script = scripts(name)
    results = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    if name == "fast":
        tables = script.tables(results)
    else:
        title = {"fast_choice": "choice", "fast_times": "fast times"}[name]
        tables = {title: script.table_of(results["table"])}
    page = PAGE.read_text(encoding="utf-8")
    for title, table in tables.items():
        assert f".. table: {title}\n\n{table}\n" in page, f"run {name}.py --page {PAGE.name}"


def test_choice_and_comparison_share_no_classes(scripts):
    from clipcal.datasets import TASKS

    of_choice = {name for task, _ in scripts("fast_choice").TASKS for name in TASKS[task]}
    of_comparison = {name for task, _ in scripts("fast").TASKS for name in TASKS[task]}
    assert not of_choice & of_comparison
    assert not of_choice & set(scripts("many_colors").class_names())
