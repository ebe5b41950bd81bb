"""Reading the tensors of OpenAI's TorchScript archives without running code from the files."""

import json
import pickle
import re
import struct
import warnings
import zipfile

import open_clip
import pytest
import torch
from tiny_clip import make_tiny_model
from torch import nn

from clipcal.backbones import _hub as hub_module
from clipcal.backbones import _registry as registry
from clipcal.backbones import open_backbone
from clipcal.backbones._hub import Hub
from clipcal.backbones._torchscript import is_torchscript, read_torchscript
from clipcal.exceptions import BackboneError, WeightsUnavailableError

TINY = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
WIDER = TINY | {"embed_dim": 96}
RESNET = TINY | {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}}
ARCHITECTURES = {
    "Tiny": TINY,
    "Tiny-quickgelu": TINY | {"quick_gelu": True},
    "Wider-quickgelu": WIDER | {"quick_gelu": True},
    "Res-quickgelu": RESNET | {"quick_gelu": True},
}


class Part(nn.Module):
    def forward(self, x):
        return x


class QuickGELU(Part):
    pass


class GELU(Part):
    pass


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def save_archive(path, state, activation=QuickGELU, numbers=True):
    """Write tensors as OpenAI did: traced, in half precision, with three constants."""
    root = Part()
    for key, tensor in state.items():
        *parents, name = key.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, Part())
            module = getattr(module, parent)
            if parent == "mlp" and activation and not hasattr(module, "gelu"):
                module.gelu = activation()
        if tensor.is_floating_point() and "running" not in name:
            module.register_parameter(name, nn.Parameter(tensor.half()))
        else:
            module.register_buffer(name, tensor)
    for name, number in {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}.items():
        if numbers:
            root.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        torch.jit.trace(root.eval(), torch.ones(1)).save(str(path))
    return path


def rewrite(source, target, change=None, compression=zipfile.ZIP_STORED, **replaced):
    """Copy an archive, replacing the content of some entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for info in old.infolist():
            content = replaced.get(info.filename.partition("/")[2].replace("data.pkl", "pickle"))
            content = old.read(info) if content is None else content
            if change is not None and info.filename.endswith("/data.pkl"):
                content = change(content)
                assert content != old.read(info)
            new.writestr(info.filename, content)
    return target


@pytest.fixture(autouse=True)
def tiny_architectures(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", {})
    real = open_clip.get_model_config
    monkeypatch.setattr(
        open_clip,
        "get_model_config",
        lambda name: json.loads(json.dumps(ARCHITECTURES.get(name))) or real(name),
    )
    monkeypatch.setattr(open_clip, "list_models", lambda: list(ARCHITECTURES))


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    return save_archive(tmp_path_factory.mktemp("openai") / "ViT-B-16.pt", make_tiny_model().state_dict())


class TestOpens:
    def test_openai_weights_are_loaded_in_float32(self, archive):
        backbone = open_backbone(f"Tiny-quickgelu:{archive}", device="cpu")
        assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
        expected = open_clip.CLIP(**TINY, quick_gelu=True).eval()
        state = make_tiny_model().state_dict()
        expected.load_state_dict({key: tensor.half().float() for key, tensor in state.items()})
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(backbone.encode_images(pixels), expected.encode_image(pixels))
        assert backbone.model.visual.preprocess_cfg["mean"] == open_clip.OPENAI_DATASET_MEAN
        assert backbone.model.visual.preprocess_cfg["std"] == open_clip.OPENAI_DATASET_STD
        assert pickle.loads(pickle.dumps(backbone)) is backbone

    def test_tensors_equal_those_of_torch_jit_load(self, archive):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = torch.jit.load(str(archive), map_location="cpu").state_dict()
        read = read_torchscript(archive)
        assert read.tensors.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(read.tensors[key], tensor)
            assert read.tensors[key].dtype == tensor.dtype
        assert read.tensors["visual.proj"].dtype == torch.float16
        assert "QuickGELU" in read.module_types

    def test_resnet_saved_on_a_gpu(self, tmp_path):
        model = open_clip.CLIP(**RESNET, quick_gelu=True)
        nn.init.uniform_(model.visual.bn1.running_mean)
        saved = save_archive(tmp_path / "cpu.pt", model.state_dict())
        location = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
        path = rewrite(saved, tmp_path / "RN50.pt", lambda data: data.replace(*location))
        backbone = open_backbone(f"Res-quickgelu:{path}", device="cpu")
        assert torch.equal(backbone.model.visual.bn1.running_mean, model.visual.bn1.running_mean)

    @pytest.mark.parametrize("quick", [True, False])
    def test_traced_model_of_open_clip(self, tmp_path, quick):
        model = (open_clip.CLIP(**TINY, quick_gelu=True) if quick else make_tiny_model()).eval()
        inputs = {"encode_image": torch.ones(1, 3, 32, 32), "encode_text": torch.ones(1, 77, dtype=torch.int)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace_module(model, inputs).save(str(tmp_path / "traced.pt"))
        right, wrong = ("Tiny-quickgelu", "Tiny") if quick else ("Tiny", "Tiny-quickgelu")
        backbone = open_backbone(f"{right}:{tmp_path / 'traced.pt'}", device="cpu")
        assert torch.equal(backbone.model.visual.proj, model.visual.proj)
        with pytest.raises(BackboneError, match=f"Use backbone='{right}:"):
            open_backbone(f"{wrong}:{tmp_path / 'traced.pt'}", device="cpu")

    def test_archive_without_activation_is_loaded_into_either_architecture(self, tmp_path):
        path = save_archive(tmp_path / "w.pt", make_tiny_model().state_dict(), activation=None, numbers=False)
        for architecture in ("Tiny", "Tiny-quickgelu"):
            assert open_backbone(f"{architecture}:{path}", device="cpu").embedding_dim == 64

    def test_archive_in_a_folder(self, archive, tmp_path):
        (tmp_path / "ViT-B-16.pt").write_bytes(archive.read_bytes())
        with pytest.raises(WeightsUnavailableError, match=r"neither.*backbone='ViT-B-16:.*ViT-B-16\.pt'"):
            open_backbone(f"local-dir:{tmp_path}", device="cpu")
        config = tmp_path / "open_clip_config.json"
        config.write_text(json.dumps({"model_cfg": TINY}))
        with pytest.raises(BackboneError, match="use the model_cfg of Tiny-quickgelu"):
            open_backbone(f"local-dir:{tmp_path}", device="cpu")
        config.write_text(json.dumps({"model_cfg": TINY | {"quick_gelu": True}}))
        in_folder = open_backbone(f"local-dir:{tmp_path}", device="cpu")
        assert in_folder.fingerprint == open_backbone(f"Tiny-quickgelu:{archive}", device="cpu").fingerprint

    def test_archive_from_a_url(self, archive, monkeypatch):
        monkeypatch.setattr(hub_module, "URL_CACHE", archive.parent)
        monkeypatch.setattr(
            open_clip,
            "get_pretrained_cfg",
            lambda *args: {"url": "https://nowhere.invalid/ViT-B-16.pt", "quick_gelu": True},
        )
        monkeypatch.setattr("clipcal.backbones._loading.download_pretrained", lambda cfg: str(archive))
        opened = open_backbone("Tiny/openai", device="cpu")
        assert opened.fingerprint == open_backbone(f"Tiny-quickgelu:{archive}", device="cpu").fingerprint

    def test_error_suggests_the_file_cached_by_clip_load(self, archive, monkeypatch):
        monkeypatch.setattr(hub_module, "URL_CACHE", archive.parent)
        monkeypatch.setattr(Hub, "failure", "No connection.")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(archive.parent))
        advice = re.escape(f"backbone='ViT-B-16-quickgelu:{archive}'")
        with pytest.raises(WeightsUnavailableError, match=f"No connection.*opened with {advice}"):
            open_backbone("ViT-B-16/openai", device="cpu")


class TestErrors:
    def test_architecture_without_quick_gelu_raises(self, archive):
        advice = re.escape(f"Use backbone='Tiny-quickgelu:{archive}'.")
        with pytest.raises(BackboneError, match=f"trained with QuickGELU.*{advice}"):
            open_backbone(f"Tiny:{archive}", device="cpu")

    def test_quick_gelu_is_inferred_from_the_constants(self, tmp_path):
        path = save_archive(tmp_path / "w.pt", make_tiny_model().state_dict(), activation=None)
        with pytest.raises(BackboneError, match="Use backbone='Tiny-quickgelu:"):
            open_backbone(f"Tiny:{path}", device="cpu")

    @pytest.mark.parametrize("architecture", ["Wider-quickgelu", "Res-quickgelu"])
    def test_other_architecture_raises(self, archive, architecture):
        before = torch.get_rng_state()
        with pytest.raises(BackboneError, match=r"another architecture\. Use backbone='Tiny-quickgelu:"):
            open_backbone(f"{architecture}:{archive}", device="cpu")
        assert torch.equal(torch.get_rng_state(), before)

    def test_model_that_is_not_a_clip_raises(self, tmp_path):
        path = save_archive(tmp_path / "m.pt", nn.Linear(3, 2).state_dict(), numbers=False)
        with pytest.raises(BackboneError, match=r"another architecture\. No architecture of open_clip has"):
            open_backbone(f"Tiny:{path}", device="cpu")

    def test_truncated_file_raises(self, archive, tmp_path):
        path = tmp_path / "ViT-B-16.pt"
        path.write_bytes(archive.read_bytes()[:-1000])
        with pytest.raises(WeightsUnavailableError, match="is damaged"):
            open_backbone(f"Tiny-quickgelu:{path}", device="cpu")

    def test_file_with_a_wrong_byte_raises(self, archive, tmp_path):
        content = bytearray(archive.read_bytes())
        with zipfile.ZipFile(archive) as opened:
            largest = max(opened.infolist(), key=lambda info: info.file_size)
        content[largest.header_offset + largest.file_size // 2] ^= 1
        path = tmp_path / "ViT-B-16.pt"
        path.write_bytes(content)
        with pytest.raises(WeightsUnavailableError, match=r"is damaged.*CRC"):
            open_backbone(f"Tiny-quickgelu:{path}", device="cpu")

    def test_compressed_tensors_raise(self, archive, tmp_path):
        path = rewrite(archive, tmp_path / "w.pt", compression=zipfile.ZIP_DEFLATED)
        with pytest.raises(WeightsUnavailableError, match="compressed"):
            open_backbone(f"Tiny-quickgelu:{path}", device="cpu")


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


FUNCTION = b"ctorch._utils\n_rebuild_tensor_v2\n"
MODULE = b"c__torch__\nModel\n"


def tensor(offset=0, size=(2,), stride=(1,), n_elements=2):
    """Pickle a tensor the way TorchScript does, in a storage of two floats."""
    storage = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(n_elements)
    arguments = b"(" + storage + b"tQ" + number(offset) + numbers(*size) + numbers(*stride) + b"\x89"
    return FUNCTION + b"(" + arguments + b"ccollections\nOrderedDict\n)RtR"


def module(value):
    return b"\x80\x02" + MODULE + b")\x81q\x00}(" + text("w") + value + b"ub."


def handmade(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/constants.pkl", pickle.dumps(()))
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", struct.pack("<2f", 1.0, 2.0))
        archive.writestr("a/code/__torch__.py", "raise SystemExit")
    return path


class TestNoCodeIsRun:
    def test_handmade_archive_is_read(self, tmp_path):
        path = handmade(tmp_path / "a.pt", module(tensor()))
        assert is_torchscript(path)
        assert read_torchscript(path).tensors["w"].tolist() == [1.0, 2.0]
        transposed = handmade(tmp_path / "b.pt", module(tensor(offset=1, size=(1, 1), stride=(1, 2))))
        assert read_torchscript(transposed).tensors["w"].tolist() == [[2.0]]

    @pytest.mark.parametrize(
        ("value", "match"),
        [
            (b"cos\nsystem\n" + b"(" + text("touch {trap}") + b"tR", "os.system"),
            (b"cbuiltins\nopen\n" + b"(" + text("{trap}") + text("w") + b"tR", "builtins.open"),
            (b"(" + text("{trap}") + text("w") + b"ibuiltins\nopen\n", "builtins.open"),
            (b"ctorch.jit._pickle\nos.system\n" + b"(" + text("touch {trap}") + b"tR", "os.system"),
            (b"ctorch.jit._pickle\nbuild_boollist\n" + b"(" + number(3) + b"tR", "not iterable"),
            (b"ctorch\nload\n" + b"(" + text("{trap}") + b"tR", "torch.load"),
            (b"c__torch__\nos.system\n" + b"(" + text("touch {trap}") + b"tR", "TypeError"),
            (FUNCTION + b"}(" + text("__defaults__") + b")ub", "it sets the state of a function"),
            (FUNCTION + b"N}(" + text("__code__") + b"Nu\x86b", "it sets the state of a function"),
            (MODULE + b"}(" + text("attributes") + b"Nub", "TypeError"),
            (b"(" + text("module") + text("os") + b"tQ", "ValueError"),
            (tensor(offset=1), "out of bounds"),
            (tensor(offset=-1), "offset"),
            (tensor(size=(1 << 20,), stride=(0,), n_elements=1 << 20), "8 bytes, not"),
            (b"h\x00", "occurs twice"),
        ],
    )
    def test_malicious_pickle_raises(self, tmp_path, value, match):
        trap = str(tmp_path / "sprung")
        # Pickled strings start with their length, so it must be updated.
        grown = re.sub(
            rb"X(.{4})([^X]*\{trap\})",
            lambda found: text(found.group(2).decode().format(trap=trap)),
            value,
            flags=re.DOTALL,
        )
        path = handmade(tmp_path / "a.pt", module(grown))
        with pytest.raises(WeightsUnavailableError, match=f"no code in it was run.*{match}"):
            open_backbone(f"Tiny:{path}", device="cpu")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize(
        "content", [b"", b".", b"\x80\x02", b"\x80\x02N.", b"no pickle", b"\x80\x02h\x07."]
    )
    def test_pickle_without_a_module_raises(self, tmp_path, content):
        path = handmade(tmp_path / "a.pt", content)
        with pytest.raises(WeightsUnavailableError, match="is damaged"):
            open_backbone(f"Tiny:{path}", device="cpu")

    def test_malicious_pickle_next_to_the_weights_raises(self, archive, tmp_path):
        trap = tmp_path / "sprung"
        path = rewrite(archive, tmp_path / "w.pt", pickle=pickle.dumps(Trap(trap), protocol=2))
        with pytest.raises(WeightsUnavailableError, match=r"it uses (_?io|builtins|__builtin__)\.open"):
            open_backbone(f"Tiny-quickgelu:{path}", device="cpu")
        assert not trap.exists()

    def test_other_pickles_in_the_archive_are_not_read(self, archive, tmp_path):
        trap = tmp_path / "sprung"
        changed = {"constants.pkl": pickle.dumps(Trap(trap))}
        path = rewrite(archive, tmp_path / "w.pt", **changed)
        assert open_backbone(f"Tiny-quickgelu:{path}", device="cpu").embedding_dim == 64
        assert not trap.exists()

    @pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.pth.tar"])
    def test_checkpoints_of_torch_save(self, tmp_path, name):
        state = make_tiny_model().state_dict()
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / name)
        assert not is_torchscript(tmp_path / name)
        backbone = open_backbone(f"Tiny:{tmp_path / name}", device="cpu")
        assert torch.equal(backbone.model.visual.proj, state["visual.proj"])
        registry._loaded.clear()
        trap = tmp_path / "sprung"
        for content in ({"state_dict": Trap(trap)}, make_tiny_model()):
            torch.save(content, tmp_path / name)
            with pytest.raises(WeightsUnavailableError, match=r"no code in it was run.*safetensors"):
                open_backbone(f"Tiny:{tmp_path / name}", device="cpu")
        (tmp_path / name).write_bytes(pickle.dumps(Trap(trap), protocol=2))
        with pytest.raises(WeightsUnavailableError, match="no code in it was run"):
            open_backbone(f"Tiny:{tmp_path / name}", device="cpu")
        assert not trap.exists()
