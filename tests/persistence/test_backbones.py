"""Backbones of loaded classifiers, which are opened by name and compared by fingerprint."""

import copy
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from saved_models import NEW, X, Y, answers, calibrated, content_of, tuned, write, zero_shot
from toy_backbone import AnyWidthBackbone

import clipcal
from clipcal import CalibratedCLIPClassifier, PromptTunedCLIPClassifier, make_shapes
from clipcal.backbones import open_backbone
from clipcal.exceptions import BackboneError


class OtherBackbone(AnyWidthBackbone):
    """Backbone with another fingerprint."""

    fingerprint = "f" * 64

    def for_width(self, n_features):
        """Return a backbone of this class with another width."""
        return OtherBackbone(n_features)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.clipcal"


def test_backbone_without_name_must_be_passed(path):
    fitted = calibrated()
    clipcal.save(fitted, path)
    with pytest.raises(BackboneError, match=r"AnyWidthBackbone.*clipcal\.load\(path, backbone="):
        clipcal.load(path)
    backbone = AnyWidthBackbone()
    loaded = clipcal.load(path, backbone=backbone)
    assert loaded.estimator.backbone is loaded.estimator_.backbone is backbone


@pytest.mark.parametrize("make", [tuned, zero_shot, calibrated])
def test_another_backbone_raises_when_it_is_opened(make, path):
    fitted = make()
    clipcal.save(fitted, path)
    loaded = clipcal.load(path, backbone=OtherBackbone())
    # Predictions for embeddings do not need the backbone.
    for before, after in zip(answers(fitted), answers(loaded), strict=True):
        assert_array_equal(before, after)
    expected = AnyWidthBackbone(12).fingerprint[:12]
    images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    for use in (lambda: loaded.with_classes(["eel", "fox"]), lambda: loaded.predict(images)):
        with pytest.raises(BackboneError, match=f"{expected}.*OtherBackbone|AnyWidth.*ffffffffffff.*load"):
            use()


def test_zero_shot_of_a_loaded_classifier_needs_the_same_backbone(path):
    clipcal.save(tuned(), path)
    assert clipcal.load(path, backbone=AnyWidthBackbone()).zero_shot().predict(NEW).shape == (7,)
    with pytest.raises(BackboneError, match="fingerprint"):
        clipcal.load(path, backbone=OtherBackbone()).zero_shot()


def test_a_new_fit_may_use_another_backbone(path):
    clipcal.save(zero_shot(), path)
    loaded = clipcal.load(path, backbone=OtherBackbone())
    with pytest.raises(ValueError, match="at least 2 classes"):
        loaded.fit(X, ["ant"] * len(X))
    with pytest.raises(BackboneError):  # a fit that fails changes nothing
        loaded.with_classes(["eel", "fox"])
    loaded.fit(X, Y).with_classes(["eel", "fox"])


def test_copies_for_other_classes_check_the_backbone(path):
    clipcal.save(tuned(), path)
    loaded = clipcal.load(path, backbone=AnyWidthBackbone()).with_classes(["eel", "fox"])
    clipcal.save(loaded.set_params(backbone=OtherBackbone()), path)
    with pytest.raises(BackboneError):
        clipcal.load(path, backbone=OtherBackbone()).with_classes(["gnu", "hen"])


def test_backbone_with_name_is_saved_by_name(path):
    X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    backbone = open_backbone("mini", device="cpu")
    clf = PromptTunedCLIPClassifier(backbone, max_epochs=1, random_state=0).fit(X, y)
    clipcal.save(clf, path)
    loaded = clipcal.load(path, device="cpu")
    assert loaded.backbone == "mini"
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_loading_does_not_depend_on_the_device_of_training(path):
    X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    clf = PromptTunedCLIPClassifier("mini", max_epochs=1, random_state=0, device="cpu").fit(X, y)
    expected = clf.predict_proba(X)
    clf.set_params(device="cuda:7", memory="/nowhere/at/all").device_ = "cuda:7"
    document, tensors = clipcal_content(copy.copy(clf).set_params(device="cpu"), path)
    write(path, document, tensors)
    loaded = clipcal.load(path, device="cpu")
    assert (loaded.device, loaded.device_, loaded.memory) == ("cpu", "cuda:7", None)
    assert_array_equal(loaded.predict_proba(X), expected)
    assert "nowhere" not in path.read_bytes().decode("latin-1")


def clipcal_content(estimator, path):
    clipcal.save(estimator, path)
    return content_of(path)


def test_memory_and_device_are_given_to_every_classifier(path, tmp_path):
    clipcal.save(CalibratedCLIPClassifier(tuned(), cv="prefit").fit(X, Y), path)
    loaded = clipcal.load(path, backbone=AnyWidthBackbone(), memory=tmp_path / "cache", device="cpu")
    assert loaded.estimator_.memory == tmp_path / "cache" and loaded.estimator_.device == "cpu"
    assert not (tmp_path / "cache").exists()


def test_embeddings_need_neither_weights_nor_torch(path):
    X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    clf = clipcal.ZeroShotCLIPClassifier("mini", device="cpu").fit(X, y)
    clipcal.save(CalibratedCLIPClassifier(clf, cv="prefit").fit(X, y), path)
    document, tensors = content_of(path)
    for record in document["objects"]:
        if "backbone" in record["params"]:
            record["params"]["backbone"] = "local-dir:/not/there"
    write(path, document, tensors)
    E = clipcal.CLIPImageEncoder("mini", device="cpu").transform(X)
    np.save(path.with_name("E.npy"), E)
    code = (
        "import sys, numpy as np, clipcal;"
        "p = clipcal.load('model.clipcal').predict_proba(np.load('E.npy'));"
        "assert 'torch' not in sys.modules; print(p.shape)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=path.parent)
    assert run.stdout.strip() == "(28, 14)", run.stderr
    with pytest.raises(BackboneError, match="not/there"):
        clipcal.load(path).predict(X)
