"""Running plans on the tasks of the embedded model."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from fake_hub import hub_environment, serving, tiny_hub
from mini_plan import NOUNS, PLAN, content_of, kill_or_double, plan
from PIL import Image

from clipcal import (
    CalibratedCLIPClassifier,
    PromptTunedCLIPClassifier,
    ZeroShotCLIPClassifier,
    expected_calibration_error,
)
from clipcal.backbones import open_backbone
from clipcal.benchmark import Entry, LocalEngine, estimate_cost, expand, measure, run_plan
from clipcal.benchmark._components import make_calibrator, with_precision
from clipcal.benchmark._fit import encode_nouns, run_fit
from clipcal.benchmark._run import plan_jobs
from clipcal.benchmark._store import Store
from clipcal.datasets import load_benchmark
from clipcal.exceptions import PlanError
from clipcal.images import CLIPImageEncoder
from clipcal.methods import CoOp, zero_shot_features
from clipcal.regularizers import DynamicOutlierRegularizer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    summary = run_plan(plan(), results)
    assert not summary.failed and summary.n_left == 0
    return results


def records_of(results):
    return [json.loads(path.read_text()) for path in (results / "cells").glob("*.json")]


def test_every_cell_has_metrics_and_predictions(undisturbed):
    expected = {cell for fit in expand(plan()) for cell in fit.cells}
    records = records_of(undisturbed)
    assert {tuple(record["cell"].values()) for record in records} == {
        tuple(dict(sorted(vars(cell).items())).values()) for cell in expected
    }
    for record in records:
        with np.load(undisturbed / "cells" / f"{record['key']}.npz", allow_pickle=False) as arrays:
            found = dict(arrays)
        assert found["y_prob"].shape == (record["data"]["test"]["n"], len(found["classes"]))
        assert measure(**found, n_bins=15) == record["metrics"]


def test_cells_equal_the_same_steps_by_hand(undisturbed):
    data = load_benchmark("mini/shapes-studio", classes="base", n_shots=4, random_state=1)
    new = load_benchmark("mini/shapes-studio", classes="new", n_shots=4, random_state=1)
    encoder = CLIPImageEncoder("mini")
    classifier = PromptTunedCLIPClassifier("mini", recipe="original", max_epochs=2, random_state=1)
    classifier.fit(encoder.fit_transform(data.train.images), data.train.target)
    X = encoder.transform(data.validation.images)
    calibrated = CalibratedCLIPClassifier(classifier, cv="prefit").fit(X, data.validation.target)
    other = calibrated.with_classes(new.class_ids)
    y_prob = other.predict_proba(encoder.transform(new.test.images))
    ece = expected_calibration_error(new.test.target, y_prob, labels=other.classes_)
    (record,) = [
        record
        for record in records_of(undisturbed)
        if (record["cell"]["method"], record["cell"]["regularizer"]) == ("CoOp", "none")
        and (record["cell"]["calibrator"], record["cell"]["classes"]) == ("temperature", "new")
    ]
    assert record["metrics"]["ece"] == pytest.approx(ece, abs=1e-4)


def test_second_run_does_nothing(undisturbed):
    before = content_of(undisturbed)
    summary = run_plan(plan(), undisturbed)
    assert (summary.n_done, summary.n_finished, summary.n_left) == (summary.n_cells, 0, 0)
    assert content_of(undisturbed) == before
    assert estimate_cost(plan(), undisturbed).n_fits == 0


def test_missing_cell_is_run_again_with_the_same_bytes(undisturbed, tmp_path):
    before = content_of(undisturbed)
    name = next(name for name in before if name.endswith(".json") and name.startswith("cells"))
    (undisturbed / name).unlink()
    assert estimate_cost(plan(), undisturbed).n_missing == 1
    assert run_plan(plan(), undisturbed).n_finished == 1
    assert content_of(undisturbed) == before


def test_number_of_processes_and_order_do_not_matter(undisturbed, tmp_path):
    run_plan(plan(), tmp_path, conditions={"regularizer": ["DOR"]})
    run_plan(plan(), tmp_path, n_jobs=2)
    assert content_of(tmp_path) == content_of(undisturbed)


def test_limit_and_conditions(tmp_path):
    summary = run_plan(plan(), tmp_path, limit=1)
    assert 0 < summary.n_finished < summary.n_cells
    conditions = {"method": ["CoOp"], "classes": ["new"]}
    summary = run_plan(plan(), tmp_path, conditions=conditions)
    assert summary.n_cells == 4 and summary.n_left == 0
    assert {
        record["cell"]["classes"] for record in records_of(tmp_path) if record["cell"]["method"] == "CoOp"
    } == {"new"}


def test_key_depends_on_everything_that_determines_the_numbers():
    def keys(**changes):
        return {identity["key"] for job in plan_jobs(plan(**changes)) for identity in job.identities}

    own = keys()
    assert keys() == own
    longer = [{"name": "CoOp", "method": "coop", "recipe": "original", "max_epochs": 3}]
    assert len(keys(methods=["zero-shot", *longer]) & own) == 4  # zero-shot, with two calibrators
    assert not keys(seeds=[2], calibrators=["temperature"]) & own
    assert not keys(n_bins=10) & own
    assert not keys(classifier={"precision": "bf16"}) & own
    # How it runs does not matter.
    assert keys(n_threads=2) == own


def test_failed_cells_do_not_stop_others_and_are_tried_again(tmp_path):
    own = {"method": "coop", "recipe": "original", "method__class_specific": True, "max_epochs": 1}
    methods = ["zero-shot", {"name": "specific", **own}]
    broken = plan(methods=methods, regularizers=["none"], calibrators=["none"])
    summary = run_plan(broken, tmp_path)
    # Class-specific contexts exist for the training classes only.
    assert len(summary.failed) == 1 and "mini/shapes-studio (new)" in summary.failed[0]
    (failed,) = (tmp_path / "failed").iterdir()
    told = json.loads(failed.read_text())
    assert told["cell"]["classes"] == "new" and "Traceback" in told["traceback"]
    assert told["error"] in summary.failed[0] and "Failed: specific" in str(summary)
    again = run_plan(broken, tmp_path)
    assert again.n_done == 3 and len(again.failed) == 1


def test_error_of_a_fit_fails_all_its_cells(tmp_path):
    methods = [{"name": "CoOp", "method": "coop", "learning_rate": 1e30, "optimizer": "sgd", "max_epochs": 3}]
    summary = run_plan(plan(methods=methods, regularizers=["none"], calibrators=["none"]), tmp_path)
    assert len(summary.failed) == 2 and summary.n_finished == 0


def test_components_may_be_objects(tmp_path):
    methods = [{"name": "mine", "method": CoOp(n_context=2, context_init=None), "max_epochs": 1}]
    run_plan(plan(methods=methods, regularizers=["none"], calibrators=["none"]), tmp_path)
    for record in records_of(tmp_path):
        assert record["settings"]["estimator"]["method"]["n_context"] == 2


def test_pixel_methods_get_images(tmp_path):
    methods = [{"name": "MaPLe", "method": "maple", "max_epochs": 1}]
    summary = run_plan(plan(methods=methods, regularizers=["none"], calibrators=["temperature"]), tmp_path)
    assert not summary.failed and summary.n_finished == 2
    assert not (tmp_path / "cache" / "embeddings").exists()


def test_zero_shot_prompts_use_the_template_of_each_data_set(tmp_path, monkeypatch):
    from clipcal.benchmark import _components
    from clipcal.benchmark._plan import Entry

    none = Entry("none", "none")
    make = _components.make_classifier
    template = "a photo of a {}, a type of pet."
    grid = plan()
    assert make(grid, Entry("z", "zero-shot"), none, template=template).template == template
    adapter = make(grid, Entry("a", "clip-adapter"), none, template=template)
    assert adapter.method.template == template
    anchor = make(grid, Entry("k", "kgcoop"), Entry("DOR", "dor"), template=template).regularizer
    assert [term.name for term in anchor] == ["kg", "dor"]
    assert [term.template for term in anchor] == [template, "a photo of a {}."]
    own = Entry("z", "zero-shot", {"template": "{} texture."})
    assert make(grid, own, none, template=template).template == "{} texture."
    tcp = Entry("t", "tcp", {"method__zero_shot_template": "dataset", "method__template": "{}."})
    assert make(grid, tcp, none, template=template).method.zero_shot_template == template


def test_template_of_the_plan_is_kept_for_new_classes(tmp_path, monkeypatch):
    used = []
    encode = ZeroShotCLIPClassifier._encode_classes

    def recorded(self, backbone):
        used.append(self.template)
        return encode(self, backbone)

    monkeypatch.setattr(ZeroShotCLIPClassifier, "_encode_classes", recorded)
    methods = [{"name": "mine", "method": "zero-shot", "template": "{} texture."}]
    summary = run_plan(plan(methods=methods, regularizers=["none"]), tmp_path)
    assert summary.n_finished == 4 and set(used) == {"{} texture."}


def test_calibrators_compare_with_the_template_of_the_data_set():
    dac = Entry("DAC", "dac")
    assert make_calibrator(dac, template="{} texture.").template == "{} texture."
    own = Entry("DAC", "dac", {"template": "a {}."})
    assert make_calibrator(own, template="{} texture.").template == "a {}."


def test_classes_without_training_images_are_classes_all_the_same(tmp_path):
    rng = np.random.default_rng(0)
    for subset, labels in (("train", "acd"), ("test", "abcd")):
        for label in labels:
            folder = tmp_path / "letters" / subset / f"letter {label}"
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    settings = {"methods": ["zero-shot", {"name": "CoOp", "method": "coop", "max_epochs": 1}], "n_shots": [2]}
    few = plan(
        **settings,
        datasets=[f"own:{tmp_path / 'letters'}"],
        protocols=["few-shot"],
        regularizers=["none"],
        calibrators=["none"],
    )
    run_plan(few, tmp_path / "results")
    for record in records_of(tmp_path / "results"):
        with np.load(tmp_path / "results" / "cells" / f"{record['key']}.npz") as arrays:
            labels = arrays["classes"][arrays["y_true"]]
        assert labels.tolist() == [f"letter {label}" for label in "abcd" for _ in range(3)]


def test_nouns_of_lexicons_are_encoded_apart(tmp_path):
    nouns = [f"{noun} {word}" for noun in NOUNS for word in NOUNS]

    def table(memory, *lexicons):
        for lexicon in lexicons:
            cache = encode_nouns(plan(), DynamicOutlierRegularizer(lexicon=lexicon), str(memory))
        return zero_shot_features(open_backbone("mini"), nouns, "a photo of a {}.", memory=cache).numpy()

    alone = table(tmp_path / "alone", nouns)
    assert (table(tmp_path / "both", nouns[::7], nouns) == alone).all()


def test_fit_with_other_data_than_its_key_fails(tmp_path):
    (job, *_) = plan_jobs(plan())
    changed = [{**identity, "key": "0", "versions": {"python": "2.7"}} for identity in job.identities]
    for outcome in run_fit(plan(), job.fit, changed, str(tmp_path)):
        assert outcome.predictions is None
        assert "other data or versions" in outcome.record["error"] and "'2.7'" in outcome.record["error"]


def test_workers_use_the_precision_of_the_keys():
    assert with_precision(plan(classifier={"n_views": 2})).classifier == {"n_views": 2, "precision": "fp32"}
    assert with_precision(plan(classifier={"precision": "bf16"})).classifier == {"precision": "bf16"}


def test_killed_process_fails_its_call_only():
    numbers = [1, 2, 0, 3, 4, 5]
    found = dict(LocalEngine(2).run(kill_or_double, [(number,) for number in numbers]))
    assert isinstance(found.pop(2), BrokenProcessPool)
    assert found == {i: 2 * number for i, number in enumerate(numbers) if number}


def test_cell_without_predictions_is_run_again(undisturbed, tmp_path):
    before = content_of(undisturbed)
    next((undisturbed / "cells").glob("*.npz")).unlink()
    assert run_plan(plan(), undisturbed).n_finished == 1
    assert content_of(undisturbed) == before


def test_invalid_plan_leaves_no_folder(tmp_path):
    with pytest.raises(PlanError):
        run_plan(plan(methods=["coopp"]), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_files_of_killed_runs_are_removed(tmp_path):
    old, new = tmp_path / "cells" / "a.npz.1.tmp", tmp_path / "plan.json.2.tmp"
    old.parent.mkdir()
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    Store(tmp_path)
    assert not old.exists() and new.exists()


def test_unknown_parameter_names_the_entry():
    with pytest.raises(PlanError, match="The entry 'CoOp' of the plan: Invalid parameter 'epochs'"):
        expand(plan(methods=[{"name": "CoOp", "method": "coop", "epochs": 2}]))


SCRIPT = """
import json, sys
from clipcal.benchmark import Plan, run_plan
run_plan(Plan.from_dict(json.loads(sys.argv[1])), sys.argv[2])
print("complete")
"""


def start(results, content=PLAN):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT, json.dumps(content), str(results)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)


def n_files(folder):
    return sum(1 for _ in folder.rglob("*"))


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(undisturbed, tmp_path):
    draw = random.Random(0)
    n_killed = 0
    # A run that is complete before it is killed does not count.
    for _ in range(16):
        # What is complete is not touched by later runs, so remove some of it.
        for path in [path for path in sorted(tmp_path.glob("cells/*.json")) if draw.random() < 0.5]:
            for file in tmp_path.glob(f"*/{path.stem}.*"):
                file.unlink()
        before, n_new = n_files(tmp_path), draw.randrange(10)
        process = start(tmp_path)
        while process.poll() is None and n_files(tmp_path) < before + n_new:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        if process.poll() is None:
            n_killed += 1
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if n_killed == 8:
            break
    assert n_killed == 8
    assert "complete" in start(tmp_path).communicate()[0]
    assert content_of(tmp_path) == content_of(undisturbed)


@pytest.mark.slow
def test_plan_runs_with_a_backbone_from_the_hub(tmp_path):
    """As on a user's first run: the weights are downloaded once, and found in the cache without a network."""
    changes = {"backbone": "hf-hub:org/name", "calibrators": ["none"], "classifier": {"device": "cpu"}}
    results = tmp_path / "results"

    def run(environment):
        command = [sys.executable, "-c", SCRIPT, json.dumps(PLAN | changes), str(results)]
        path = str(Path(__file__).parents[2])
        done = subprocess.run(
            command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        assert "complete" in done.stdout, done.stderr

    with serving(tiny_hub()) as server:
        environment = hub_environment(server, tmp_path / "home")
        run(environment)
        assert len(server.downloads()) == 1
    before = content_of(results)
    assert len(before) == 1 + 2 * 6
    for name in list(before)[1:5]:
        (results / name).unlink()
    run(environment | {"HF_HUB_OFFLINE": "1"})
    assert content_of(results) == before
