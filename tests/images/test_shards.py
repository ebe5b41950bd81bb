"""Embeddings in shards: layout, resumption after any interruption, parts, and unreadable images."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from toy_backbone import AnyWidthBackbone

from clipcal import CLIPImageEncoder
from clipcal._whole_file import write_whole
from clipcal.exceptions import ImageReadError
from clipcal.images import ImagePaths, LazyImages, _shard_folder, load_embeddings

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (11, 16, 12, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path):
    pytest.importorskip("pyarrow")
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return ImagePaths([f"{i:02}.png" for i in range(len(PIXELS))], root=folder)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def encoder(**kwargs):
    return CLIPImageEncoder(AnyWidthBackbone(), batch_size=3, **kwargs)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def n_complete(folder):
    return len(list((folder / "shards").glob("*.json")))


def expected(positions=slice(None)):
    return encoder().transform(PIXELS[positions])


class TestLayout:
    def test_files(self, files, out):
        encoder().encode_to(files, out, shard_size=4)
        assert sorted(content(out)) == [
            *(f"img_emb/img_emb_0000{i}.npy" for i in range(3)),
            "manifest.json",
            *(f"metadata/metadata_0000{i}.parquet" for i in range(3)),
            *(f"shards/0000{i}.json" for i in range(3)),
        ]
        rows = [np.load(out / f"img_emb/img_emb_0000{i}.npy") for i in range(3)]
        assert [len(part) for part in rows] == [4, 4, 3]
        np.testing.assert_allclose(np.concatenate(rows), expected(), atol=1e-6)

    def test_metadata_has_the_columns_of_clip_retrieval(self, files, out):
        encoder().encode_to(files, out, shard_size=4)
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(out / "metadata/metadata_00001.parquet").to_pydict()
        assert table == {"image_path": ["04.png", "05.png", "06.png", "07.png"], "position": [4, 5, 6, 7]}

    def test_header_that_embedding_reader_parses(self, out):
        # That reader searches the first line of the file for these texts.
        encoder().encode_to(PIXELS, out, dtype="float16")
        first = (out / "img_emb/img_emb_00000.npy").read_bytes().split(b"\n")[0]
        width = AnyWidthBackbone().embedding_dim
        assert b"'shape': (11, %d)" % width in first
        assert b"'descr': '<f2'" in first

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_embedding_reader(self, files, out, dtype):
        embedding_reader = pytest.importorskip("embedding_reader")
        encoder().encode_to(files, out, shard_size=4, dtype=dtype)
        reader = embedding_reader.EmbeddingReader(
            embeddings_folder=str(out / "img_emb"),
            metadata_folder=str(out / "metadata"),
            meta_columns=["image_path"],
            file_format="parquet_npy",
        )
        batches, tables = zip(*reader(batch_size=3, show_progress=False), strict=True)
        data = load_embeddings(out)
        assert (np.concatenate(batches) == data.embeddings).all()
        assert [path for table in tables for path in table["image_path"]] == data.paths

    def test_float16_is_rounded_once(self, out):
        encoder().encode_to(PIXELS, out, dtype="float16")
        rows = load_embeddings(out).embeddings
        assert rows.dtype == np.float32
        assert (rows == expected().astype(np.float16)).all()

    def test_manifest(self, out):
        encoder(normalize=False).encode_to(PIXELS, out, shard_size=4)
        manifest = json.loads((out / "manifest.json").read_text())
        backbone = AnyWidthBackbone()
        assert manifest == {
            "format": "clipcal shards 1",
            "backbone": backbone.name,
            "fingerprint": backbone.fingerprint,
            "precision": "fp32",
            "normalize": False,
            "dimension": backbone.embedding_dim,
            "dtype": "float32",
            "shard_size": 4,
            "paths": False,
        }
        np.testing.assert_allclose(
            load_embeddings(out).embeddings, encoder(normalize=False).transform(PIXELS), atol=1e-6
        )


class TestInputs:
    @pytest.mark.parametrize(
        "images",
        [
            lambda: PIXELS,
            lambda: list(PIXELS),
            lambda: [Image.fromarray(pixels) for pixels in PIXELS],
            lambda: iter(PIXELS),
            lambda: (Image.fromarray(pixels) for pixels in PIXELS),
            lambda: LazyImages(PIXELS),
        ],
        ids=["array", "list", "pil", "iterator", "generator", "lazy"],
    )
    @pytest.mark.parametrize("shard_size", [1, 4, 11, 100])
    def test_images_in_memory_need_no_metadata(self, out, images, shard_size):
        encoder().encode_to(images(), out, shard_size=shard_size)
        data = load_embeddings(out)
        np.testing.assert_allclose(data.embeddings, expected(), atol=1e-6)
        assert data.paths is None
        assert data.positions.tolist() == list(range(11))
        assert not (out / "metadata").exists()

    def test_paths(self, files, out, tmp_path):
        given = [str(path) for path in files]
        for name, images in {"list": given, "generator": iter(given), "paths": list(files)}.items():
            encoder().encode_to(images, tmp_path / name, shard_size=4)
            assert load_embeddings(tmp_path / name).paths == given
        encoder().encode_to(files, out, shard_size=4)
        assert load_embeddings(out).paths == list(files.paths)

    def test_iterator_is_read_one_shard_ahead_at_most(self, out):
        taken = []

        def images():
            for i in range(100):
                if i >= 8:  # the third shard and the image after it
                    assert (out / f"shards/{(i - 1) // 4 - 1:05}.json").exists()
                taken.append(i)
                yield PIXELS[i % 11]

        encoder().encode_to(images(), out, shard_size=4)
        assert len(taken) == len(load_embeddings(out).embeddings) == 100

    @pytest.mark.skipif(sys.platform != "linux", reason="other file systems need names in Unicode")
    def test_name_that_is_not_unicode(self, files, out):
        name = os.fsdecode(b"caf\xe9.png")
        os.rename(os.path.join(files.root, "01.png"), os.path.join(files.root, name))
        renamed = ImagePaths([name if path == "01.png" else path for path in files.paths], root=files.root)
        encoder().encode_to(renamed, out)
        data = load_embeddings(out)
        assert data.paths[1] == "caf\\udce9.png"
        np.testing.assert_allclose(data.embeddings, expected(), atol=1e-6)

    def test_memory_is_used(self, files, out, tmp_path):
        backbone = AnyWidthBackbone()
        CLIPImageEncoder(backbone, memory=tmp_path / "cache").transform(files)
        backbone.encode_images = lambda pixels: pytest.fail("encoded")
        CLIPImageEncoder(backbone, memory=tmp_path / "cache").encode_to(files, out, shard_size=4)
        np.testing.assert_allclose(load_embeddings(out).embeddings, expected(), atol=1e-6)

    def test_kinds_are_not_mixed_in_an_iterator(self, out):
        with pytest.raises(TypeError, match=r"X mixes arrays .* PIL images"):
            encoder().encode_to(iter([*PIXELS[:4], Image.fromarray(PIXELS[4])]), out, shard_size=4)

    @pytest.mark.parametrize("images", [[], iter([])], ids=["list", "iterator"])
    def test_empty(self, out, images):
        with pytest.raises(ValueError, match="empty"):
            encoder().encode_to(images, out)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"shard_size": 0}, "shard_size"),
            ({"shard_size": 2.5}, "shard_size"),
            ({"dtype": "float64"}, "float16"),
            ({"part": (2, 2)}, r"part.*\(0, 4\)"),
            ({"part": 3}, "part"),
            ({"part": ("0", "4")}, "two integers"),
            ({"on_error": "ignore"}, "skip"),
        ],
    )
    def test_invalid_arguments(self, out, arguments, words):
        with pytest.raises(ValueError, match=words):
            encoder().encode_to(PIXELS, out, **arguments)
        assert not out.exists()

    def test_numbers_are_refused(self, out):
        with pytest.raises(ValueError, match="Expected images"):
            encoder().encode_to(np.zeros((4, 8)), out)

    def test_paths_without_pyarrow(self, out, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
        with pytest.raises(ImportError, match=r"clipcal\[parquet\]"):
            encoder().encode_to([tmp_path / "a.png"], out)
        assert not out.exists()


class TestResume:
    def test_complete_shards_are_not_encoded_again(self, files, out):
        encoder().encode_to(files, out, shard_size=4)
        before = content(out)
        backbone = AnyWidthBackbone()
        backbone.encode_images = lambda pixels: pytest.fail("encoded")
        CLIPImageEncoder(backbone, batch_size=3).encode_to(files, out, shard_size=4)
        assert content(out) == before

    @pytest.mark.parametrize("n_writes", range(1, 10))
    def test_interruption_before_any_write(self, files, out, tmp_path, monkeypatch, n_writes):
        encoder().encode_to(files, tmp_path / "whole", shard_size=4)
        calls = []

        def write(path, write):
            calls.append(path)
            if len(calls) > n_writes:
                raise KeyboardInterrupt
            write_whole(path, write)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(_shard_folder, "write_whole", write)
            encoder().encode_to(files, out, shard_size=4)
        with pytest.raises(ValueError, match=r"not complete: .*missing: \d"):
            load_embeddings(out)
        encoder().encode_to(files, out, shard_size=4)
        assert content(out) == content(tmp_path / "whole")

    @pytest.mark.parametrize("damage", ["truncate", "delete", "record"])
    def test_damaged_shard_is_encoded_again(self, files, out, damage):
        encoder().encode_to(files, out, shard_size=4)
        before = content(out)
        rows = out / "img_emb/img_emb_00001.npy"
        if damage == "truncate":
            rows.write_bytes(rows.read_bytes()[:-1])
        elif damage == "delete":
            rows.unlink()
        else:
            (out / "shards/00001.json").write_text("{")
        with pytest.raises(ValueError, match=r"missing: 1\."):
            load_embeddings(out)
        encoder().encode_to(files, out, shard_size=4)
        assert content(out) == before

    def test_files_of_a_killed_process_are_removed(self, files, out):
        encoder().encode_to(files, out, shard_size=4)
        before = content(out)
        (out / "shards/00001.json").unlink()
        (out / "img_emb/img_emb_00001.npy.0123.tmp").write_bytes(b"half")
        encoder().encode_to(files, out, shard_size=4)
        assert content(out) == before

    @pytest.mark.slow
    def test_kill_at_random_moments(self, tmp_path):
        folder = tmp_path / "images"
        folder.mkdir()
        for i in range(400):
            Image.fromarray(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
        code = (
            "import importlib.util, sys\nfrom pathlib import Path\nfrom clipcal import CLIPImageEncoder\n"
            "images = sorted(Path(sys.argv[1]).iterdir())\n"
            "if not importlib.util.find_spec('pyarrow'):\n"  # which paths need
            "    images = [path.read_bytes() for path in images]\n"
            "CLIPImageEncoder('mini', device='cpu').encode_to(images, sys.argv[2], shard_size=8)\n"
        )

        def start(target):
            return subprocess.Popen(
                [sys.executable, "-c", code, str(folder), str(target)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )

        whole = start(tmp_path / "whole")
        assert whole.wait() == 0
        killed = []
        for seconds in RNG.uniform(0, 0.6, 5):
            n_before = n_complete(tmp_path / "killed")
            process = start(tmp_path / "killed")
            while process.poll() is None and n_complete(tmp_path / "killed") == n_before:
                time.sleep(0.002)  # until the first shard is written
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            killed.append(process.wait() == -signal.SIGKILL)
        assert killed[0]
        assert start(tmp_path / "killed").wait() == 0
        assert content(tmp_path / "killed") == content(tmp_path / "whole")


class TestRefusals:
    def test_other_backbone(self, out):
        encoder().encode_to(PIXELS, out)
        other = CLIPImageEncoder("mini", device="cpu")
        with pytest.raises(ValueError, match=r"fingerprint .* there, .* here"):
            other.encode_to(PIXELS, out)
        with pytest.raises(ValueError, match="not of 'mini'"):
            load_embeddings(out, backbone="mini")
        load_embeddings(out, backbone=AnyWidthBackbone())

    @pytest.mark.parametrize(
        ("change", "arguments"),
        [("shard_size", {"shard_size": 5}), ("dtype", {"dtype": "float16"})],
    )
    def test_other_settings(self, out, change, arguments):
        encoder().encode_to(PIXELS, out, shard_size=4)
        with pytest.raises(ValueError, match=change):
            encoder().encode_to(PIXELS, out, **({"shard_size": 4} | arguments))
        with pytest.raises(ValueError, match="normalize True there, False here"):
            encoder(normalize=False).encode_to(PIXELS, out, shard_size=4)

    @pytest.mark.parametrize(
        "other",
        [
            lambda files: files[::-1],
            lambda files: files[:-1],
            lambda files: files[:4],
            lambda files: ImagePaths([*files.paths, "more.png"], root=files.root),
        ],
        ids=["order", "fewer", "one shard", "more"],
    )
    def test_other_paths(self, files, out, other):
        encoder().encode_to(files, out, shard_size=4)
        before = content(out)
        with pytest.raises(ValueError, match=r"other images: those of shard \d"):
            encoder().encode_to(other(files), out, shard_size=4)
        assert content(out) == before

    def test_other_pixels(self, out):
        encoder().encode_to(PIXELS, out, shard_size=4)
        with pytest.raises(ValueError, match="other images: those of shard 0"):
            encoder().encode_to(PIXELS[::-1], out, shard_size=4)

    def test_moved_root_is_accepted(self, files, out, tmp_path):
        encoder().encode_to(files, out, shard_size=4)
        (tmp_path / "images").rename(tmp_path / "moved")
        encoder().encode_to(ImagePaths(files.paths, root=tmp_path / "moved"), out, shard_size=4)

    def test_folder_without_a_manifest(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="encode_to"):
            load_embeddings(tmp_path)

    def test_manifest_of_another_format(self, out):
        encoder().encode_to(PIXELS, out)
        (out / "manifest.json").write_text('{"format": "clipcal shards 2"}')
        with pytest.raises(ValueError, match="'clipcal shards 2'"):
            load_embeddings(out)

    def test_shards_with_settings_other_than_the_manifest(self, out):
        # Two processes may have started in an empty folder with different settings.
        encoder().encode_to(PIXELS, out, shard_size=4)
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
        with pytest.raises(ValueError, match="0 shards are complete"):
            load_embeddings(out)


class TestParts:
    def test_each_part_writes_its_shards(self, files, out, tmp_path):
        encoder().encode_to(files, tmp_path / "whole", shard_size=2)
        for part in ((1, 3), (2, 3)):
            encoder().encode_to(files, out, shard_size=2, part=part)
        with pytest.raises(ValueError, match=r"missing: 0, 3\."):
            load_embeddings(out)
        encoder().encode_to(files, out, shard_size=2, part=(0, 3))
        assert content(out) == content(tmp_path / "whole")

    def test_iterators_have_the_same_parts(self, out, tmp_path):
        encoder().encode_to(PIXELS, tmp_path / "whole", shard_size=2)
        for i in range(4):
            encoder().encode_to(iter(PIXELS), out, shard_size=2, part=(i, 4))
        assert content(out) == content(tmp_path / "whole")

    def test_missing_end_is_noticed(self, out):
        encoder().encode_to(PIXELS, out, shard_size=4, part=(0, 3))
        with pytest.raises(ValueError, match=r"missing: 1\."):
            load_embeddings(out)

    def test_part_without_shards(self, out):
        encoder().encode_to(PIXELS, out, shard_size=100, part=(1, 2))
        assert not out.exists()


class TestUnreadable:
    @pytest.fixture
    def corrupt(self, files):
        for name in ("02.png", "05.png", "07.png"):
            path = os.path.join(files.root, name)
            with open(path, "rb") as file:
                start = file.read(200)
            with open(path, "wb") as file:
                file.write(start)
        os.unlink(os.path.join(files.root, "08.png"))
        return files

    def test_error_names_path_and_position(self, corrupt, out):
        encoder().encode_to(corrupt[:2], out / "first")
        with pytest.raises(ImageReadError, match=r"Image 2, .*02\.png"):
            encoder().encode_to(corrupt, out, shard_size=2)
        assert (out / "shards/00000.json").exists()
        with pytest.raises(ImageReadError, match=r"Image 5, .*05\.png") as caught:
            encoder().encode_to(corrupt, out, shard_size=2, part=(2, 3))
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize("cached", [False, True])
    def test_skip(self, corrupt, out, tmp_path, cached):
        memory = tmp_path / "cache" if cached else None
        if cached:  # one table with some rows, so that images are hashed before they are decoded
            encoder(memory=memory).transform(corrupt[:1])
        with pytest.warns(UserWarning, match=r"4 images could not be read.*Image 2, .*02\.png"):
            encoder(memory=memory).encode_to(corrupt, out, shard_size=4, on_error="skip")
        data = load_embeddings(out)
        assert data.positions.tolist() == [0, 1, 3, 4, 6, 9, 10]
        assert data.paths == [corrupt.paths[i] for i in data.positions]
        np.testing.assert_allclose(data.embeddings, expected(data.positions), atol=1e-6)
        assert [entry["position"] for entry in data.skipped] == [2, 5, 7, 8]
        assert all(corrupt.paths[entry["position"]] in entry["error"] for entry in data.skipped)

    def test_identical_corrupt_files_with_a_cache(self, corrupt, out, tmp_path):
        twin = os.path.join(corrupt.root, "03.png")
        with open(os.path.join(corrupt.root, "02.png"), "rb") as file, open(twin, "wb") as copy:
            copy.write(file.read())
        with pytest.warns(UserWarning, match="5 images"):
            encoder(memory=tmp_path / "cache").encode_to(corrupt, out, on_error="skip")
        data = load_embeddings(out)
        assert "03.png" in data.skipped[1]["error"]
        np.testing.assert_allclose(data.embeddings, expected([0, 1, 4, 6, 9, 10]), atol=1e-6)

    @pytest.mark.parametrize("given", [list, iter])
    def test_contents_of_files(self, out, given):
        contents = []
        for pixels in PIXELS:
            Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
            contents.append(buffer.getvalue())
        contents[4] = b"<html>"  # the first of a shard
        contents[6] = contents[6][:200]
        with pytest.warns(UserWarning, match=r"2 images could not be read.*Image 4, "):
            encoder().encode_to(given(contents), out, shard_size=4, on_error="skip")
        data = load_embeddings(out)
        assert data.positions.tolist() == [0, 1, 2, 3, 5, 7, 8, 9, 10]
        np.testing.assert_allclose(data.embeddings, expected(data.positions), atol=1e-6)
        with pytest.raises(ImageReadError, match="Image 4, "):
            encoder().encode_to(given(contents), out / "raising", shard_size=4)

    def test_shard_without_a_readable_image(self, corrupt, out):
        with pytest.warns(UserWarning, match="4 images"):
            encoder().encode_to(corrupt, out, shard_size=1, on_error="skip")
        assert not (out / "img_emb/img_emb_00002.npy").exists()
        assert load_embeddings(out).positions.tolist() == [0, 1, 3, 4, 6, 9, 10]

    def test_resume_counts_the_images_that_were_left_out_before(self, corrupt, out):
        for _ in range(2):
            with pytest.warns(UserWarning, match="4 images"):
                encoder().encode_to(corrupt, out, shard_size=4, on_error="skip")

    def test_a_source_that_fails_at_the_first_image(self, out):
        class Source:
            def __len__(self):
                return 3

            def __getitem__(self, i):
                if i == 0:
                    raise OSError("lost")
                return np.full((8, 8, 3), i, dtype=np.uint8)

        with pytest.warns(UserWarning, match=r"1 images could not be read.*Image 0 .*lost"):
            encoder().encode_to(LazyImages(Source()), out, shard_size=2, on_error="skip")
        assert load_embeddings(out).positions.tolist() == [1, 2]
        with pytest.raises(ImageReadError, match=r"Image 0 could not be read: OSError: lost"):
            encoder().transform(LazyImages(Source()))
