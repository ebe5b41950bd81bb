"""Paths, permissions and atomic writes of saved files."""

import os
import subprocess
import sys

import numpy as np
import pytest
from saved_models import fitted_calibrator

import clipcal
from clipcal.calibration import CALIBRATORS, TemperatureScaling
from clipcal.exceptions import ModelFileError


@pytest.fixture
def scaling():
    return TemperatureScaling().fit([[4.0, 0.0]] * 4, ["cat", "cat", "cat", "dog"])


def test_relative_paths(scaling, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    clipcal.save(scaling, "models/m")
    monkeypatch.chdir(tmp_path / "models")
    assert clipcal.load("m").temperature_ == scaling.temperature_
    clipcal.save(scaling, "n")
    assert sorted(os.listdir()) == ["m", "n"]


def test_file_can_be_loaded_in_another_process(scaling, tmp_path):
    clipcal.save(scaling, tmp_path / "m")
    code = f"import clipcal; print(clipcal.load({str(tmp_path / 'm')!r}).calibrate([[2.0, 0.5]]).tolist())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert eval(run.stdout) == scaling.calibrate([[2.0, 0.5]]).tolist()


def test_unreadable_files_raise_the_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        clipcal.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        clipcal.load(tmp_path)
    closed = tmp_path / "closed"
    closed.write_bytes(b"x" * 100)
    closed.chmod(0)
    # The superuser can read any file.
    with pytest.raises(ModelFileError if os.access(closed, os.R_OK) else PermissionError):
        clipcal.load(closed)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_raise_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ModelFileError, match="is not a regular file"):
            clipcal.load(path)


def test_invalid_paths_raise(scaling, tmp_path, monkeypatch):
    with pytest.raises(IsADirectoryError, match="add the name of a file"):
        clipcal.save(scaling, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"create it first.*missing"):
        clipcal.save(scaling, tmp_path / "missing" / "m")
    (tmp_path / "closed").mkdir(mode=0o500)
    if not os.access(tmp_path / "closed", os.W_OK):
        with pytest.raises(PermissionError):
            clipcal.save(scaling, tmp_path / "closed" / "m")
    assert os.listdir(tmp_path) == ["closed"] and not os.listdir(tmp_path / "closed")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file_and_leaves_no_other(failing, scaling, tmp_path, monkeypatch):
    clipcal.save(scaling, tmp_path / "m")
    before = (tmp_path / "m").read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        clipcal.save(TemperatureScaling().fit([[3.0, 0.0]] * 3, [0, 0, 1]), tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"] and (tmp_path / "m").read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such mode bits")
def test_a_replaced_file_keeps_its_permissions(scaling, tmp_path):
    clipcal.save(scaling, tmp_path / "m")
    (tmp_path / "m").chmod(0o600)
    clipcal.save(scaling, tmp_path / "m")
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o600


def test_swapped_arguments_are_explained(scaling, tmp_path):
    with pytest.raises(
        TypeError, match=r"first argument is the estimator, got .*clipcal\.save\(estimator, path\)"
    ):
        clipcal.save(str(tmp_path / "m"), scaling)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_mode_bits_follow_the_umask(umask, scaling, tmp_path):
    before = os.umask(umask)
    try:
        clipcal.save(scaling, tmp_path / "m")
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o666 & ~umask


def test_link_is_kept_and_its_target_replaced(scaling, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "m")
    clipcal.save(scaling, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert clipcal.load(tmp_path / "real" / "m").temperature_ == scaling.temperature_


KILL_AT = """
import builtins, os, signal, sys
import clipcal
from clipcal import _whole_file

path = sys.argv[1]
model = clipcal.load(path + ".new")
n_bytes = os.path.getsize(path + ".new")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Partial:
    def __init__(self, file, n):
        self.file, self.n = file, n
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.file.close()
    def write(self, data):
        self.file.write(data[:self.n])
        self.file.flush()
        die()

def before(function):
    return lambda *args: die()

def after(function):
    def run(*args):
        function(*args)
        die()
    return run

for moment in range(20):
    child = os.fork()
    if not child:
        if moment < 16:
            _whole_file.open = lambda *args: Partial(builtins.open(*args), moment * n_bytes // 15)
        else:
            stages = [("fsync", before), ("fsync", after), ("replace", before), ("replace", after)]
            name, wrap = stages[moment - 16]
            setattr(os, name, wrap(getattr(os, name)))
        clipcal.save(model, path)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with builtins.open(path, "rb") as file, builtins.open(f"{path}.after{moment}", "wb") as copy:
        copy.write(file.read())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_process_killed_at_each_stage_of_a_write_leaves_the_old_or_the_new_file(scaling, tmp_path):
    path = tmp_path / "m"
    clipcal.save(scaling, path)
    old = path.read_bytes()
    scaling.temperature_ *= 2
    clipcal.save(scaling, tmp_path / "m.new")
    new = (tmp_path / "m.new").read_bytes()
    run = subprocess.run([sys.executable, "-c", KILL_AT, str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = [(tmp_path / f"m.after{moment}").read_bytes() for moment in range(20)]
    assert found == [old] * 19 + [new]
    # Each kill but the last left an incomplete file under a temporary name, which is never loaded.
    assert len(list(tmp_path.glob("m.*.tmp"))) == 19


KILL = """
import os, signal, sys, time
import clipcal

path = sys.argv[1]
small, large = clipcal.load(path + ".small"), clipcal.load(path + ".large")
for moment in range(20):
    child = os.fork()
    while not child:
        clipcal.save(small, path)
        clipcal.save(large, path)
    time.sleep(0.003 * (1 + moment))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(path, "rb") as file, open(f"{path}.after{moment}", "wb") as copy:
        copy.write(file.read())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_process_leaves_the_old_or_the_new_file(tmp_path):
    path = tmp_path / "m"
    small = fitted_calibrator(CALIBRATORS["density-ratio"])
    large = fitted_calibrator(CALIBRATORS["density-ratio"])
    for name in ("right", "wrong"):  # some MB, so that a kill can happen during the write
        for part in ("rows", "weight"):
            setattr(large, f"{name}_{part}_", np.repeat(getattr(large, f"{name}_{part}_"), 1000, axis=0))
    known = {}
    for name, model in (("small", small), ("large", large)):
        clipcal.save(model, tmp_path / f"m.{name}")
        known[(tmp_path / f"m.{name}").read_bytes()] = name
    clipcal.save(small, path)
    run = subprocess.run([sys.executable, "-c", KILL, str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = [known.get((tmp_path / f"m.after{moment}").read_bytes(), "neither") for moment in range(20)]
    assert set(found) <= {"small", "large"}
