"""The script that measures outlier regularization: computed quantities, claims, tables, and a short run."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, softmax
from scipy.stats import norm

from clipcal import ZeroShotCLIPClassifier
from clipcal.backbones import open_backbone
from clipcal.demo import COOP, COOP_DOR, N_TEST, ZERO_SHOT, Cell, class_halves, embedded_subset, run_cell

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "methods"
RESULTS = SCRIPTS / "results" / "ablations.json"
PAGE = ROOT / "docs" / "results" / "outliers.rst"
# Source distributions have no benchmarks.
pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="there are no benchmarks here")

HALVES = ("base", "new")
MEASURES = ("accuracy", "confidence", "ece", "log_loss", "divergence", "spread")


class TestSpread:
    def test_spread_by_hand(self, scripts):
        # Standard deviations with n - 1: the root of 2, and 0.
        assert scripts("spread").logit_spread(np.array([[1.0, 3.0], [5.0, 5.0]])) == pytest.approx(0.5**0.5)

    def test_stretched_by_hand(self, scripts):
        stretched = scripts("spread").stretched
        np.testing.assert_allclose(stretched(np.eye(2), 1.0), np.eye(2))
        np.testing.assert_allclose(stretched(np.eye(2), 0.0), np.full((2, 2), 0.5**0.5))
        # The mean is (0.5, 0.5), so the first row becomes (2, -1) before normalization.
        np.testing.assert_allclose(stretched(np.eye(2), 3.0), np.array([[2, -1], [-1, 2]]) / 5**0.5)

    @pytest.mark.parametrize("spread", [0.5, 2.0])
    def test_confidence_of_two_normal_logits(self, scripts, spread):
        # The difference of two logits is normal, and its logistic function is the probability of the first.
        deviation = spread * 2**0.5
        exact, _ = quad(lambda x: 2 * expit(x) * norm.pdf(x, scale=deviation), 0, 12 * deviation)
        mean, error = scripts("spread").expected_confidence(spread, 2)
        assert abs(mean - exact) < 4 * error < 0.01

    def test_confidence_increases_with_the_spread(self, scripts):
        expected = scripts("spread").expected_confidence
        means = [expected(spread, 15)[0] for spread in (0.0, 0.1, 1.0, 4.0, 400.0)]
        assert means[0] == pytest.approx(1 / 15)
        assert np.all(np.diff(means) > 0)
        assert means[-1] == pytest.approx(1, abs=0.01)

    def test_correlations_are_within_runs(self, scripts):
        # Three variants in two runs; the second run has the opposite order.
        x = [np.array([1.0, 9.0]), np.array([2.0, 8.0]), np.array([5.0, 7.0])]
        y = [np.array([0.1, 0.1]), np.array([0.2, 0.2]), np.array([0.9, 0.9])]
        assert scripts("spread").rank_correlations(x, y) == pytest.approx([1.0, -1.0])


def test_bands_ignore_differences_between_runs(scripts):
    # Two curves with one point each, in two runs, whose means are 0.2 and 0.6; the mean of all is 0.4.
    found = scripts("ablation_figures").centered([[[0.1, 0.5]], [[0.3, 0.7]]])
    np.testing.assert_allclose(found, [[[0.3, 0.3]], [[0.5, 0.5]]])


class TestPlan:
    def test_names_are_distinct(self, scripts):
        variants = scripts("ablation_plan").Plan().variants()
        assert len({variant.name for variant in variants}) == len(variants)
        # The longest training is stopped, and gives two rows.
        assert "coop epochs=200 stopped" in {variant.name for variant in variants}
        assert "coop epochs=200" not in {variant.name for variant in variants}

    def test_names_say_what_differs(self, scripts):
        plan = scripts("ablation_plan")
        variant = plan.Variant(plan.COOP, 50, plan.DOR)
        assert variant.name == "coop + DOR epochs=50"
        other = replace(variant, weight=0.5, pool="far", n_outliers=4, resample=False)
        assert other.name == "coop + DOR epochs=50 weight=0.5 pool=far outliers=4 fixed"
        assert plan.Variant(plan.ZERO_SHOT, factor=2.0).name == "zero-shot factor=2"

    def test_no_weight_is_no_term(self, scripts):
        plan = scripts("ablation_plan")
        assert plan.Plan().weighted(plan.COOP, plan.DOR, 0.0) == plan.Variant(plan.COOP, 50)
        # KgCoOp without its term starts from words, unlike the other variants.
        assert (
            plan.Plan().weighted(plan.KGCOOP, plan.ANCHOR, 0.0).name == "kgcoop + anchor epochs=50 weight=0"
        )

    @pytest.mark.parametrize(
        ("term", "n_outliers", "expected"),
        [("", None, 50 * 7 * 15), (" + DOR", None, 50 * 7 * 30), (" + DOR", 4, 50 * 7 * 19)],
    )
    def test_prompts_by_hand(self, scripts, term, n_outliers, expected):
        # 16 images of 15 classes are seven batches of 32, and the rest is dropped.
        variant = scripts("ablation_plan").Variant("coop", 50, term, n_outliers=n_outliers)
        assert scripts("ablations").n_prompts(variant, 240, 15) == expected


@pytest.fixture
def make_results(scripts):
    """Return a function that makes results of two runs, in which named variants differ from the others."""

    def make(changes):
        plan = scripts("ablations").QUICK
        quantities = [f"{half} {name}" for half in HALVES for name in MEASURES]
        quantities += ["validation log_loss", "prompts", "seconds", "epochs"]
        names = [variant.name for variant in plan.variants()]
        names.append(replace(plan.stopped, stopped=False).name)
        assert {name for name, _ in changes} <= set(names)
        assert {quantity for _, quantity in changes} <= set(quantities)
        runs = [
            [name, "colors", "street", seed]
            + [changes.get((name, quantity), (0.5, 0.5))[seed] for quantity in quantities]
            for seed in range(2)
            for name in names
        ]
        pools = {"colors street": {"near": ["a", "b"], "far": ["c"]}}
        found = {"setup": {"n_classes": 15}, "plan": asdict(plan), "pools": pools}
        return json.loads(json.dumps({**found, "quantities": quantities, "runs": runs}))

    return make


class TestClaims:
    def check(self, scripts, results):
        measured = scripts("ablation_plan").Measured(results)
        return {row["claim"]: row for row in scripts("ablation_claims").check(measured)}

    def test_early_stopping_by_hand(self, scripts, make_results):
        # The validation images choose two epochs in the first run, and one in the second.
        results = make_results(
            {
                ("coop epochs=1", "validation log_loss"): (0.9, 0.3),
                ("coop epochs=1", "new ece"): (0.7, 0.31),
                ("coop epochs=2", "new ece"): (0.3, 0.7),
                ("coop epochs=2 stopped", "base accuracy"): (0.9, 0.9),
                ("coop + DOR epochs=2", "new ece"): (0.1, 0.1),
            }
        )
        found = self.check(scripts, results)
        row = found["new ECE: DOR after 2 epochs is below CoOp with the length chosen"]
        assert row["verdict"] == "holds"
        assert row["margin"][0] == pytest.approx((0.2 + 0.21) / 2)
        # The quantile of t with one degree of freedom is 12.706.
        assert row["margin"][1] == pytest.approx(12.7062 * 0.005)
        assert (row["agreeing"], row["runs"]) == (2, 2)
        row = found["base accuracy: DOR after 2 epochs is above CoOp at its best epoch of 2"]
        assert (row["verdict"], row["agreeing"]) == ("fails", 0)
        assert row["margin"] == pytest.approx((-0.4, 0.0))
        # In the mean over runs, both lengths have an ECE of about 0.5; that of two epochs is lower.
        row = found["new ECE: DOR after 2 epochs is below CoOp after 2, its best"]
        assert row["margin"][0] == pytest.approx(0.4)

    def test_pools_by_hand(self, scripts, make_results):
        results = make_results(
            {
                ("coop + DOR epochs=1", "new ece"): (0.2, 0.2),
                ("coop + DOR epochs=1 pool=far", "new ece"): (0.25, 0.25),
                ("coop + DOR epochs=1 pool=random", "new ece"): (0.1, 0.3),
                ("coop + DOR epochs=1 pool=new classes", "new ece"): (0.21, 0.21),
                ("coop + DOR epochs=1 outliers=4", "new log_loss"): (0.7, 0.7),
                ("coop + DOR epochs=1 fixed", "new log_loss"): (0.4, 0.4),
            }
        )
        found = self.check(scripts, results)
        verdicts = {claim: (row["verdict"], row["margin"][0]) for claim, row in found.items()}
        for claim, verdict, margin in [
            ("near nouns give a lower new ECE than far ones", "holds", 0.05),
            ("near nouns give a lower new ECE than random ones", "open", 0.0),
            ("the new classes as outliers give a lower new ECE than near nouns", "fails", -0.01),
            ("20 outliers give a lower new log loss than 4", "holds", 0.2),
            ("drawing anew gives a lower new log loss than fixed outliers", "fails", -0.1),
        ]:
            assert verdicts[claim] == (verdict, pytest.approx(margin)), claim

    def test_weights_by_hand(self, scripts, make_results):
        results = make_results(
            {
                ("coop + DOR epochs=1", "base accuracy"): (0.495, 0.495),
                ("kgcoop + anchor epochs=1", "base accuracy"): (0.45, 0.45),
                ("kgcoop + anchor epochs=1", "base ece"): (0.6, 0.6),
            }
        )
        found = self.check(scripts, results)
        between = "between weights 2 and 8"
        for claim, verdict, margin in [
            (f"DOR: base accuracy falls by less than 0.01 {between}", "holds", 0.005),
            (f"KgCoOp: base accuracy falls by less than 0.01 {between}", "fails", -0.04),
            (f"KgCoOp: base ECE rises by less than 0.01 {between}", "fails", -0.09),
            (f"base accuracy falls more under KgCoOp than under DOR {between}", "holds", 0.045),
            (f"base ECE rises more under KgCoOp than under DOR {between}", "holds", 0.1),
            (f"base ECE rises more under CoOp + anchor than under DOR {between}", "open", 0.0),
        ]:
            assert (found[claim]["verdict"], found[claim]["margin"][0]) == (verdict, pytest.approx(margin))

    def test_divergence_by_hand(self, scripts, make_results):
        results = make_results(
            {
                ("coop epochs=2", "new divergence"): (0.8, 0.8),
                ("coop + DOR epochs=2", "new divergence"): (0.6, 0.6),
                ("coop epochs=2", "new confidence"): (0.9, 0.9),
                ("coop + DOR epochs=2", "new confidence"): (0.7, 0.7),
            }
        )
        found = self.check(scripts, results)
        assert found["CoOp enlarges the new divergence (2 epochs)"]["margin"][0] == pytest.approx(0.3)
        assert found["DOR reduces the new divergence of CoOp (2 epochs)"]["margin"][0] == pytest.approx(0.2)
        row = found["new divergence and new confidence are positively rank-correlated"]
        assert row["margin"] == pytest.approx((1.0, 0.0))


def test_tables_show_means_and_paired_differences(scripts, make_results):
    results = make_results(
        {
            ("coop epochs=1", "new ece"): (0.3, 0.5),
            ("coop + DOR epochs=1", "new ece"): (0.2, 0.4),
            ("coop + DOR epochs=2", "new ece"): (0.1, 0.3),
            ("coop epochs=1", "prompts"): (1500, 1500),
        }
    )
    found = scripts("ablation_tables").tables(results)
    spaced = {name: " ".join(table.replace("\u00a0", " ").split()) for name, table in found.items()}
    usual, half = "0.500 ± 0.000", "± 1.271"
    assert f"CoOp 1 1.5 {usual} {usual} {usual} 0.400 {half}" in spaced["outliers lengths"]
    assert "+0.000 ± 0.000 -0.100 ± 0.000" in spaced["outliers lengths dor"]
    assert (
        "CoOp, 1 epochs +0.000 ± 0.000 +0.000 ± 0.000 +0.000 ± 0.000 +0.200 ± 0.000"
        in spaced["outliers lengths stopped"]
    )
    assert "colors street a, b c" in spaced["outliers nouns"]
    names = {name for name in found if "claims" in name}
    assert names == {
        f"outliers claims {topic}"
        for topic in ("length", "early stopping", "pool", "drawing", "weight", "divergence")
    }


@pytest.mark.slow
def test_short_run(scripts, run_script, tmp_path, capsys):
    module, out, cells = scripts("ablations"), tmp_path / "results.json", tmp_path / "cells"
    arguments = ["--quick", "--out", out, "--cells", cells]
    run_script(module, *arguments)
    printed = capsys.readouterr().out
    before = out.read_text(encoding="utf-8")
    measured = scripts("ablation_plan").Measured(json.loads(before))
    # The demo fits the same classifiers.
    cell = Cell("colors", "street", 0, 1, 64)
    for method, name in (
        (ZERO_SHOT, "zero-shot"),
        (COOP, "coop epochs=1"),
        (COOP_DOR, "coop + DOR epochs=1"),
    ):
        for expected in run_cell(cell, method):
            if expected.method == method:
                for quantity in ("accuracy", "confidence", "ece"):
                    value = measured.of_name(name, f"{expected.half} {quantity}")[0]
                    assert value == pytest.approx(getattr(expected, quantity), abs=2e-5)
    # The last of two epochs has the lowest log loss on validation images.
    for quantity in measured.quantities[1:]:
        np.testing.assert_array_equal(
            measured.of_name("coop epochs=2", quantity), measured.of_name("coop epochs=2 stopped", quantity)
        )
    check_factor(scripts, measured, cell)
    # The second run finds all fits, in the folder of these weights.
    (folder,) = cells.iterdir()
    assert open_backbone("mini").fingerprint.startswith(folder.name)
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert len(stamps) == 2 * len(module.QUICK.variants())
    run_script(module, *arguments)
    assert out.read_text(encoding="utf-8") == before
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.json")} == stamps
    assert capsys.readouterr().out == printed
    settings = dict(matplotlib.rcParams)
    run_script(module, "--out", out, "--figures", tmp_path)
    assert dict(matplotlib.rcParams) == settings, "figures change settings of the process"
    figures = sorted(path.name for path in tmp_path.glob("outliers_*"))
    assert figures == [
        "outliers_ece.svg",
        "outliers_lengths.svg",
        "outliers_spread.png",
        "outliers_weights.svg",
    ]


def check_factor(scripts, measured, cell):
    """Compute the confidence with multiplied deviations from the features of the zero-shot classifier."""
    halves = class_halves(cell)
    test = embedded_subset(cell, "test", N_TEST)
    clf = ZeroShotCLIPClassifier("mini").fit(*test).with_classes(halves["new"])
    texts = scripts("spread").stretched(clf.text_features_.astype(np.float64), 2.0)
    X, _ = test.of(halves["new"])
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    confidence = softmax(clf.logit_scale_ * X @ texts.T, axis=1).max(axis=1).mean()
    assert measured.of_name("zero-shot factor=2", "new confidence")[0] == pytest.approx(confidence, abs=1e-4)


class TestStoredResults:
    def test_page_has_the_tables_of_the_results(self, scripts):
        page = PAGE.read_text(encoding="utf-8")
        found = scripts("ablation_tables").tables(json.loads(RESULTS.read_text(encoding="utf-8")))
        for title, table in found.items():
            assert f".. table: {title}\n\n{table}\n" in page, f"run ablations.py --page {PAGE.name}"
        assert set(re.findall(r"(?m)^\.\. table: (.+)$", page)) == set(found)

    def test_results_are_complete_and_small(self, scripts):
        text = RESULTS.read_text(encoding="utf-8")
        assert len(text) < 200_000
        assert not re.search(r"/[a-z]+/", text)
        measured = scripts("ablation_plan").Measured(json.loads(text))
        names = {variant.name for variant in measured.plan.variants()}
        assert set(measured.names) == names | {f"coop epochs={measured.plan.longest}"}
        for name in measured.names:
            assert np.isfinite(measured.of_name(name, "new ece")).all()

    def test_figures_are_small(self):
        figures = sorted(PAGE.parent.glob("outliers_*.*g"))
        names = ["outliers_ece", "outliers_lengths", "outliers_spread", "outliers_weights"]
        assert [path.stem for path in figures] == names
        assert all(path.stat().st_size < 100_000 for path in figures)
