"""Damaged and malicious files raise ModelFileError."""

import copy
import json
import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from saved_models import answers, calibrated, content_of, fitted_calibrator, tuned, write
from toy_backbone import AnyWidthBackbone

import clipcal
from clipcal.calibration import CALIBRATORS
from clipcal.exceptions import ModelFileError
from clipcal.persistence._container import SCHEMA, pack

pytestmark = pytest.mark.filterwarnings("ignore:The data do not determine")

MODELS = {
    "bin-mean-shift": lambda: calibrated("bin-mean-shift"),
    "dac": lambda: calibrated("dac"),
    "zero-shot": lambda: calibrated("sals"),
    "classes": lambda: calibrated(cv="classes"),
    "tuned": tuned,
    **{name: lambda name=name: fitted_calibrator(CALIBRATORS[name]) for name in CALIBRATORS},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.clipcal"


def load(path):
    return clipcal.load(path, backbone=AnyWidthBackbone())


def saved(name, path):
    model = MODELS[name]()
    clipcal.save(model, path)
    return model, path.read_bytes()


def loads_as(path, model=None):
    """Return whether a file can be loaded; check that its predictions equal those of `model`, if given."""
    try:
        loaded = load(path)
    except ModelFileError as error:
        assert str(path) in str(error) and "clipcal.save" in str(error)
        return False
    with np.errstate(all="ignore"):
        found = answers(loaded)
    if model is not None:
        for before, after in zip(answers(model), found, strict=True):
            assert_array_equal(before, after)
    return True


@pytest.mark.parametrize("name", ["classes", "bin-mean-shift", "tuned"])
def test_files_with_flipped_bits_raise(name, path):
    model, whole = saved(name, path)
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.choice([1, 1, 5])):
            damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        passed += loads_as(path, model)
    assert passed <= 2  # flipped bits in the padding of the header have no effect


def test_each_changed_byte_of_the_header_raises(path):
    model, whole = saved("temperature", path)
    for place in range(8 + int.from_bytes(whole[:8], "little")):
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        path.write_bytes(damaged)
        assert not loads_as(path, model) or whole[place : place + 1] == b" "


@pytest.mark.parametrize("name", ["classes", "matrix"])
def test_truncated_and_extended_files_raise(name, path):
    _, whole = saved(name, path)
    rng = np.random.default_rng(1)
    for length in [0, 1, 7, 8, 9, *rng.integers(len(whole), size=100), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert not loads_as(path)
    for more in (b"\0", whole, b"x" * 1000):
        path.write_bytes(whole + more)
        assert not loads_as(path)


JUNK = [None, True, -1, 0, 10**400, 1e308, "", "x", "nan", [], {}, [[]], {"$object": 0}, {"$float": "nan"}]
JUNK += [{"$array": ["classes_", "f8", "C"]}, {"$tuple": [1]}, {"$dict": [[[], 1]]}, {"x": {"$y": 1}}]


def places(node, path=()):
    """Yield the paths of all values of a document."""
    if path:
        yield path
    if isinstance(node, (dict, list)):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield from places(node[key], (*path, key))


def at(node, path):
    for key in path:
        node = node[key]
    return node


def edit(document, rng):
    """Remove, rename, repeat or replace one value."""
    document = copy.deepcopy(document)
    all_places = list(places(document))
    *parents, key = all_places[rng.integers(len(all_places))]
    parent = at(document, parents)
    kind = rng.integers(4)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif kind == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[key] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    return document


@pytest.mark.parametrize("name", MODELS)
def test_edited_documents_with_valid_checksum_raise_or_load(name, path):
    saved(name, path)
    document, tensors = content_of(path)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(60):
        write(path, edit(document, rng), tensors)
        refused += not loads_as(path)
    assert refused > 20


def reshaped(tensor, rng):
    kind = rng.integers(6)
    if kind == 0:
        return tensor[:-1] if tensor.ndim else tensor[None]
    if kind == 1:
        return tensor[..., None]
    if kind == 2:
        return tensor.astype(np.float16 if tensor.dtype.kind != "f" else np.int32)
    if kind == 3:
        return np.zeros((0, *tensor.shape[1:]), tensor.dtype)
    if kind == 4 and tensor.dtype.kind == "f":
        return np.where(rng.random(tensor.shape) < 0.5, tensor, [np.nan, np.inf, -np.inf][rng.integers(3)])
    return np.repeat(tensor, 2, axis=-1) if tensor.ndim else tensor.reshape(1, 1)


@pytest.mark.parametrize("name", MODELS)
def test_edited_arrays_with_valid_checksum_raise_or_load(name, path):
    saved(name, path)
    document, tensors = content_of(path)
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(30):
        key = sorted(tensors)[rng.integers(len(tensors))]
        edited = {**tensors, key: np.array(reshaped(tensors[key], rng), dtype=None)}
        write(path, document, edited)
        refused += not loads_as(path)
        write(path, document, {k: v for k, v in tensors.items() if k != key})
        assert not loads_as(path)
    assert refused > 10


def test_zero_shot_classifier_must_match_the_calibrator(path):
    right = calibrated("sals")
    for zero_shot, words in (
        (None, "zero_shot_ is inconsistent"),
        (right.zero_shot_.with_classes(["ant", "bee"]), "zero_shot_ has other classes"),
    ):
        wrong = copy.copy(right)
        wrong.zero_shot_ = zero_shot
        with pytest.raises(ValueError, match=words):
            clipcal.save(wrong, path)


def entries_of(whole):
    size = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + size]), whole[8 + size :]


def with_header(path, header, data, text=None):
    text = json.dumps(header).encode() if text is None else text
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_error_for_newer_schemas_suggests_an_upgrade(path):
    _, whole = saved("temperature", path)
    header, data = entries_of(whole)
    header["__metadata__"] |= {"schema": str(SCHEMA + 1), "version": "9.1", "model": "as yet unknown"}
    with_header(path, header, data)
    with pytest.raises(ModelFileError, match=r"newer clipcal, 9\.1.*pip install --upgrade clipcal"):
        load(path)
    for schema in ("0", "-1", "1.0", "x", "", None, "9" * 5000, "\u00b2"):
        header["__metadata__"]["schema"] = schema
        with_header(path, header, data)
        assert not loads_as(path)


def test_headers_with_invalid_sizes_raise(path):
    _, whole = saved("temperature", path)
    header, data = entries_of(whole)
    for shape in ([2**62], [2**63, 0], [2**31, 2**31, 2**31], [-1], [1e9], ["4"], None, [[4]]):
        edited = copy.deepcopy(header)
        edited["classes_"]["shape"] = shape
        with_header(path, edited, data)
        assert not loads_as(path)
    for offsets in ([0, 2**62], [2**62, 2**62 + 32], [32, 0], [0], None, "x"):
        edited = copy.deepcopy(header)
        edited["classes_"]["data_offsets"] = offsets
        with_header(path, edited, data)
        assert not loads_as(path)
    for size in (2**63, 2**64 - 1, 10**8 + 1, 0, 1):
        path.write_bytes(size.to_bytes(8, "little") + whole[8:])
        assert not loads_as(path)
    text = b"[" * 100_000
    with_header(path, None, b"", text)
    assert not loads_as(path)


def test_duplicate_keys_raise(path):
    _, whole = saved("temperature", path)
    header, data = entries_of(whole)
    text = json.dumps(header)
    with_header(path, None, data, text.replace('"classes_":', '"classes_": {}, "classes_":', 1).encode())
    assert not loads_as(path)
    with_header(path, None, data, text.replace('"format":', '"format": "x", "format":').encode())
    assert not loads_as(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04}.", b"PK\x03\x04" + b"\0" * 60, b"{}", b"\0" * 4096, b" " * 99]
)
def test_other_files_raise(content, path):
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not a file of"):
        load(path)


def test_other_safetensors_files_raise(path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros((3, 3))}, path)
    with pytest.raises(ModelFileError, match="is not a file of"):
        load(path)
    save_file({"weight": np.zeros((3, 3))}, path, {"format": "pt"})
    with pytest.raises(ModelFileError, match="is not a file of"):
        load(path)


def hostile(path, change, name="tuned"):
    """Change a document by a function, write it with a valid checksum, and return the error."""
    saved(name, path)
    document, tensors = content_of(path)
    change(document["objects"])
    write(path, document, tensors)
    with pytest.raises(ModelFileError) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["os.system", "builtins.eval", "LogisticRegression", "__class__", "AnyWidthBackbone", "", None, [], 3],
)
def test_unknown_classes_raise(name, path):
    assert "names a class" in hostile(path, lambda objects: objects[-1].update({"class": name}))


@pytest.mark.parametrize(
    "name",
    ["__class__", "__dict__", "predict", "fit", "_open_backbone", "method", "x", "Learned_", "a.b_", ""],
)
def test_only_fitted_attributes_are_set(name, path):
    error = hostile(path, lambda objects: objects[-1]["fitted"].update({name: 1}))
    assert "no fitted attribute" in error


def test_error_names_unknown_parameters(path):
    assert "['colour']" in hostile(path, lambda objects: objects[-1]["params"].update(colour="red"))
    assert "['memory']" in hostile(path, lambda objects: objects[-1]["params"].update(memory="/tmp/x"))
    assert "max_epochs" in hostile(path, lambda objects: objects[-1]["params"].update(max_epochs=-5))
    assert "CoOp" in hostile(path, lambda objects: objects[0]["params"].update(n_context=0))


def test_missing_parameters_have_their_defaults(path):
    saved("tuned", path)
    document, tensors = content_of(path)
    for name in ("max_epochs", "class_names", "precision"):
        del document["objects"][-1]["params"][name]
    write(path, document, tensors)
    loaded = load(path)
    assert loaded.max_epochs == clipcal.PromptTunedCLIPClassifier().max_epochs
    assert loaded.random_state == 0


def test_arrays_used_twice_raise(path):
    def again(objects):
        objects[-1]["fitted"]["learned_"] = {
            str(i): objects[-1]["fitted"]["text_features_"] for i in range(10_000)
        }

    assert "missing or used twice" in hostile(path, again)


def test_references_to_later_objects_raise(path):
    for number in (1, 2, -1, True, "0", 1.0):
        error = hostile(path, lambda objects, n=number: objects[-1]["fitted"].update(method_={"$object": n}))
        assert "does not come before" in error


def test_deep_nesting_raises(path):
    def around(objects):
        for _ in range(5000):
            params = {"estimator": {"$object": len(objects) - 1}}
            objects.append({"class": "FrozenEstimator", "params": params})

    assert "nested too deeply" in hostile(path, around)

    def deep(objects):
        value = []
        for _ in range(100):
            value = [value]
        objects[-1]["fitted"]["history_"] = value

    assert "nested too deeply" in hostile(path, deep)


def test_arrays_that_would_broadcast_raise(path):
    saved("vector", path)
    document, tensors = content_of(path)
    n = 200_000
    tensors |= {"classes_": np.arange(n), "intercept_": np.zeros(n), "coef_": np.ones((n, 1))}
    document["objects"][-1]["fitted"]["n_features_in_"] = n
    write(path, document, tensors)
    with pytest.raises(ModelFileError, match="coef_"):
        load(path)


def test_loading_does_not_access_paths_and_backbones(path, monkeypatch):
    saved("tuned", path)
    document, tensors = content_of(path)
    document["objects"][-1]["params"]["backbone"] = "local-dir:/etc/shadow"
    write(path, document, tensors)
    loaded = clipcal.load(path)
    assert loaded.backbone == "local-dir:/etc/shadow"
    for before, after in zip(answers(tuned()), answers(loaded), strict=True):
        assert_array_equal(before, after)


def test_attributes_of_another_class_raise_or_load(path):
    saved("matrix", path)
    document, tensors = content_of(path)
    document["objects"][-1]["class"] = "VectorScaling"
    document["objects"][-1]["params"] = {}
    write(path, document, tensors)
    loads_as(path)  # either raises ModelFileError or predicts
    document["objects"][-1]["class"] = "ZeroShotCLIPClassifier"
    write(path, document, tensors)
    assert not loads_as(path)
    document["objects"][-1]["class"] = "CoOp"
    write(path, document, tensors)
    assert not loads_as(path)


def test_numbers_that_are_not_finite_are_not_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"x": math.nan}, {}, "1")
