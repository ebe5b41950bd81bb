"""The types of the public names, as mypy sees them in a script that uses clipcal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clipcal

pytest.importorskip("mypy")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

CONSUMER = """
import clipcal
from clipcal import (
    CalibratedCLIPClassifier, PromptTunedCLIPClassifier, ReliabilityDisplay, TemperatureScaling,
    ece_scorer, expected_calibration_error, load, load_images, make_shapes, save,
)

X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
images = load_images("pets")
clf = PromptTunedCLIPClassifier("mini", regularizer="dor", random_state=0).fit(X, y)
y_prob = clf.predict_proba(X)
error = expected_calibration_error(y, y_prob, labels=clf.classes_)
score = ece_scorer(clf, X, y)
calibrated = CalibratedCLIPClassifier(clf, method="temperature", cv="prefit").fit(X, y)
scaling = TemperatureScaling().fit(clf.decision_function(X), y)
display = ReliabilityDisplay.from_predictions(y, y_prob)
save(clf, "model.clipcal")
loaded = load("model.clipcal")
summary = clipcal.metrics.summary(y, y_prob)
reveal_type(clf)
reveal_type(y_prob)
reveal_type(error)
reveal_type(calibrated)
reveal_type(scaling)
reveal_type(display)
"""


def check(tmp_path, text):
    """Return the output of ``mypy --strict`` for a script outside the checkout."""
    (tmp_path / "consumer.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "consumer.py"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return re.sub(r"^clipcal.*\n", "", run.stdout.replace(str(ROOT), ""), flags=re.MULTILINE)


def test_script_that_uses_clipcal_has_types(tmp_path):
    shown = check(tmp_path, CONSUMER)
    assert not re.search(r"consumer\.py:\d+: error", shown), shown
    types = re.findall(r'consumer\.py.*Revealed type is "(.*)"', shown)
    for found, expected in zip(
        types,
        [
            "PromptTunedCLIPClassifier",
            "numpy.ndarray",
            "float",
            "CalibratedCLIPClassifier",
            "TemperatureScaling",
            "ReliabilityDisplay",
        ],
        strict=True,
    ):
        assert expected in found


def test_unknown_names_are_errors(tmp_path):
    assert 'has no attribute "PromptTuned"' in check(tmp_path, "from clipcal import PromptTuned\n")


def test_names_for_type_checkers_are_those_found_at_run_time():
    text = Path(clipcal.__file__).read_text(encoding="utf-8")
    found = re.findall(r"^    from clipcal(?:\.\w+)? import (\w+) as \1$", text, flags=re.MULTILINE)
    assert sorted(found) == sorted(set(dir(clipcal)) - {"__version__"})
