"""Files of the first schema can be loaded by every later version."""

from pathlib import Path

import numpy as np
from numpy.testing import assert_allclose

import clipcal

FOLDER = Path(__file__).parents[1] / "data" / "saved_v1"


def test_predictions_of_a_file_of_schema_1_are_unchanged():
    path = FOLDER / "textures.clipcal"
    assert path.stat().st_size < 60_000
    with np.load(FOLDER / "expected.npz") as expected:
        embeddings, y_prob = expected["embeddings"], expected["y_prob"]
        other_y_prob = expected["other_y_prob"]
    clf = clipcal.load(path, device="cpu")
    assert clf.classes_.tolist() == ["checkered", "dotted", "plain", "striped", "wavy"]
    # Rounding depends on the processor.
    assert_allclose(clf.predict_proba(embeddings), y_prob, rtol=1e-9, atol=1e-12)
    # The text tower computes in float32.
    other = clf.with_classes(["ringed", "gridded", "plain"])
    assert_allclose(other.predict_proba(embeddings), other_y_prob, atol=1e-3)


def test_attributes_of_a_file_of_schema_1_are_unchanged():
    clf = clipcal.load(FOLDER / "textures.clipcal")
    tuned = clf.estimator_
    assert (clf.cv, clf.method, tuned.backbone, tuned.random_state) == (3, "temperature", "mini", 0)
    assert len(tuned.regularizer.lexicon) == 8
    assert tuned.learned_["context"].shape[0] == 4  # "a photo of a"
    assert [record["epoch"] for record in tuned.history_] == [0, 1, 2, 3, 4]
    assert all(record["dor"] >= 0 for record in tuned.history_)
    assert clf.calibrator_.temperature_ > 0
    assert tuned.n_features_in_ == tuned.text_features_.shape[1] == 128
