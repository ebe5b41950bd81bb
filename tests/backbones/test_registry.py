"""Opening backbones by name, once per process, and the errors for invalid names."""

import json
import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from tiny_clip import make_tiny_model
from toy_backbone import AnyWidthBackbone

from clipcal.backbones import Backbone, OpenClipBackbone, open_backbone, resolve_device, resolve_precision
from clipcal.backbones import _loading as loading
from clipcal.backbones import _registry as registry
from clipcal.backbones._copies import reopen_backbone
from clipcal.backbones._hub import Hub
from clipcal.backbones._names import MINI_FOLDER, parse_name
from clipcal.exceptions import BackboneError, WeightsUnavailableError

MODEL_CFG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", {})


@pytest.fixture
def no_network(monkeypatch):
    """Make downloads fail immediately, as the hub client fails after its retries."""

    def unreachable(*args, **kwargs):
        raise FileNotFoundError("Failed to download file. Last error: no connection\nsecond line")

    monkeypatch.setattr(Hub, "failure", "")
    monkeypatch.setattr(loading, "download_pretrained", unreachable)
    monkeypatch.setattr(loading, "download_pretrained_from_hf", unreachable)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Write a local directory with weights in half precision."""
    path = tmp_path_factory.mktemp("tiny")
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    weights = {key: tensor.half().contiguous() for key, tensor in make_tiny_model().state_dict().items()}
    save_file(weights, path / "weights.safetensors")
    return path


class TestFolder:
    def test_weights_are_loaded_as_float32(self, folder):
        backbone = open_backbone(f"local-dir:{folder}", device="cpu")
        assert isinstance(backbone, OpenClipBackbone)
        assert backbone.name == f"local-dir:{folder}"
        assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
        expected = make_tiny_model().visual.conv1.weight.half().float()
        assert torch.equal(backbone.model.visual.conv1.weight, expected)
        assert backbone.model.visual.preprocess_cfg["mean"] == [0.5] * 3
        assert backbone.model.visual.preprocess_cfg["size"] in (32, (32, 32))

    def test_configuration_may_be_named_config_json(self, folder, tmp_path):
        for file in folder.iterdir():
            name = "config.json" if file.suffix == ".json" else file.name
            (tmp_path / name).write_bytes(file.read_bytes())
        opened = open_backbone(f"local-dir:{tmp_path}", device="cpu")
        assert opened.fingerprint == open_backbone(f"local-dir:{folder}", device="cpu").fingerprint

    def test_opening_does_not_change_random_state_and_loggers(self, folder):
        generator, handlers = torch.get_rng_state(), list(logging.getLogger().handlers)
        open_backbone(f"local-dir:{folder}", device="cpu")
        assert torch.equal(torch.get_rng_state(), generator)
        assert logging.getLogger().handlers == handlers

    def test_opening_prints_nothing(self, folder, capfd):
        open_backbone(f"local-dir:{folder}", device="cpu")
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("files", "match"),
        [
            (None, "no such folder"),
            ({}, "neither open_clip_config.json nor config.json"),
            ({"config.json": "{}"}, "holds no weights"),
            ({"config.json": "{}", "a.pt": "", "b.pt": ""}, "Several files.*a.pt, b.pt"),
            ({"config.json": "{}", "model.safetensors": ""}, "not an open_clip configuration"),
            ({"config.json": "no", "model.safetensors": ""}, "not an open_clip configuration"),
        ],
    )
    def test_incomplete_folder_raises(self, tmp_path, files, match):
        path = tmp_path / "model"
        if files is not None:
            path.mkdir()
            for name, content in files.items():
                (path / name).write_text(content)
        with pytest.raises(WeightsUnavailableError, match=match):
            open_backbone(f"local-dir:{path}", device="cpu")

    def test_weights_of_another_model_raise(self, folder, tmp_path):
        config = {"model_cfg": MODEL_CFG | {"embed_dim": 32}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
        with pytest.raises(WeightsUnavailableError, match=r"does not hold the tensors.*size mismatch"):
            open_backbone(f"local-dir:{tmp_path}", device="cpu")

    def test_invalid_model_configuration_raises(self, folder, tmp_path):
        config = {"model_cfg": MODEL_CFG | {"no_such_option": 1}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
        with pytest.raises(BackboneError, match=r"cannot build the model of this.*no_such_option"):
            open_backbone(f"local-dir:{tmp_path}", device="cpu")

    def test_code_in_a_pickle_is_not_run(self, folder, tmp_path):
        trap = tmp_path / "sprung"

        class Trap:
            def __reduce__(self):
                return open, (str(trap), "w")

        (tmp_path / "config.json").write_text((folder / "open_clip_config.json").read_text())
        torch.save({"state_dict": Trap()}, tmp_path / "weights.pt")
        with pytest.raises(WeightsUnavailableError, match=r"weights\.pt"):
            open_backbone(f"local-dir:{tmp_path}", device="cpu")
        assert not trap.exists()

    @pytest.mark.skipif(not (MINI_FOLDER / "weights.safetensors").exists(), reason="no packaged weights yet")
    def test_mini(self):
        backbone = open_backbone("mini", device="cpu")
        assert backbone.name == "mini"
        tokens = backbone.tokenize(["a red circle", "a blue square"])
        assert backbone.encode_text(backbone.embed_tokens(tokens), tokens).shape == (
            2,
            backbone.embedding_dim,
        )


class TestFile:
    @pytest.fixture
    def architecture(self, monkeypatch):
        monkeypatch.setattr(open_clip, "get_model_config", lambda name: MODEL_CFG if name == "Tiny" else None)
        return "Tiny"

    @pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
    def test_checkpoint_file_is_loaded(self, architecture, tmp_path, name):
        state = make_tiny_model().state_dict()
        save_file(state, tmp_path / name) if name.endswith("tensors") else torch.save(state, tmp_path / name)
        backbone = open_backbone(f"Tiny:{tmp_path / name}", device="cpu")
        assert torch.equal(backbone.model.visual.proj, make_tiny_model().visual.proj)

    def test_missing_file_raises(self, architecture, tmp_path):
        with pytest.raises(WeightsUnavailableError, match=r"no such file.*local-dir:.*backbone='mini'"):
            open_backbone(f"Tiny:{tmp_path / 'nothing.pt'}", device="cpu")

    def test_parsed_paths_are_absolute(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        assert parse_name("ViT-B-16:w.pt") == parse_name(f"ViT-B/16:{tmp_path / 'w.pt'}")


class TestTag:
    def test_openai_weights_are_used_with_quick_gelu(self, monkeypatch, tmp_path):
        weights = tmp_path / "weights.safetensors"
        save_file(make_tiny_model().state_dict(), weights)
        monkeypatch.setattr(open_clip, "get_model_config", lambda name: dict(MODEL_CFG))
        monkeypatch.setattr(Hub, "failure", "")
        monkeypatch.setattr(loading, "download_pretrained", lambda cfg: str(weights))
        quick = open_backbone("ViT-B-16/openai", device="cpu")
        plain = open_backbone("ViT-B-16/laion2b_s34b_b88k", device="cpu")
        assert any(isinstance(m, open_clip.model.QuickGELU) for m in quick.model.modules())
        assert not any(isinstance(m, open_clip.model.QuickGELU) for m in plain.model.modules())
        assert quick.model.visual.preprocess_cfg["interpolation"] == "bicubic"

    @pytest.mark.parametrize("name", ["ViT-B-16/openai", "ViT-B/16/openai", "hf-hub:org/name"])
    def test_error_without_a_network(self, no_network, name):
        with pytest.raises(WeightsUnavailableError) as caught:
            open_backbone(name, device="cpu")
        message = str(caught.value)
        for part in (repr(name), "huggingface.co", "no connection", "HF_HUB_OFFLINE", "local-dir:", "'mini'"):
            assert part in message
        assert isinstance(caught.value, (OSError, ValueError))

    @pytest.mark.parametrize(
        ("name", "match"),
        [
            ("ViT-B-16/opnai", "Did you mean 'openai'.*Tags of ViT-B-16: .*datacomp_xl"),
            ("ViT-B-16", "needs a tag.*openai"),
            ("vitb16/openai", "no architecture 'vitb16'. Did you mean 'ViT-B-16'"),
            ("minii", "Did you mean 'mini'"),
            ("something else", "Backbone names are 'mini', 'ARCHITECTURE/TAG'"),
            ("", "Backbone names are"),
            ("local-dir:", "one side of the colon"),
            (":x", "one side of the colon"),
            ("nothing:weights.pt", "no architecture 'nothing'"),
            ("roberta-ViT-B-32/laion2b_s12b_b32k", "HFTextEncoder"),
        ],
    )
    def test_invalid_name_raises(self, no_network, name, match):
        with pytest.raises(BackboneError, match=match):
            open_backbone(name, device="cpu")

    def test_error_for_hf_tokenizer_without_transformers(self, no_network, monkeypatch):
        def missing(*args, **kwargs):
            raise ModuleNotFoundError("No module named 'transformers'")

        monkeypatch.setattr(loading, "HFTokenizer", missing)
        with pytest.raises(BackboneError, match="pip install transformers"):
            loading._tokenizer("x", {"hf_tokenizer_name": "org/tokenizer"}, None, Hub())


class TestOneCopy:
    def test_one_instance_per_name_and_precision(self, folder):
        name = f"local-dir:{folder}"
        assert open_backbone(name, device="cpu") is open_backbone(
            name, device=torch.device("cpu"), precision="fp32"
        )
        assert open_backbone(name, device="cpu") is not open_backbone(name, device="cpu", precision="bf16")

    def test_one_instance_for_all_threads(self, folder):
        with ThreadPoolExecutor(4) as pool:
            opened = list(pool.map(lambda _: open_backbone(f"local-dir:{folder}", device="cpu"), range(8)))
        assert len(set(map(id, opened))) == 1

    def test_pickles_store_the_name(self, folder):
        backbone = open_backbone(f"local-dir:{folder}", device="cpu")
        data = pickle.dumps(backbone)
        assert len(data) < 1000
        assert pickle.loads(data) is backbone
        assert joblib.hash(backbone) == joblib.hash(pickle.loads(data))
        registry._loaded.clear()
        assert pickle.loads(data).fingerprint == backbone.fingerprint

    def test_unpickling_without_the_device_uses_another_one(self, folder):
        if torch.cuda.is_available():
            pytest.skip("this machine has the device")
        backbone = reopen_backbone(f"local-dir:{folder}", "cuda:0", "bf16")
        assert backbone.device == resolve_device("auto")
        assert backbone.precision == resolve_precision("auto", backbone.device)


class TestObjects:
    def test_backbone_objects_are_returned_unchanged(self, tiny_backbone):
        assert open_backbone(tiny_backbone) is tiny_backbone
        assert open_backbone(tiny_backbone, n_features=64) is tiny_backbone

    def test_other_width_raises(self, tiny_backbone):
        with pytest.raises(BackboneError, match=r"X has 10 features.*have 64"):
            open_backbone(tiny_backbone, n_features=10)

    def test_backbone_of_any_width(self):
        toy = AnyWidthBackbone()
        assert isinstance(toy, Backbone)
        assert open_backbone(toy) is toy
        assert open_backbone(toy, n_features=7).embedding_dim == 7

    @pytest.mark.parametrize("spec", [3, None, object(), AnyWidthBackbone])
    def test_other_objects_raise(self, spec):
        with pytest.raises(BackboneError, match="must be a name or an object"):
            open_backbone(spec)

    def test_error_for_an_open_clip_model(self):
        with pytest.raises(BackboneError, match="Wrap an open_clip model"):
            open_backbone(make_tiny_model())


class TestDevice:
    def test_auto_resolves_to_an_available_device(self):
        assert resolve_device("auto").type in ("cpu", "cuda", "mps")
        assert resolve_device(torch.device("cpu")) == torch.device("cpu")

    @pytest.mark.parametrize("device", ["gpu", "", 3.5, None])
    def test_invalid_device_raises(self, device):
        with pytest.raises(BackboneError, match="not a device"):
            resolve_device(device)

    def test_unavailable_device_raises(self):
        with pytest.raises(BackboneError, match=r"CUDA device.*device='auto'"):
            resolve_device("cuda:99")

    def test_resolve_precision(self):
        cpu = torch.device("cpu")
        assert resolve_precision("auto", cpu) == "fp32"
        assert resolve_precision("bf16", cpu) == "bf16"
        with pytest.raises(BackboneError, match="'auto', 'fp32', 'bf16'"):
            resolve_precision("fp16", cpu)


class TestToy:
    def test_toy_backbone_is_deterministic_differentiable_and_picklable(self):
        toy = AnyWidthBackbone(5)
        again = pickle.loads(pickle.dumps(toy))
        tokens = toy.tokenize(["a red circle.", "dog"])
        embedded = toy.embed_tokens(tokens).requires_grad_(True)
        features = toy.encode_text(embedded, tokens)
        features.sum().backward()
        assert embedded.grad[1, 3:].abs().sum() == 0
        assert torch.equal(again.encode_text(embedded, tokens), features)
        assert joblib.hash(toy) == joblib.hash(again)
        alone = toy.tokenize(["dog"])
        torch.testing.assert_close(toy.encode_text(toy.embed_tokens(alone), alone)[0], features[1])


def test_importing_backbones_does_not_load_open_clip():
    code = "import sys, clipcal.backbones; assert 'open_clip' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tokens_equal_open_clip(tiny_backbone):
    texts = ["a photo of a dog.", "Türkiye's (old) café — 3rd"]
    own = SimpleTokenizer()(texts)
    tokens = tiny_backbone.tokenize(texts)
    assert torch.equal(tokens, own[:, : tokens.shape[1]])
    assert not own[:, tokens.shape[1] :].any()
