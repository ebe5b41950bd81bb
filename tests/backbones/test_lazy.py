"""Backbones recorded in a cache are opened without their weights until a file changes."""

import copy
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.base import clone
from tiny_clip import make_tiny_model

from clipcal import CLIPImageEncoder, FeatureCache, ZeroShotCLIPClassifier
from clipcal.backbones import Backbone, OpenClipBackbone, open_backbone
from clipcal.backbones import _registry as registry
from clipcal.backbones._lazy import LazyBackbone
from clipcal.backbones._names import parse_name
from clipcal.backbones._notes import file_stamps
from clipcal.backbones._protocol import ATTRIBUTES
from clipcal.exceptions import BackboneError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3), dtype=np.uint8)
CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", {})


@pytest.fixture
def name(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    save_file(make_tiny_model().state_dict(), folder / "weights.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


def change_weights(name, keep_time):
    """Overwrite the weights by others of the same size."""
    path = parse_name(name).source + "/weights.safetensors"
    before = os.stat(path)
    state = make_tiny_model().state_dict()
    state["visual.proj"] = state["visual.proj"].flip(0).contiguous()
    save_file(state, path)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def reopened(name, cache):
    """Open the backbone as in a new process."""
    registry._loaded.clear()
    return open_backbone(name, device="cpu", memory=cache)


def test_first_opening_loads_weights_and_later_ones_are_lazy(name, cache):
    real = open_backbone(name, device="cpu", memory=cache)
    assert isinstance(real, OpenClipBackbone)
    assert open_backbone(name, device="cpu", memory=cache) is real
    known = reopened(name, cache)
    assert isinstance(known, LazyBackbone) and isinstance(known, Backbone)
    assert not registry._loaded
    for attribute in (*ATTRIBUTES, "precision"):
        assert getattr(known, attribute) == getattr(real, attribute)
    assert open_backbone(known, n_features=64) is known
    assert not registry._loaded
    with pytest.raises(BackboneError, match="X has 10 features"):
        open_backbone(name, device="cpu", memory=cache, n_features=10)
    assert not registry._loaded
    pixels = torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(known.encode_images(pixels), real.encode_images(pixels))
    assert known.shares_prefix == real.shares_prefix
    assert open_backbone(name, device="cpu", memory=cache) is registry._loaded[next(iter(registry._loaded))]


def test_lazy_backbones_are_copied_and_pickled_without_weights(name, cache):
    open_backbone(name, device="cpu", memory=cache)
    known = reopened(name, cache)
    assert copy.copy(known) is known is copy.deepcopy(known)
    assert clone(CLIPImageEncoder(known)).backbone is known
    again = pickle.loads(pickle.dumps(known))
    assert again.fingerprint == known.fingerprint
    assert isinstance(again, LazyBackbone) and not registry._loaded
    assert repr(known).startswith("LazyBackbone('local-dir:")


def test_changed_file_is_detected(name, cache):
    before = CLIPImageEncoder(name, device="cpu", memory=cache).transform(PIXELS)
    change_weights(name, keep_time=False)
    assert isinstance(reopened(name, cache), OpenClipBackbone)
    after = CLIPImageEncoder(name, device="cpu", memory=cache).transform(PIXELS)
    assert not np.allclose(before, after, atol=1e-3)
    assert isinstance(reopened(name, cache), LazyBackbone)


def test_additional_file_is_detected(name, cache, tmp_path):
    open_backbone(name, device="cpu", memory=cache)
    other = make_tiny_model().state_dict()
    save_file(other, tmp_path / "model" / "open_clip_model.safetensors")
    assert isinstance(reopened(name, cache), OpenClipBackbone)


def test_other_weights_with_the_same_file_time_raise(name, cache):
    encoder = CLIPImageEncoder(name, device="cpu", memory=cache)
    encoder.transform(PIXELS[:2])
    change_weights(name, keep_time=True)
    registry._loaded.clear()
    with pytest.raises(BackboneError, match=r"differ from those.*no features were mixed; call again"):
        encoder.transform(PIXELS)
    registry._loaded.clear()
    expected = CLIPImageEncoder(name, device="cpu").transform(PIXELS)
    np.testing.assert_allclose(encoder.transform(PIXELS), expected, atol=1e-5)


def test_invalid_record_is_ignored(name, cache):
    open_backbone(name, device="cpu", memory=cache)
    [note] = cache.location.glob("note-*.json")
    for content in ("", "[]", "{}", "no json", note.read_text().replace("open_clip_torch", "another")):
        note.write_text(content)
        assert isinstance(reopened(name, cache), OpenClipBackbone)
    assert isinstance(reopened(name, cache), LazyBackbone)


def test_stamps_of_a_hub_snapshot_include_its_reference(tmp_path):
    repository = tmp_path / "models--org--name"
    checkpoint = repository / "snapshots" / "abc" / "model.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"w")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    stamps = file_stamps(parse_name("hf-hub:org/name"), checkpoint)
    (repository / "refs" / "main").write_text("abcd")
    assert file_stamps(parse_name("hf-hub:org/name"), checkpoint) != stamps
    assert str(checkpoint) in stamps and str(repository / "refs" / "main") in stamps


def test_cache_hits_in_a_new_process_do_not_load_the_backbone(tmp_path):
    labels = ["disk", "disk", "ring", "ring"]
    clf = ZeroShotCLIPClassifier("mini", device="cpu", memory=str(tmp_path)).fit(PIXELS, labels)
    (tmp_path / "clf.pkl").write_bytes(pickle.dumps(clf))
    np.save(tmp_path / "X.npy", PIXELS)
    np.save(tmp_path / "expected.npy", clf.predict_proba(PIXELS))
    code = """
import pickle, sys
import numpy as np
from clipcal import CLIPImageEncoder
X = np.load("X.npy")
clf = pickle.load(open("clf.pkl", "rb"))
np.testing.assert_array_equal(clf.predict_proba(X), np.load("expected.npy"))
CLIPImageEncoder("mini", device="cpu", memory=clf.memory).fit(X).transform(X[::-1])
clf.fit(X, ["disk", "disk", "ring", "ring"]).with_classes(["ring", "disk"])
assert "open_clip" not in sys.modules
clf.with_classes(["a new one", "disk"])
assert "open_clip" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
