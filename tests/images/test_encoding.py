"""The encoding pipeline: exact transforms, order, bounded memory, and caching by content."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from toy_backbone import AnyWidthBackbone

from clipcal import FeatureCache
from clipcal.exceptions import ImageReadError
from clipcal.images import _encoding, encode_images

RNG = np.random.default_rng(0)


class Watched(AnyWidthBackbone):
    """Backbone that records the encoded pixels and how many decoded images were waiting."""

    def __init__(self):
        super().__init__()
        self.pixels, self.n_decoded, self.n_encoded, self.most_ahead = [], 0, 0, 0
        self.lock = threading.Lock()

    def preprocess(self, image):
        with self.lock:
            self.n_decoded += 1
            self.most_ahead = max(self.most_ahead, self.n_decoded - self.n_encoded)
        return super().preprocess(image)

    def encode_images(self, pixels):
        time.sleep(0.002)
        self.n_encoded += len(pixels)
        self.pixels.append(pixels)
        return super().encode_images(pixels)


def write_images(folder, n, size=(16, 12)):
    paths = []
    for i in range(n):
        paths.append(folder / f"{i:04}.png")
        Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return write_images(folder, 12)


def encode(files, memory, **kwargs):
    backbone = Watched()
    return encode_images(files, backbone, memory=memory, **kwargs), backbone.n_encoded


class TestTransform:
    @pytest.mark.parametrize("size", [(224, 224), (37, 500), (500, 37), (31, 33), (640, 480)])
    @pytest.mark.parametrize(
        ("file", "mode"),
        [
            ("a.jpg", "RGB"),
            ("a.jpg", "L"),
            ("a.png", "RGB"),
            ("a.png", "L"),
            ("a.jpg", "CMYK"),
            ("a.png", "P"),
            ("a.png", "RGBA"),
        ],
    )
    def test_equals_open_clip_bitwise(self, tmp_path, monkeypatch, tiny_backbone, size, file, mode):
        image = Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
        image.convert(mode).save(tmp_path / file)
        seen = []

        def keep(pixels):
            seen.extend(pixels)
            return torch.zeros(len(pixels), tiny_backbone.embedding_dim)

        monkeypatch.setattr(tiny_backbone, "encode_images", keep)
        encode_images([tmp_path / file], tiny_backbone)
        encode_images([tmp_path / file], tiny_backbone, memory=tmp_path / "cache")
        with Image.open(tmp_path / file) as opened:
            # open_clip converts to RGB after resizing, but palette indices cannot be resized.
            given = opened if mode in ("RGB", "L") else opened.convert("RGB")
            expected = image_transform_v2(PreprocessCfg(size=32), is_train=False)(given)
        assert len(seen) == 2
        assert torch.equal(seen[0], expected) and torch.equal(seen[1], expected)


class TestPipeline:
    def test_order_is_kept_if_images_take_different_times(self, files):
        class Uneven(Watched):
            def preprocess(self, image):
                time.sleep(np.asarray(image)[0, 0, 0] % 7 / 500)
                return super().preprocess(image)

        expected = encode_images([np.asarray(Image.open(path)) for path in files], AnyWidthBackbone())
        np.testing.assert_allclose(encode_images(files, Uneven(), batch_size=5), expected, atol=1e-6)

    @pytest.mark.parametrize("memory", [False, True])
    def test_number_of_waiting_images_is_bounded(self, tmp_path, monkeypatch, memory):
        monkeypatch.setattr(_encoding, "_MAX_WAITING", 8)
        images = RNG.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
        n_threads = min(8, os.cpu_count() or 1)
        for batch_size in (4, 40):
            backbone = Watched()
            cache = tmp_path / str(batch_size) if memory else None
            encode_images(images, backbone, batch_size=batch_size, memory=cache)
            assert backbone.most_ahead <= batch_size + max(8, 2 * n_threads) + 1

    @pytest.mark.parametrize("memory", [False, True])
    def test_an_error_cancels_pending_images(self, files, tmp_path, memory):
        paths = [files[0], tmp_path / "nothing.png", *(files * 30)]
        backbone = Watched()
        with pytest.raises(ImageReadError, match=r"Image 1, '.*nothing\.png'"):
            encode_images(paths, backbone, batch_size=64, memory=tmp_path / "c" if memory else None)
        assert backbone.n_decoded < 200
        assert not [t for t in threading.enumerate() if t.name.startswith("clipcal-images")]

    def test_embeddings_computed_before_an_interruption_are_cached(self, files, tmp_path):
        class Interrupted(Watched):
            def encode_images(self, pixels):
                if self.n_encoded == 6:
                    raise KeyboardInterrupt
                return super().encode_images(pixels)

        with pytest.raises(KeyboardInterrupt):
            encode_images(files, Interrupted(), batch_size=3, memory=tmp_path / "cache")
        assert not [t for t in threading.enumerate() if t.name.startswith("clipcal-images")]
        assert encode(files, tmp_path / "cache")[1] == 6

    def test_error_for_an_unknown_format_gives_the_path(self, files, tmp_path):
        files[3].write_bytes(b"no image")
        for memory in (None, tmp_path / "cache"):
            with pytest.raises(ImageReadError, match=r"Image 3, '.*0003\.png', could not be read: Pillow"):
                encode_images(files, AnyWidthBackbone(), memory=memory)


class TestCache:
    def test_only_the_new_image_is_encoded(self, files, tmp_path):
        first, n_first = encode(files[:-1], tmp_path / "cache")
        second, n_second = encode(files[::-1], tmp_path / "cache")
        assert (n_first, n_second) == (11, 1)
        np.testing.assert_array_equal(second[:0:-1], first)
        np.testing.assert_allclose(second, encode_images(files[::-1], Watched()), atol=1e-6)

    def test_renamed_and_copied_files_are_cache_hits(self, files, tmp_path):
        expected, _ = encode(files, tmp_path / "cache")
        files[0].rename(files[0].with_name("other.jpeg"))
        copied = tmp_path / "copy.png"
        copied.write_bytes(files[1].read_bytes())
        again, n_again = encode([files[0].with_name("other.jpeg"), copied], tmp_path / "cache")
        assert n_again == 0
        np.testing.assert_array_equal(again, expected[:2])

    @pytest.mark.parametrize("n_views", [1, 3])
    def test_duplicates_are_encoded_once(self, files, tmp_path, n_views):
        twice = [files[i] for i in (0, 1, 0, 2, 1, 0)]
        kwargs = {"n_views": n_views, "random_state": 0}
        rows, n_encoded = encode(twice, tmp_path / "cache", batch_size=2, **kwargs)
        assert n_encoded == 3 * n_views
        np.testing.assert_allclose(rows, encode_images(twice, Watched(), **kwargs), atol=1e-6)
        assert encode(twice, tmp_path / "cache", **kwargs)[1] == 0

    def test_views_are_cached_separately(self, files, tmp_path):
        cache = FeatureCache(tmp_path / "cache")
        encode(files, cache)
        views, _ = encode(files, cache, n_views=2, random_state=0)
        kinds = {record["kind"]: record["width"] for record in cache.info()}
        [kind] = [kind for kind in kinds if kind.startswith("crops 2 ")]
        assert kinds == {"images": 32, kind: 64}
        subset, n_encoded = encode(files[5:], cache, n_views=2, random_state=0)
        assert n_encoded == 0
        np.testing.assert_array_equal(subset, views[5:])

    def test_a_file_that_changes_during_reading_does_not_corrupt_the_cache(
        self, files, tmp_path, monkeypatch
    ):
        encode(files[:1], tmp_path / "cache")
        expected = dict(zip(files, encode_images(files, AnyWidthBackbone()), strict=True))
        contents = {path: path.read_bytes() for path in files}

        def digest_then_change(images, i):
            digest = hashlib.sha256(Path(images[i]).read_bytes()).digest()
            if images[i] == files[1]:
                files[1].write_bytes(contents[files[2]])
            return digest

        monkeypatch.setattr(_encoding, "image_digest", digest_then_change)
        rows, _ = encode(files[:2], tmp_path / "cache")
        np.testing.assert_allclose(rows[1], expected[files[2]], atol=1e-6)
        monkeypatch.undo()
        files[1].write_bytes(contents[files[1]])
        rows, n_encoded = encode(files[:3], tmp_path / "cache")
        assert n_encoded == 1
        np.testing.assert_allclose(rows, [expected[path] for path in files[:3]], atol=1e-6)

    def test_a_cached_image_is_not_decoded(self, files, tmp_path, monkeypatch):
        encode(files, tmp_path / "cache")
        monkeypatch.setattr(Image, "open", lambda *args: pytest.fail("decoded"))
        assert encode(files, tmp_path / "cache")[1] == 0

    def test_pixels_and_files_have_different_keys(self, files, tmp_path):
        with Image.open(files[0]) as opened:
            pixels = np.asarray(opened)[np.newaxis]
        from_file, _ = encode(files[:1], tmp_path / "cache")
        from_pixels, n_encoded = encode(pixels, tmp_path / "cache")
        assert n_encoded == 1
        np.testing.assert_allclose(from_file, from_pixels, atol=1e-6)

    def test_a_long_run_writes_intermediate_results(self, files, tmp_path, monkeypatch):
        monkeypatch.setattr(_encoding, "_BLOCK", 4)
        encode(files, tmp_path / "cache", batch_size=2)
        assert len(list(tmp_path.rglob("*.shard"))) == 3
        monkeypatch.setattr(_encoding, "_BLOCK", 100)
        monkeypatch.setattr(_encoding, "_SECONDS_BETWEEN_WRITES", 0.0)
        encode(files, tmp_path / "other", batch_size=6)
        assert len(list((tmp_path / "other").rglob("*.shard"))) == 2

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="requires SIGKILL")
    def test_a_killed_run_can_be_resumed(self, files, tmp_path):
        code = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import os, signal
from clipcal.images import _encoding
from test_encoding import Watched
_encoding._BLOCK = 2
class Killed(Watched):
    def encode_images(self, pixels):
        if self.n_encoded == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_images(pixels)
paths = sorted(__import__("pathlib").Path({str(files[0].parent)!r}).iterdir())
_encoding.encode_images(paths, Killed(), batch_size=2, memory={str(tmp_path / "cache")!r})
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
        rows, n_encoded = encode(files, tmp_path / "cache")
        assert n_encoded == 4
        np.testing.assert_allclose(rows, encode_images(files, Watched()), atol=1e-6)

    def test_equal_lazy_images_in_memory_are_encoded_once(self, files, tmp_path):
        content = files[0].read_bytes()
        images = [Image.open(io.BytesIO(content)) for _ in range(4)]
        rows, n_encoded = encode(images, tmp_path / "cache")
        assert n_encoded == 1
        assert (rows == rows[0]).all()
