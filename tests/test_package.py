"""The files, the metadata and the installation of the wheel."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytest.importorskip("build")
pytest.importorskip("hatchling")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MAX_BYTES = 25 * 10**6


def run(*command, cwd, **options):
    # The checkout must not be found, neither by PYTHONPATH nor as the current folder.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(part) for part in command]
    done = subprocess.run(
        command, cwd=cwd, env=environment | options, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("requires a git checkout")
    return run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]


@pytest.fixture(scope="module")
def built(tracked, tmp_path_factory):
    """Build the source distribution from a copy of the tracked files, and the wheel from the former."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return source, sdist, wheel


def test_wheel_contains_the_package_and_its_licenses_only(built, tracked):
    with zipfile.ZipFile(built[2]) as archive:
        names = {info.filename: info.file_size for info in archive.infolist()}
    own = {name for name in names if ".dist-info/" not in name}
    assert own == {name for name in tracked if name.startswith("clipcal/")}
    assert {
        "clipcal/py.typed",
        "clipcal/backbones/mini/weights.safetensors",
        "clipcal/text/wordnet_nouns.txt.xz",
        "clipcal/benchmark/report_page/template.html",
    } <= own
    assert {re.sub(r"^[^/]*\.dist-info/", "", name) for name in names.keys() - own} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "licenses/clipcal/text/WORDNET_LICENSE.txt",
    }
    assert built[2].stat().st_size < MAX_BYTES


def test_wheels_of_the_source_distribution_and_of_the_checkout_are_equal(built, tmp_path):
    source, _, wheel = built
    run(
        sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, source, cwd=tmp_path
    )
    (direct,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(direct) as first, zipfile.ZipFile(wheel) as second:
        sums = [{info.filename: info.CRC for info in archive.infolist()} for archive in (first, second)]
    assert sums[0] == sums[1]


def test_source_distribution_contains_package_tests_and_pages(built, tracked):
    with tarfile.open(built[1]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    folders = ("clipcal/", "tests/", "examples/", "docs/")
    files = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", ".gitignore"}
    expected = files | {name for name in tracked if name.startswith(folders)}
    assert names == expected | {"PKG-INFO"}
    assert built[1].stat().st_size < MAX_BYTES


def test_metadata(built):
    with zipfile.ZipFile(built[2]) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (metadata["Name"], metadata["Version"]) == ("clipcal", project["version"])
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    required = [
        text.partition(";")[0].strip() for text in metadata.get_all("Requires-Dist") if ";" not in text
    ]
    # The builder sorts the bounds of a requirement, and normalizes names.
    parts = [sorted(re.split(r"(?=[<>])|,", text.lower().replace("_", "-"))) for text in required]
    expected = [
        sorted(re.split(r"(?=[<>])|,", text.lower().replace("_", "-"))) for text in project["dependencies"]
    ]
    assert sorted(parts) == sorted(expected)
    assert scripts.split() == ["[console_scripts]", "clipcal", "=", "clipcal.cli:main"]


FIT = """
import clipcal
from clipcal import PromptTunedCLIPClassifier, make_shapes
X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
clf = PromptTunedCLIPClassifier("mini", max_epochs=1, device="cpu", random_state=0).fit(X, y)
clipcal.save(clf, "model.clipcal")
print(clipcal.__file__)
print((clipcal.load("model.clipcal").predict(X) == clf.predict(X)).all())
"""


def test_installed_wheel_runs(built, tmp_path):
    pytest.importorskip("pip")
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", target, built[2]]
    run(sys.executable, "-m", "pip", *install, cwd=elsewhere)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shown = run(sys.executable, "-m", "clipcal", "--version", cwd=elsewhere, PYTHONPATH=str(target))
    assert shown == f"clipcal {project['version']}\n"
    path, same = run(sys.executable, "-c", FIT, cwd=elsewhere, PYTHONPATH=str(target)).split()
    assert Path(path) == target / "clipcal" / "__init__.py"
    assert same == "True"
