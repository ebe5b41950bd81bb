"""The keys of cells."""

import functools

import numpy as np
import pytest
import torch
from mini_plan import NOUNS, plan
from PIL import Image

from clipcal.benchmark._identity import described
from clipcal.benchmark._run import plan_jobs
from clipcal.calibration import TemperatureScaling
from clipcal.exceptions import PlanError
from clipcal.methods import CoOp


def identities(**changes):
    changes = {"regularizers": ["none"], "calibrators": ["none"], **changes}
    return [identity for job in plan_jobs(plan(**changes)) for identity in job.identities]


def keys(**changes):
    return {identity["key"] for identity in identities(**changes)}


def coop(**params):
    return [{"name": "CoOp", "method": "coop", **params}]


def test_nested_objects_are_described():
    assert described(CoOp(n_context=2, context_init=None))["n_context"] == 2
    (calibrator,) = described([TemperatureScaling()])
    assert calibrator == {"class": "TemperatureScaling", **TemperatureScaling().get_params()}
    assert described({"b": {3, 1, 2}, 1: (np.float32(0.5), None)}) == {"b": [1, 2, 3], "1": [0.5, None]}
    assert described(torch.ones(2, dtype=torch.float64)) == described(np.ones(2)) == [1.0, 1.0]


def test_long_values_differ_in_every_item():
    values = [np.arange(2000.0), np.arange(2000.0)]
    values[1][1000] = -1
    assert described(values[0]) != described(values[1])
    assert described(torch.tensor(values[0])) != described(torch.tensor(values[1]))


def test_functions_are_described_with_their_module():
    assert described(torch.optim.SGD) == "torch.optim.sgd.SGD"
    first, second = (described(functools.partial(torch.optim.SGD, nesterov=value)) for value in (True, False))
    assert first != second and first["function"] == "torch.optim.sgd.SGD"
    for value in (lambda parameters: None, object(), functools.partial(lambda lr: None)):
        with pytest.raises(PlanError, match="cannot be told from others"):
            described(value)


class Mine(CoOp):
    """A method with a parameter that classifiers have, too."""

    def __init__(self, context_init="a photo of a", *, precision="fp32"):
        super().__init__(context_init)
        self.precision = precision


def test_parameters_of_components_are_kept_whatever_their_name():
    found = [keys(methods=coop(method=Mine(precision=value))) for value in ("fp32", "bf16")]
    assert not found[0] & found[1]
    (first, _) = identities(methods=coop(method=Mine()))
    assert first["settings"]["estimator"]["method"]["class"] == f"{__name__}.Mine"


def test_lexicon_of_a_file_is_known_by_its_nouns(tmp_path):
    path = tmp_path / "nouns.txt"
    regularizers = [{"name": "DOR", "regularizer": "dor", "regularizer__lexicon": str(path)}]
    path.write_text("\n".join(NOUNS))
    before = keys(methods=coop(), regularizers=regularizers)
    assert keys(methods=coop(), regularizers=regularizers) == before
    path.write_text("\n".join(NOUNS[1:]))
    assert not keys(methods=coop(), regularizers=regularizers) & before


def test_template_of_each_data_set_matters_where_it_is_used():
    transfer = {
        "protocols": ["cross-dataset"],
        "source": "mini/shapes-studio",
        "targets": ["mini/colors-studio"],
        "calibrators": ["temperature"],
    }
    changed = {**transfer, "templates": {"mini/colors-studio": "a {}."}}
    zero_shot = [
        {i["cell"]["dataset"]: i["key"] for i in identities(methods=["zero-shot"], **part)}
        for part in (transfer, changed)
    ]
    assert zero_shot[0]["mini/shapes-studio"] == zero_shot[1]["mini/shapes-studio"]
    assert zero_shot[0]["mini/colors-studio"] != zero_shot[1]["mini/colors-studio"]
    # CoOp has no template.
    assert keys(methods=coop(), **transfer) == keys(methods=coop(), **changed)


def test_names_of_training_classes_matter(tmp_path):
    rows = ["path,label,split,class_name"]
    for label in "abcd":
        for split in ("train", "validation", "test"):
            path = f"{label}-{split}.png"
            Image.new("RGB", (8, 8)).save(tmp_path / path)
            rows.append(f"{path},{label},{split},animal {label}")
    table = tmp_path / "animals.csv"
    found = []
    # The table is read again in the same process.
    for name in ("animal a", "beast a"):
        table.write_text("\n".join(rows).replace("animal a", name))
        found.append(keys(methods=coop(), datasets=[f"own:{table}"], n_shots=[1]))
    assert not found[0] & found[1]
