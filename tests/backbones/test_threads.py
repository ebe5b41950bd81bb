"""The number of threads depends on the work, and the caller's setting is restored."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_clip import make_tiny_model

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.backbones import OpenClipBackbone, _threads, encode_fixed, open_backbone
from clipcal.backbones._threads import image_product, join_parts, limit_threads, product_size, threads_for
from clipcal.training import _loop

SMALL, LARGE = 2**20, 2**40


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    """Simulate a machine with four cores, and restore the number of threads after each test."""
    monkeypatch.setattr(_threads, "cpu_count", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def in_new_thread(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@pytest.mark.parametrize(
    ("work", "expected"),
    [(0, 1), (2**25 - 1, 1), (2**25, 4), (LARGE, 4), (float("inf"), 4)],
)
def test_small_work_uses_one_thread_and_large_work_all(work, expected):
    with threads_for(work):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 4


def test_number_of_threads_grows_with_the_work_on_many_cores(monkeypatch):
    monkeypatch.setattr(_threads, "cpu_count", lambda: 64)
    torch.set_num_threads(64)
    with threads_for(2**25):
        assert torch.get_num_threads() == 8
    with threads_for(2**28):
        assert torch.get_num_threads() == 64


def test_threads_are_limited_to_the_available_cores(monkeypatch):
    monkeypatch.setattr(_threads, "cpu_count", lambda: 2)
    with threads_for(LARGE):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("own", [1, 2, 3])
def test_lower_number_set_by_the_caller_is_kept(own):
    torch.set_num_threads(own)
    with threads_for(LARGE):
        assert torch.get_num_threads() == own
    assert torch.get_num_threads() == own


def test_nested_limits():
    with limit_threads(2):
        with threads_for(SMALL):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with threads_for(LARGE):
            assert torch.get_num_threads() == 2


def test_number_of_threads_is_restored_after_an_error():
    with pytest.raises(KeyError), threads_for(SMALL):
        raise KeyError
    assert torch.get_num_threads() == 4


def test_only_the_calling_thread_is_limited():
    inside, seen = threading.Event(), threading.Event()

    def other():
        with threads_for(SMALL):
            inside.set()
            seen.wait(10)
            return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        limited = pool.submit(other)
        assert inside.wait(10)
        assert torch.get_num_threads() == 4
        # Threads that start during or after the limit are not limited either.
        assert in_new_thread(torch.get_num_threads) == 4
        seen.set()
        assert limited.result() == 1
    assert in_new_thread(torch.get_num_threads) == 4


def test_concurrent_limits_restore_the_number_of_threads():
    def limited(_):
        found = []
        for _ in range(5):
            with threads_for(SMALL):
                found.append(torch.get_num_threads())
            found.append(torch.get_num_threads())
        return found

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(limited, range(8)):
            assert found == [1, 4] * 5
    assert torch.get_num_threads() == 4
    assert in_new_thread(torch.get_num_threads) == 4


class TestParts:
    def test_rows_are_distributed_over_threads_and_returned_in_order(self):
        calls = []

        def encode(rows):
            calls.append((rows, threading.get_ident(), torch.get_num_threads()))
            return torch.arange(100)[rows]

        assert join_parts(encode, [1] * 100, SMALL).tolist() == list(range(100))
        assert sorted(rows.start for rows, _, _ in calls) == [0, 25, 50, 75]
        assert sorted(rows.stop for rows, _, _ in calls) == [25, 50, 75, 100]
        assert {n_threads for _, _, n_threads in calls} == {1}
        assert threading.get_ident() in {ident for _, ident, _ in calls}

    def test_parts_have_equal_costs(self):
        calls = []
        costs = [50] + [1] * 50

        def encode(rows):
            calls.append(sum(costs[rows]))
            return torch.zeros(rows.stop - rows.start)

        torch.set_num_threads(2)
        assert len(join_parts(encode, costs, SMALL)) == 51
        assert sorted(calls) == [50, 50]

    @pytest.mark.parametrize(("n_rows", "work"), [(100, LARGE), (7, SMALL), (0, 0), (1, LARGE)])
    def test_large_work_or_few_rows_are_not_split(self, n_rows, work):
        calls = []

        def encode(rows):
            calls.append(threading.get_ident())
            return torch.arange(n_rows)[rows]

        assert join_parts(encode, [1] * n_rows, work).tolist() == list(range(n_rows))
        assert calls == [threading.get_ident()]

    def test_an_error_in_a_part_is_raised(self):
        def encode(rows):
            if rows.start:
                raise MemoryError("no room")
            return torch.zeros(3)

        with pytest.raises(MemoryError, match="no room"):
            join_parts(encode, [1] * 100, SMALL)
        assert torch.get_num_threads() == 4


class TestBackbone:
    @pytest.fixture
    def backbone(self):
        return OpenClipBackbone(make_tiny_model(), open_clip.SimpleTokenizer(), device="cpu")

    def test_splitting_does_not_change_image_embeddings(self, backbone):
        size = backbone.model.visual.image_size[0]
        pixels = torch.randn(37, 3, size, size, generator=torch.Generator().manual_seed(0))
        in_parts = backbone.encode_images(pixels)
        torch.set_num_threads(1)
        torch.testing.assert_close(in_parts, backbone.encode_images(pixels), rtol=1e-5, atol=1e-6)
        assert not in_parts.requires_grad

    def test_splitting_does_not_change_text_features(self):
        names = [f"{word} {number}" for number in range(20) for word in ("dog", "a red panda cub", "x")]
        clf = ZeroShotCLIPClassifier("mini", device="cpu")
        X = np.zeros((60, 128)) + 1
        in_parts = clf.fit(X, names).text_features_
        torch.set_num_threads(1)
        np.testing.assert_allclose(in_parts, clf.fit(X, names).text_features_, atol=1e-6)

    def test_inference_mode_and_autocast_of_the_caller_do_not_change_features(self, backbone):
        tokens = backbone.tokenize([f"name {i}." for i in range(40)])
        with torch.no_grad():
            expected = encode_fixed(backbone, tokens)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(encode_fixed(backbone, tokens), expected)

    def test_image_product_is_finite_for_a_vit_only(self):
        visual = open_backbone("mini", device="cpu").model.visual
        assert image_product(visual, 64) == product_size(64 * 17, 128) == 4 * 64 * 17 * 128**2
        assert image_product(torch.nn.Conv2d(3, 4, 1), 64) == float("inf")


def test_small_fit_uses_one_thread_and_restores_the_number_of_threads(monkeypatch):
    seen = []
    original = _loop._encode

    def spied(*args):
        seen.append(torch.get_num_threads())
        return original(*args)

    monkeypatch.setattr(_loop, "_encode", spied)
    X = np.random.default_rng(0).standard_normal((8, 128))
    PromptTunedCLIPClassifier("mini", max_epochs=2, device="cpu").fit(X, ["ant", "bee"] * 4)
    assert seen == [1, 1]
    assert torch.get_num_threads() == 4


def test_threads_that_decode_images_use_one_torch_thread_each(monkeypatch, tmp_path):
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (40, 40), (number, 0, 0)).save(paths[-1])
    backbone = open_backbone("mini", device="cpu")
    seen = []
    original = type(backbone).preprocess

    def spied(self, image):
        if threading.current_thread().name.startswith("clipcal-images"):
            seen.append(torch.get_num_threads())
        return original(self, image)

    monkeypatch.setattr(type(backbone), "preprocess", spied)
    CLIPImageEncoder(backbone).transform(paths)
    assert seen == [1] * 6


def test_omp_num_threads_is_respected():
    code = (
        "import json, torch; from clipcal.backbones._threads import threads_for, usable_threads\n"
        "with threads_for(2**40): inside = torch.get_num_threads()\n"
        "print(json.dumps([usable_threads(), inside, torch.get_num_threads()]))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    output = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert json.loads(output.stdout) == [1, 1, 1]
