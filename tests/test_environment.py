"""The description of the environment, and ``clipcal info``."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import clipcal
from clipcal import _environment
from clipcal._environment import OPTIONAL_PACKAGES, PACKAGES, describe_environment, format_environment
from clipcal.backbones import resolve_device, resolve_precision
from clipcal.cli import main

ROOT = Path(__file__).parents[1]


def names_in(requirements):
    return {requirement.split(">")[0] for requirement in requirements}


def test_all_dependencies_and_extras_are_described():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(PACKAGES) == names_in(project["dependencies"])
    extras = {name: needed for name, needed in project["optional-dependencies"].items() if name != "all"}
    expected = {f"{name} [{extra}]" for extra, needed in extras.items() for name in names_in(needed)}
    assert set(OPTIONAL_PACKAGES) == expected


def test_description_of_this_environment(monkeypatch):
    import torch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("CLIPCAL_DATA", raising=False)
    described = describe_environment()
    assert described["System"]["clipcal"].startswith(f"{clipcal.__version__}, in ")
    assert described["Packages"] == {name: version(name) for name in PACKAGES}
    device = resolve_device("auto")
    assert described["Devices"]['device="auto"'] == str(device)
    assert described["Devices"]['precision="auto"'] == resolve_precision("auto", device)
    assert described["Threads"]["torch"] == str(torch.get_num_threads())
    assert described["Folders"]["CLIPCAL_DATA"] == "not set"
    assert described["Network"]["HF_HUB_OFFLINE"] == "1"


def test_missing_and_broken_packages(monkeypatch, tmp_path):
    monkeypatch.setitem(_environment.OPTIONAL_PACKAGES, "no-such-package [plot]", "no_such_package")
    for name, text in {
        "broken": "raise OSError('libbroken.so:\\n  no such file')",
        "incomplete": "import no_such_module",
        "fine": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
        monkeypatch.setitem(_environment.OPTIONAL_PACKAGES, f"{name} [plot]", name)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    described = describe_environment()["Optional packages [extra]"]
    assert described["no-such-package [plot]"] == "not installed"
    assert described["broken [plot]"] == "2.0, cannot be imported: OSError: libbroken.so: no such file"
    assert described["incomplete [plot]"].startswith(
        "2.0, cannot be imported: ModuleNotFoundError: No module"
    )
    assert described["fine [plot]"] == "2.0"
    monkeypatch.delitem(sys.modules, "fine")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pa@ss@host/x", "https://host/x"),
        ("https://user:pa/ss@host/x", "https://host/x"),
        ("https://host/x?token=secret", "https://host/x?..."),
        ("https://host:8080/x", "https://host:8080/x"),
    ],
)
def test_urls_are_shown_without_secrets(url, shown):
    assert _environment._without_secrets(f"HF_ENDPOINT {url} end") == f"HF_ENDPOINT {shown} end"


def test_users_without_a_home_folder(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(_environment.Path, "home", home)
    assert _environment._without_secrets("/srv/data") == "/srv/data"


def test_broken_torch_is_reported_with_the_rest(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from clipcal.cli import main; main(['info'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    reason = "ImportError: libcudart.so.12: cannot open shared object file"
    assert f"cannot be imported: {reason}" in run.stdout
    devices = run.stdout.partition("\nDevices\n")[2].partition("\n\n")[0]
    assert devices.split() == ["unknown", *reason.split()]
    assert "Hugging Face" not in run.stdout and "HF_HUB_OFFLINE" in run.stdout
    assert version("numpy") in run.stdout


def test_graphics_cards_are_listed(monkeypatch):
    import torch

    class Card:
        name, total_memory = "Card 9000", 3 * 2**29

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)
    devices = describe_environment()["Devices"]
    assert devices["cuda:0"] == devices["cuda:1"] == "Card 9000, 1.5 GiB"
    assert (devices['device="auto"'], devices['precision="auto"']) == ("cuda", "bf16")


def test_home_folder_and_passwords_are_not_shown(monkeypatch, tmp_path):
    home = tmp_path / "jane"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("CLIPCAL_DATA", f"{home}/data")
    monkeypatch.setenv("HF_HOME", f"{home}.old/hub")
    monkeypatch.setenv("HF_ENDPOINT", "https://jane:secret@mirror.example/hub")
    described = describe_environment()
    assert described["Folders"]["CLIPCAL_DATA"] == "~/data"
    assert described["Folders"]["checkpoint cache"] == "~/.cache/clip"
    assert described["Network"]["HF_HOME"] == f"{home}.old/hub"
    assert described["Network"]["HF_ENDPOINT"] == "https://mirror.example/hub"


def test_cached_models_are_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, files in {
        "models--org--whole--clip": ["open_clip_config.json", "open_clip_model.safetensors"],
        "models--org--half": ["open_clip_config.json"],
        "models--org--other": ["config.json", "open_clip_model.safetensors"],
        "datasets--org--data": ["open_clip_config.json", "open_clip_model.safetensors"],
    }.items():
        snapshot = tmp_path / "hub" / name / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        for file in files:
            (snapshot / file).touch()
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    for file in ("ViT-B-16.pt", "notes.txt"):
        (tmp_path / ".cache" / "clip" / file).touch()
    folders = describe_environment()["Folders"]
    assert folders["Hugging Face cache"] == str(Path("~", "hub"))
    assert folders["models in it"] == "hf-hub:org/whole--clip"
    assert folders["checkpoints in it"] == "ViT-B-16.pt"


def test_names_and_values_are_aligned():
    text = format_environment({"One": {"a": "1", "longer": "2"}, "Two": {"b": "3"}})
    assert text == "One\n  a       1\n  longer  2\n\nTwo\n  b       3"


def test_command(capsys):
    assert main(["info"]) == 0
    assert capsys.readouterr().out == format_environment(describe_environment()) + "\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["data", "--help"]])
def test_module_can_be_run(arguments, capsys):
    command = [sys.executable, "-m", "clipcal", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert (run.returncode, run.stdout) == (raised.value.code, capsys.readouterr().out)
    assert "clipcal" in run.stdout and "__main__" not in run.stdout
