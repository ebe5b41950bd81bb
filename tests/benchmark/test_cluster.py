"""Plans on a dask cluster: a scheduler and two workers, each a process of its own, on loopback."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from mini_plan import content_of, kill_or_double, plan

from clipcal.benchmark import DaskEngine, run_plan
from clipcal.cli import main

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Cluster:
    """A scheduler, and workers that may be killed."""

    def __init__(self, folder):
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.processes = [self._start("dask_scheduler", f"--host={self.address}", "--dashboard-address=:0")]
        self.workers = [self.add_worker() for _ in range(2)]

    def _start(self, module, *arguments):
        environment = {
            **os.environ,
            "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
        with open(self.folder / f"{module}.log", "ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder)

    def add_worker(self):
        # Without a nanny, so that a killed worker stays dead.
        arguments = ("--nthreads=1", "--no-nanny", "--no-dashboard", "--resources=GPU=1")
        process = self._start("dask_worker", self.address, *arguments)
        self.processes.append(process)
        return process

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


@pytest.fixture
def doomed_cluster(tmp_path):
    """Return a cluster of its own for a test that kills workers."""
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    results = tmp_path_factory.mktemp("local")
    run_plan(plan(), results)
    return content_of(results)


def test_cluster_gives_the_same_bytes(cluster, expected, tmp_path):
    with closing(DaskEngine.connect(cluster.address, resources={"GPU": 1})) as engine:
        summary = run_plan(plan(), tmp_path / "results", engine=engine)
    assert not summary.failed and summary.n_left == 0
    assert content_of(tmp_path / "results") == expected


def test_killed_worker_costs_only_its_running_fits(doomed_cluster, expected, tmp_path):
    results = tmp_path / "results"

    def kill_when_some_are_done():
        while not any((results / "cells").glob("*.json")):
            time.sleep(0.05)
        doomed_cluster.workers[0].send_signal(signal.SIGKILL)

    threading.Thread(target=kill_when_some_are_done, daemon=True).start()
    with closing(DaskEngine.connect(doomed_cluster.address)) as engine:
        summary = run_plan(plan(), results, engine=engine)
    assert doomed_cluster.workers[0].wait(timeout=10) == -signal.SIGKILL
    assert not summary.failed and summary.n_left == 0
    assert content_of(results) == expected


def test_fit_that_kills_every_worker_fails_and_the_run_ends(doomed_cluster):
    with closing(DaskEngine.connect(doomed_cluster.address)) as engine:
        engine._client.run_on_scheduler(_allow_no_failure)
        positions = dict(engine.run(kill_or_double, [(1,), (0,), (3,)]))
    assert positions[0] == 2 and positions[2] == 6
    assert type(positions[1]).__name__ == "KilledWorker"


def _allow_no_failure(dask_scheduler):
    dask_scheduler.allowed_failures = 0


def test_command_line_runs_on_the_cluster(cluster, tmp_path, capsys):
    path = tmp_path / "plan.toml"
    path.write_text(
        'name = "trial"\nbackbone = "mini"\ndatasets = ["mini/shapes-studio"]\nmethods = ["zero-shot"]\n'
    )
    out = str(tmp_path / "results")
    command = ["bench", str(path), "--out", out, "-q", "--backend", "dask", "--scheduler", cluster.address]
    assert main(command) == 0
    assert "2 were completed now" in capsys.readouterr().out


def test_missing_resources_and_schedulers_are_told(cluster, monkeypatch):
    with pytest.raises(ValueError, match=re.escape("No worker has the resources TPU=1")):
        DaskEngine.connect(cluster.address, resources={"TPU": 1})
    monkeypatch.setattr("clipcal.benchmark._engines._CONNECT_SECONDS", 1)
    with pytest.raises(ValueError, match="No dask scheduler with a worker answers"):
        DaskEngine.connect(f"tcp://127.0.0.1:{free_port()}")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="add --scheduler"):
        DaskEngine.connect()
