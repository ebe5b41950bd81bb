"""Files of the first schema can be loaded by every later version.

They were made with versions 1 and 2 of the embedded CLIP model, of which the package contains the last.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import clipcal
from clipcal.exceptions import BackboneError

FOLDER = Path(__file__).parents[1] / "data" / "saved_v1"
OTHER_CLASSES = ["ringed", "gridded", "plain"]


def load(model_version):
    path = FOLDER / f"textures_mini_{model_version}.clipcal"
    assert path.stat().st_size < 60_000
    with np.load(FOLDER / f"expected_mini_{model_version}.npz") as expected:
        return clipcal.load(path, device="cpu"), dict(expected)


@pytest.mark.parametrize("model_version", [1, 2])
def test_predictions_of_a_file_of_schema_1_are_unchanged(model_version):
    clf, expected = load(model_version)
    assert clf.classes_.tolist() == ["checkered", "dotted", "plain", "striped", "wavy"]
    # Rounding depends on the processor.
    assert_allclose(clf.predict_proba(expected["embeddings"]), expected["y_prob"], rtol=1e-9, atol=1e-12)


def test_predictions_for_other_classes_of_a_file_of_schema_1_are_unchanged():
    clf, expected = load(2)
    other = clf.with_classes(OTHER_CLASSES)
    # The text tower computes in float32.
    assert_allclose(other.predict_proba(expected["embeddings"]), expected["other_y_prob"], atol=1e-3)


def test_text_is_not_encoded_with_a_later_version_of_the_model():
    clf, _ = load(1)
    with pytest.raises(BackboneError, match=r"whose fingerprint is .* Pass the original backbone"):
        clf.with_classes(OTHER_CLASSES)


@pytest.mark.parametrize("model_version", [1, 2])
def test_attributes_of_a_file_of_schema_1_are_unchanged(model_version):
    clf, _ = load(model_version)
    tuned = clf.estimator_
    assert (clf.cv, clf.method, tuned.backbone, tuned.random_state) == (3, "temperature", "mini", 0)
    assert len(tuned.regularizer.lexicon) == 8
    assert tuned.learned_["context"].shape[0] == 4  # "a photo of a"
    assert [record["epoch"] for record in tuned.history_] == [0, 1, 2, 3, 4]
    assert all(record["dor"] >= 0 for record in tuned.history_)
    assert clf.calibrator_.temperature_ > 0
    assert tuned.n_features_in_ == tuned.text_features_.shape[1] == 128
