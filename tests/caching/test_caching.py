"""The cache returns correct rows or none, also with damaged files and concurrent or killed processes."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcal import FeatureCache
from clipcal.caching import _files, as_cache
from clipcal.caching import _table as table_module

WIDTH = 5


def key(number):
    return hashlib.sha256(str(number).encode()).digest()


def row(number):
    return np.float32(number) + np.arange(WIDTH, dtype=np.float32)


def open_table(folder, kind="images"):
    return FeatureCache(folder).table(kind, width=WIDTH, fingerprint="f", backbone="toy")


def put(table, numbers):
    table.put([key(n) for n in numbers], np.array([row(n) for n in numbers]).reshape(-1, WIDTH))


def check(table, numbers):
    """Assert that the rows found are correct, and return their numbers."""
    rows, found = table.get([key(n) for n in numbers])
    expected = np.array([row(n) for n in numbers]).reshape(-1, WIDTH)
    np.testing.assert_array_equal(rows[found], expected[found])
    assert not rows[~found].any()
    return [n for n, there in zip(numbers, found, strict=True) if there]


def shards(folder):
    return sorted(Path(folder).rglob("*.shard"))


@pytest.fixture(autouse=True)
def unwarned(monkeypatch):
    monkeypatch.setattr(_files, "_warned", set())


# Run in child processes. multiprocessing cannot import this file, so it is imported from its folder.
CHILD = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_caching import *
folder = sys.argv[1]
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code, *map(str, arguments)], stdout=subprocess.PIPE
    )


class TestTable:
    def test_put_then_get_returns_the_rows(self, tmp_path):
        table = open_table(tmp_path)
        assert table.empty
        assert check(table, [1, 2]) == []
        put(table, [1, 2, 2, 3])
        for again in (table, open_table(tmp_path)):
            assert check(again, [3, 4, 2, 2, 1]) == [3, 2, 2, 1]
            assert len(again) == 3
            assert not again.empty

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from(["put", "get", "reopen"]), st.lists(st.integers(0, 20), max_size=8)),
            max_size=25,
        ),
        st.integers(1, 5),
    )
    def test_behaves_like_a_dict(self, steps, max_small):
        before = table_module._MAX_SMALL_SHARDS
        table_module._MAX_SMALL_SHARDS = max_small
        try:
            with tempfile.TemporaryDirectory() as folder:
                table, known = open_table(folder), set()
                for what, numbers in steps:
                    if what == "put":
                        put(table, numbers)
                        known |= set(numbers)
                    elif what == "reopen":
                        table = open_table(folder)
                    assert check(table, numbers) == [n for n in numbers if n in known]
                assert len(table) == len(known)
                assert len(shards(folder)) <= max_small
        finally:
            table_module._MAX_SMALL_SHARDS = before

    def test_a_key_keeps_its_first_row(self, tmp_path):
        table = open_table(tmp_path)
        put(table, [1])
        table.put([key(1)], [row(9)])
        assert check(table, [1]) == [1]

    @pytest.mark.parametrize("tail", [b"\0", b"\0\0", b"\xff"])
    def test_trailing_bytes_of_keys_are_compared(self, tmp_path, tail):
        table = open_table(tmp_path)
        one, other = key(1)[: -len(tail)] + tail, key(1)[: -len(tail)] + b"\1" * len(tail)
        table.put([one], [row(1)])
        assert table.get([one, other])[1].tolist() == [True, False]

    def test_tables_of_different_identity_are_separate(self, tmp_path):
        cache = FeatureCache(tmp_path)
        put(open_table(tmp_path), [1])
        for changed in ({"kind": "texts"}, {"fingerprint": "g"}, {"precision": "bf16"}, {"width": 6}):
            table = cache.table(**{"kind": "images", "width": WIDTH, "fingerprint": "f"} | changed)
            assert table.empty

    def test_wrong_row_shapes_and_key_lengths_raise(self, tmp_path):
        table = open_table(tmp_path)
        with pytest.raises(ValueError, match=r"rows of shape \(1, 5\), got \(1, 4\)"):
            table.put([key(1)], np.zeros((1, 4)))
        with pytest.raises(ValueError, match=r"32 bytes, got lengths \[5\].*sha256"):
            table.get([b"short"])

    def test_putting_no_keys_writes_nothing(self, tmp_path):
        table = open_table(tmp_path)
        put(table, [])
        assert check(table, []) == []
        assert not tmp_path.joinpath("x").exists() and not list(tmp_path.iterdir())


class TestDamage:
    def test_truncated_files_are_ignored(self, tmp_path):
        put(open_table(tmp_path), range(20))
        [path] = shards(tmp_path)
        whole = path.read_bytes()
        for size in (0, 1, 70, 300, 800, len(whole) - 1):
            path.write_bytes(whole[:size])
            assert check(open_table(tmp_path), range(20)) == []
        path.write_bytes(whole + b"\0")
        assert check(open_table(tmp_path), range(20)) == []
        put(table := open_table(tmp_path), range(20))
        assert check(table, range(20)) == list(range(20))

    def test_rows_with_swapped_numbers_are_missing(self, tmp_path):
        put(open_table(tmp_path), [3])
        [path] = shards(tmp_path)
        whole = path.read_bytes()
        path.write_bytes(whole[:-8] + whole[-4:] + whole[-8:-4])
        assert check(open_table(tmp_path), [3]) == []

    def test_rows_with_a_flipped_bit_are_never_returned(self, tmp_path):
        put(open_table(tmp_path), range(20))
        [path] = shards(tmp_path)
        whole = path.read_bytes()
        chance = random.Random(0)
        for place in [*range(0, 140, 3), *(chance.randrange(len(whole)) for _ in range(150))]:
            broken = bytearray(whole)
            broken[place] ^= 1 << chance.randrange(8)
            path.write_bytes(broken)
            assert len(check(open_table(tmp_path), range(20))) >= 0

    def test_rows_overwritten_with_zeros_are_missing(self, tmp_path):
        put(open_table(tmp_path), range(1, 20))
        [path] = shards(tmp_path)
        whole = path.read_bytes()
        path.write_bytes(whole[:800] + b"\0" * (len(whole) - 800))
        assert check(open_table(tmp_path), range(1, 20)) == []

    def test_damaged_rows_can_be_rewritten_and_are_dropped_by_merges(self, tmp_path, monkeypatch):
        monkeypatch.setattr(table_module, "_MAX_SMALL_SHARDS", 2)
        put(open_table(tmp_path), [1])
        [path] = shards(tmp_path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 64
        path.write_bytes(content)
        assert check(open_table(tmp_path), [1]) == []
        for n in range(2, 5):
            put(open_table(tmp_path), [n])
        put(open_table(tmp_path), [1])
        assert check(open_table(tmp_path), range(1, 5)) == [1, 2, 3, 4]

    def test_temporary_files_are_ignored_and_removed_when_old(self, tmp_path):
        put(open_table(tmp_path), [1])
        [path] = shards(tmp_path)
        new, old = (path.with_name(f"{path.name}.{letter * 32}.tmp") for letter in "ab")
        for stray in (new, old):
            stray.write_bytes(b"half")
        os.utime(old, (0, 0))
        put(table := open_table(tmp_path), [2])
        assert new.exists() and not old.exists()
        assert check(table, [1, 2]) == [1, 2]


class TestSeveralProcesses:
    def test_concurrent_writers_of_overlapping_keys(self, tmp_path):
        code = """
first = int(sys.argv[2])
table_module._MAX_SMALL_SHARDS = 4
for n in range(first, first + 60, 3):
    put(open_table(folder), range(n, n + 3))
    assert check(open_table(folder), range(first, n + 3)) == list(range(first, n + 3))
"""
        writers = [start(code, tmp_path, first) for first in (0, 0, 30)]
        assert [writer.wait(120) for writer in writers] == [0, 0, 0]
        assert check(open_table(tmp_path), range(91)) == list(range(90))
        assert not list(tmp_path.rglob("*.tmp"))

    def test_readers_find_all_rows_during_merges(self, tmp_path):
        code = """
table_module._MAX_SMALL_SHARDS = 2
print("ready", flush=True)
for n in range(1000, 10**6):
    put(open_table(folder), [n])
"""
        put(open_table(tmp_path), range(10))
        writers = [start(code, tmp_path) for _ in range(2)]
        try:
            for writer in writers:
                writer.stdout.readline()
            table, end, n_reads = open_table(tmp_path), time.monotonic() + 3, 0
            while time.monotonic() < end:
                for reader in (table, open_table(tmp_path)):
                    assert check(reader, range(10)) == list(range(10))
                n_reads += 1
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
        assert n_reads > 10
        assert len(table) > 10

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system that can kill at once")
    def test_killed_writers_leave_completed_rows_readable(self, tmp_path):
        code = """
table_module._MAX_SMALL_SHARDS = 3
print("ready", flush=True)
for n in range(int(sys.argv[2]), 10**6, 50):
    put(open_table(folder), range(n, n + 50))
    print(n, flush=True)
"""
        chance, first = random.Random(0), 0
        for _ in range(6):
            writer = start(code, tmp_path, first)
            writer.stdout.readline()
            time.sleep(chance.uniform(0, 0.25))
            writer.send_signal(signal.SIGKILL)
            said = writer.communicate()[0].split()
            # Rows reported as written must be readable after the kill.
            first = max([first, *(int(n) + 50 for n in said)])
            assert check(open_table(tmp_path), range(first)) == list(range(first))
            check(open_table(tmp_path), range(first, first + 200))
        assert first > 0


class TestNoRoom:
    def test_unwritable_folder_warns_once(self, tmp_path, monkeypatch):
        put(open_table(tmp_path), [1])

        def refuse(*args, **kwargs):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr("clipcal._whole_file.os.replace", refuse)
        table = open_table(tmp_path)
        with pytest.warns(UserWarning, match=r"could not be cached.*Read-only.*memory=") as caught:
            put(table, [2])
            put(table, [3])
            FeatureCache(tmp_path).write_note("x", {})
        assert len(caught) == 1
        assert check(table, [1, 2]) == [1]
        assert not list(tmp_path.rglob("*.tmp"))

    def test_folder_that_cannot_be_created_warns(self, tmp_path):
        (tmp_path / "file").write_text("")
        table = open_table(tmp_path / "file" / "cache")
        with pytest.warns(UserWarning, match="could not be cached"):
            put(table, [1])
        assert check(table, [1]) == []

    def test_full_disk_warns_once_and_keeps_existing_rows(self, tmp_path):
        pytest.importorskip("resource")
        code = """
import resource, warnings
put(open_table(folder), [1])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
with warnings.catch_warnings(record=True) as caught:
    put(open_table(folder), range(100, 300))
assert len(caught) == 1, caught
assert check(open_table(folder), [1, 100]) == [1]
"""
        assert start(code, tmp_path).wait(60) == 0
        assert not list(tmp_path.rglob("*.tmp"))


class TestInfoAndClear:
    def test_damaged_label_is_skipped_and_rewritten(self, tmp_path):
        put(table := open_table(tmp_path), [1])
        label = next(tmp_path.rglob("table.json"))
        label.write_text('{"format": "clipcal features 1"}', encoding="utf-8")
        assert FeatureCache(tmp_path).info() == []
        put(table, [2])
        assert FeatureCache(tmp_path).info()[0]["n_rows"] == 2

    def test_clear_keeps_a_folder_named_like_a_shard(self, tmp_path):
        put(open_table(tmp_path), [1])
        foreign = shards(tmp_path)[0].parent / f"{'a' * 32}.shard"
        foreign.mkdir()
        FeatureCache(tmp_path).clear()
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
        assert foreign.is_dir()

    def test_info_lists_each_table(self, tmp_path):
        cache = FeatureCache(tmp_path)
        assert cache.info() == []
        put(open_table(tmp_path), [1, 2])
        put(open_table(tmp_path), [2, 3])
        put(open_table(tmp_path, "texts"), [1])
        images, texts = cache.info()
        assert texts["kind"] == "texts" and texts["n_rows"] == 1
        size = images.pop("n_bytes")
        assert size > 3 * (32 + 4 * WIDTH)
        assert images == {
            "backbone": "toy",
            "fingerprint": "f",
            "precision": "fp32",
            "kind": "images",
            "n_rows": 3,
            "width": WIDTH,
        }

    def test_clear_keeps_foreign_files(self, tmp_path):
        cache = FeatureCache(tmp_path / "cache")
        put(open_table(cache.location), [1])
        put(open_table(cache.location, "texts"), [1])
        cache.write_note("x", {"a": 1})
        assert cache.note("x") == {"a": 1}
        [mine, other] = [path for path in cache.location.iterdir() if path.is_dir()]
        others = [
            tmp_path / "beside.txt",
            cache.location / "thesis.tex",
            cache.location / "features" / "table.json",
            mine / "notes.txt",
            tmp_path / "elsewhere" / "table.json",
        ]
        for path in others:
            path.parent.mkdir(exist_ok=True)
            path.write_text("precious")
        link = cache.location / ("features-" + "0" * 64)
        link.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        cache.clear()
        assert all(path.read_text() == "precious" for path in others)
        assert not other.exists() and not shards(tmp_path) and cache.note("x") is None
        assert cache.info() == []
        cache.clear()
        FeatureCache(tmp_path / "nowhere").clear()


class TestMemoryKinds:
    def test_accepts_folders_caches_and_joblib_memory(self, tmp_path):
        for memory in (str(tmp_path), tmp_path, FeatureCache(tmp_path), joblib.Memory(tmp_path, verbose=0)):
            assert as_cache(memory).location == tmp_path
        assert as_cache(None) is None
        assert as_cache(joblib.Memory(None)) is None

    def test_other_types_raise(self):
        with pytest.raises(TypeError, match=r"got int; write memory='path"):
            as_cache(3)

    def test_repr_and_hash_depend_on_the_location_only(self, tmp_path):
        put(open_table(tmp_path), [1])
        assert repr(FeatureCache(tmp_path)) == f"FeatureCache({str(tmp_path)!r})"
        assert joblib.hash(FeatureCache(tmp_path)) == joblib.hash(FeatureCache(tmp_path))
