"""The script that measures the encoding into shards, on few images."""

import argparse

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def shards(speed_scripts):
    pytest.importorskip("pyarrow")
    return speed_scripts("shards")


@pytest.fixture
def arguments():
    return argparse.Namespace(
        backbone="mini", images=50, compared=20, distinct=8, size=32, shard_size=16, rounds=1, watch=None
    )


def test_files_repeat_the_images(shards, arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_PER_FOLDER", 16)
    paths = shards.write_files(tmp_path, arguments, "png", 50)
    assert [path.parent.name for path in (paths[0], paths[15], paths[16], paths[49])] == [
        "0000",
        "0000",
        "0001",
        "0003",
    ]
    assert paths == sorted(tmp_path.rglob("*.png"))
    for i in (0, 8, 49):
        with Image.open(paths[i]) as image:
            np.testing.assert_array_equal(np.asarray(image), shards.pixels(arguments)[i % 8])


@pytest.mark.slow
def test_records(shards, arguments, tmp_path):
    records = shards.compared(arguments, tmp_path)
    assert records[0]["who"] == "arrays"
    assert records[0]["ratio"] == 1
    assert {record["images"] for record in records} == {20}
    shards.write_files(tmp_path / "all", arguments, "png", 50)
    arguments.watch = tmp_path / "all"
    record = shards.watched(arguments)
    assert record["images"] == 50
    assert 0 < record["start_mib"] <= record["peak_mib"]
    assert record["growth_mib"] <= record["peak_mib"] - record["start_mib"]
