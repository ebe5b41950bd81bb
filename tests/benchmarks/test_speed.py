"""The scripts that time whole fits: computed quantities, the plain loop, and short runs."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from clipcal import CoOp, PromptTunedCLIPClassifier
from clipcal.backbones import open_backbone

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "speed"
# Source distributions have no benchmarks.
pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="there are no benchmarks here")


@pytest.fixture(scope="module")
def many_classes(speed_scripts):
    return speed_scripts("many_classes")


@pytest.fixture(scope="module")
def whole_fit(speed_scripts):
    return speed_scripts("whole_fit")


def write_to(monkeypatch, module, folder):
    monkeypatch.setattr(module, "report", partial(module.report, results=folder))


def test_step_of_maple_equals_the_published_computation(speed_scripts, monkeypatch):
    maple = speed_scripts("maple")
    monkeypatch.setattr(maple, "random_clip", lambda: open_backbone("mini", device="cpu"))
    rows = {row["what"]: row for row in maple.times(n_classes=5, n_rounds=1)}
    assert rows["ours"]["gradient off by"] < 1e-4
    assert rows["checkpointing"]["gradient off by"] < 1e-4
    assert all(row["seconds"] > 0 for row in rows.values())


class TestManyClasses:
    def test_search_by_hand(self, many_classes):
        fast = {"before training": 13.0, "search epochs": 6}
        many_classes.add_search({"before training": 1.0}, fast)
        assert (fast["search"], fast["seconds a search epoch"]) == (12.0, 2.0)

    def test_computed_by_hand(self, many_classes):
        fits = [
            {"seconds": 40.0, "seconds a step": 4.0},
            {"outliers": 0, "seconds a search epoch": 3.0},
            {"seconds": 90.0, "seconds a step": 9.0},
            {"outliers": 500, "seconds a search epoch": 6.0},
        ]
        times = {
            "plain step, 100 classes": 10.0,
            "image tower": 2.0,
            "our step": 4.0,
            "our step, with DOR": 8.0,
        }
        rows = many_classes.computed(fits, times, 1000, 100)
        found = {(row["what"].removeprefix("computed: "), row.get("outliers")): row for row in rows}
        # 1,000 classes with 16 images are 500 batches of 32.
        assert found["images encoded once", None]["seconds"] == 500 * 2.0
        fast = "fast, 15 epochs searched, 10 chosen"
        assert found[fast, 0]["seconds"] == 40.0 + 15 * 3.0
        assert found[fast, 500]["seconds"] == 90.0 + 15 * 6.0
        # In the step of 100 classes, the text side takes 8 seconds; it has 10 and 15 times as many prompts.
        plain = {n: found["published recipe, plain loop", n] for n in (0, 500)}
        assert [plain[n]["seconds a step"] for n in (0, 500)] == [82.0, 122.0]
        assert [plain[n]["steps"] for n in (0, 500)] == [25_000, 25_000]
        assert plain[0]["seconds"] == 25_000 * 82.0
        assert found["published recipe, ours", 500]["seconds"] == 25_000 * 8.0

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")
    def test_short_run(self, many_classes, tiny_backbone, run_script, tmp_path, monkeypatch):
        write_to(monkeypatch, many_classes, tmp_path)
        for name in ("many_classes", "scale"):
            monkeypatch.setattr(f"{name}.random_clip", lambda: tiny_backbone)
        # A new process would have the large model.
        monkeypatch.setattr(
            many_classes,
            "in_a_process",
            lambda _, recipe, dor, *n: many_classes.measure(recipe, dor == "dor", 8),
        )
        run_script(many_classes, "--classes", 8, "--plain", 4, "--rounds", 1)
        rows = json.loads((tmp_path / "many_classes.json").read_text(encoding="utf-8"))["records"]
        fits = rows[:4]
        assert [(row["what"], row["outliers"]) for row in fits] == [
            ("fast, max_epochs=10", 0),
            ("fast", 0),
            ("fast, max_epochs=10", 8),
            ("fast", 8),
        ]
        for fixed, fast in (fits[:2], fits[2:]):
            assert (fixed["steps"], fixed["search epochs"]) == (10, 0)
            # The search ends five epochs after the last improvement.
            assert fast["search epochs"] == min(fast["steps"] + 5, 100)
            for row in (fixed, fast):
                training = (row["seconds a step"] or 0) * row["steps"]
                assert 0 < row["before training"] + training < row["seconds"]
                # Relative to the start of the fit, during which other memory may be freed.
            assert row["peak GiB"] > -0.01
        assert rows[4]["what"] == "plain step, 4 classes"
        assert len([row for row in rows if row["what"].startswith("computed")]) == 7


class TestTrace:
    def test_clock_is_stopped_during_evaluations(self, whole_fit, monkeypatch):
        now = 0.0
        monkeypatch.setattr(whole_fit.time, "perf_counter", lambda: now)
        trace = whole_fit.Trace(float, 3.0, 7, start=0.0)
        # Two seconds of work, then 100 seconds of evaluation; one second of work, then 50 of evaluation.
        for work, evaluation, value in ((2.0, 100.0, 3.0), (1.0, 50.0, 2.5)):
            now += work
            trace.stop()
            now += evaluation
            trace.resume(value)
        assert trace.points == [(0, 2.0, 3.0), (7, 3.0, 2.5)]
        assert now - trace.start == 3.0

    def test_as_a_callback_of_fit(self, whole_fit, problem):
        clf = PromptTunedCLIPClassifier(problem.backbone, max_epochs=2, random_state=0)
        trace, seconds = whole_fit.train_ours(problem, clf, first=9.0)
        assert [point.steps for point in trace.points] == [0, 1, 2]
        assert trace.points[0].cross_entropy == 9.0
        expected = -np.log(clf.predict_proba(problem.images)[np.arange(32), problem.targets]).mean()
        assert trace.points[-1].cross_entropy == pytest.approx(expected, abs=1e-5)
        times = [point.seconds for point in trace.points]
        assert times == sorted(times) and times[-1] < seconds


def test_first_reached_by_hand(whole_fit):
    points = [whole_fit.Point(*values) for values in ((0, 0.1, 2.0), (7, 0.2, 1.5), (14, 0.3, 1.2))]
    assert whole_fit.first_reached(points, 2.0).steps == 0
    assert whole_fit.first_reached(points, 1.6).steps == 7
    assert whole_fit.first_reached(points, 1.4).seconds == 0.3
    assert whole_fit.first_reached(points, 1.1) is None


def test_medians_are_of_one_context_and_of_rows_that_all_seeds_have(whole_fit):
    def row(context, seed, steps):
        return {"context": context, "seed": seed, "what": "plain", "steps": steps, "seconds": 1.0}

    rows = [row("a", seed, steps) for seed, steps in enumerate((70, 700, 77))]
    rows += [row("b", 0, 7), row("b", 1, None)]
    found = {row["context"]: row for row in whole_fit.summarize(rows)}
    assert found["a"]["steps"] == 77
    assert "steps" not in found["b"]
    assert found["b"]["seconds"] == 1.0


def test_times_for_vit_by_hand(whole_fit):
    steps = {"plain": 6.0, "image tower": 4.0, "ours": 0.5}
    steps = [{"what": name, "classes": 50, "seconds a step": value} for name, value in steps.items()]
    medians = [
        {"context": "a", "what": "fast", "steps": 10, "search epochs": 15},
        {"context": "a", "what": "plain", "steps": 100},
        {"context": "a", "what": "ours"},
        {"context": "a", "what": "ours, whole recipe", "steps": 1400},
    ]
    rows = {row["what"]: row for row in whole_fit.for_vit(medians, steps)}
    # 800 images are 25 batches; the search of 15 epochs on four splits counts as 60 steps.
    assert rows["fast"]["seconds"] == 25 * 4.0 + 70 * 0.5
    assert rows["fast, embeddings given"]["seconds"] == 35.0
    assert rows["plain"]["seconds"] == 600.0
    assert rows["plain"]["times fast"] == pytest.approx(600 / 135)
    assert rows["ours, whole recipe, embeddings given"]["times fast"] == pytest.approx(700 / 35)
    assert "ours" not in rows


@pytest.fixture(scope="module")
def problem(whole_fit):
    """Return a problem with a single batch, so that the order of samples has no effect."""
    images, y = whole_fit.base_images(0)
    kept = np.concatenate([np.flatnonzero(y == name)[:4] for name in np.unique(y)[:8]])
    return whole_fit.make_problem(images[kept], y[kept])


@pytest.mark.parametrize("context", ["16 random vectors", "a photo of a"])
def test_plain_loop_equals_fit(whole_fit, problem, context):
    n_epochs = 4
    method = CoOp(context_init=whole_fit.CONTEXTS[context])
    clf = PromptTunedCLIPClassifier(
        problem.backbone, method=method, recipe="original", max_epochs=n_epochs, random_state=0
    )
    start = clf.set_params(max_epochs=0).fit(problem.images, problem.y).learned_["context"]
    with threadpool_limits(1):
        plain = whole_fit.train_plain(problem, start, 1, n_epochs, first=9.0, target=0.0)
        ours, _ = whole_fit.train_ours(problem, clf.set_params(max_epochs=n_epochs), first=9.0)
    losses = [[point.cross_entropy for point in trace.points] for trace in (plain, ours)]
    assert len(losses[0]) == n_epochs + 1
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    # The steps after the first epoch change the loss by much more than the tolerance.
    assert abs(losses[0][-1] - losses[0][1]) > 2e-4


def test_whole_fit_short_run(whole_fit, run_script, tmp_path, monkeypatch):
    write_to(monkeypatch, whole_fit, tmp_path)
    monkeypatch.setattr(whole_fit, "RESULTS", tmp_path)
    steps = [
        {"what": what, "classes": 50, "seconds a step": 1.0} for what in ("plain", "image tower", "ours")
    ]
    (tmp_path / "fit.json").write_text(json.dumps({"records": steps}), encoding="utf-8")
    run_script(whole_fit, "--seeds", 1, "--epochs", 2)
    rows = json.loads((tmp_path / "whole_fit.json").read_text(encoding="utf-8"))["records"]
    for context in whole_fit.CONTEXTS:
        of_seed = {row["what"]: row for row in rows if (row["context"], row["seed"]) == (context, 0)}
        assert set(of_seed) == {"fast", "plain", "ours", "plain, whole recipe", "ours, whole recipe"}
        assert of_seed["fast"]["times fast"] == 1.0
        target = of_seed["fast"]["cross_entropy"]
        for what in ("plain", "ours"):
            if of_seed[what]["cross_entropy"] is not None:
                assert of_seed[what]["cross_entropy"] <= target + 1e-4
        # 15 classes with 16 images are 7 batches, and one incomplete batch.
        assert of_seed["ours, whole recipe"]["steps"] == of_seed["plain, whole recipe"]["steps"] == 14
