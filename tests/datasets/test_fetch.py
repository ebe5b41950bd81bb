"""Downloads from a local server, and the folders that they give."""

import hashlib
import inspect
import io
import json
import logging
import os
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from clipcal.cli import main
from clipcal.datasets import _archives, _catalog, _download, _fetch, fetch_benchmark, load_benchmark
from clipcal.exceptions import DatasetError
from clipcal.images import read_image

CONTENT = bytes(range(256)) * 20_000  # several blocks


class Handler(BaseHTTPRequestHandler):
    """Serve files from memory, with ranges; `cuts` ends the next answers after some bytes."""

    def do_GET(self):
        server = self.server
        header = self.headers.get("Range")
        server.requests.append((self.path, header))
        if server.errors:
            self.send_error(server.errors.pop(0))
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        content = server.files[self.path]
        tag = '"' + hashlib.md5(content).hexdigest() + '"'
        start = 0
        if header and server.with_ranges and self.headers.get("If-Range", tag) == tag:
            start = int(header.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        if server.with_tags:
            self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(_download, "_SECONDS_BETWEEN_ATTEMPTS", 0.0)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.cuts, server.errors = {"/a.bin": CONTENT}, [], [], []
    server.with_ranges = server.with_tags = True
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def remote(server, path="/a.bin", algorithm="sha256", n_digits=64):
    checksum = ""
    if algorithm:
        checksum = f"{algorithm}:{hashlib.new(algorithm, server.files[path]).hexdigest()[:n_digits]}"
    return _download.RemoteFile(server.url + path, checksum)


def ranges(server):
    return [header for _, header in server.requests]


class TestDownload:
    @pytest.mark.parametrize("algorithm", ["sha256", "md5", None])
    def test_whole_file(self, server, tmp_path, algorithm):
        target = tmp_path / "deep/er/a.bin"
        _download.download(remote(server, algorithm=algorithm), target)
        assert target.read_bytes() == CONTENT
        assert [path.name for path in target.parent.iterdir()] == ["a.bin"]
        _download.download(remote(server), target)
        assert len(server.requests) == 1

    def test_connections_that_end_are_continued(self, server, tmp_path):
        server.cuts = [1_000_000, 2_000_000]
        _download.download(remote(server), tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT
        assert ranges(server) == [None, "bytes=1000000-", "bytes=3000000-"]

    def test_a_later_call_continues(self, server, tmp_path):
        server.cuts = [100, 100, 100]
        with pytest.raises(
            DatasetError, match=r"after 300 of 5120000 bytes. 300 bytes are in '.*a.bin.part'"
        ):
            _download.download(remote(server), tmp_path / "a.bin")
        assert not (tmp_path / "a.bin").exists()
        _download.download(remote(server), tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT
        assert ranges(server)[-1] == "bytes=300-"
        assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]

    def test_servers_without_ranges_send_the_file_again(self, server, tmp_path):
        server.with_ranges, server.cuts = False, [1_000_000]
        _download.download(remote(server), tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT

    def test_a_changed_file_is_sent_again(self, server, tmp_path):
        server.cuts = [100] * 3
        with pytest.raises(DatasetError):
            _download.download(remote(server, algorithm=None), tmp_path / "a.bin")
        server.files["/a.bin"] = CONTENT[::-1]
        _download.download(remote(server, algorithm=None), tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]

    def test_a_complete_part_is_not_downloaded_again(self, server, tmp_path):
        (tmp_path / "a.bin.part").write_bytes(CONTENT)
        _download.download(remote(server), tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT

    def test_a_part_that_is_too_long_is_discarded(self, server, tmp_path):
        (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
        _download.download(remote(server), tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT

    def test_wrong_hash(self, server, tmp_path):
        wrong = replace(remote(server), checksum="md5:00112233445566778899aabbccddeeff")
        with pytest.raises(DatasetError, match=r"has the md5 hash [0-9a-f]{32}, but 0011.* was expected"):
            _download.download(wrong, tmp_path / "a.bin")
        assert list(tmp_path.iterdir()) == [] or [path.name for path in tmp_path.iterdir()] == [
            "a.bin.part.etag"
        ]
        # Damage in a part that is continued is found, too.
        (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
        server.with_tags = False
        with pytest.raises(DatasetError, match="It was deleted"):
            _download.download(remote(server, n_digits=16), tmp_path / "a.bin")
        _download.download(remote(server, n_digits=16), tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT

    def test_missing_files_and_failing_servers(self, server, tmp_path):
        gone = _download.RemoteFile(f"{server.url}/gone.bin")
        with pytest.raises(DatasetError, match="the server answers 404"):
            _download.download(gone, tmp_path / "gone.bin")
        assert len(server.requests) == 1
        server.errors = [503, 503]
        _download.download(remote(server), tmp_path / "a.bin")
        server.errors = [500] * 3
        with pytest.raises(DatasetError, match="the server answers 500"):
            _download.download(remote(server), tmp_path / "b.bin")

    def test_unreachable_server(self, server, tmp_path):
        with pytest.raises(DatasetError, match=r"cannot be downloaded: URLError.* 0 bytes"):
            _download.download(_download.RemoteFile("http://127.0.0.1:9/a.bin"), tmp_path / "a.bin")

    def test_urls_and_sizes_are_logged(self, server, tmp_path, caplog, capsys):
        with caplog.at_level(logging.INFO, logger="clipcal"):
            _download.download(replace(remote(server), megabytes=5), tmp_path / "a.bin")
        assert f"Downloading {server.url}/a.bin (about 5 MB) to {tmp_path / 'a.bin'}" in caplog.text
        assert capsys.readouterr() == ("", "")
        _download.download(remote(server), tmp_path / "b.bin", verbose=1)
        assert "b.bin: 100%" in capsys.readouterr().err


def made_tar(path, members, mode="w:gz"):
    """Write a tar file; values are contents, tarfile types with link names, or None for folders."""
    with tarfile.open(path, mode) as archive:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            if value is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(value, tuple):
                info.type, info.linkname = value
            else:
                info.size = len(value)
            archive.addfile(info, io.BytesIO(value) if isinstance(value, bytes) else None)
    return path


def made_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in members.items():
            info = zipfile.ZipInfo(name)
            if isinstance(value, tuple):
                info.external_attr, value = 0o120777 << 16, value[1].encode()
            archive.writestr(info, value or b"")
    return path


GOOD = {
    "top/": None,
    "top/images/": None,
    "top/images/cat/1.jpg": b"cat",
    "top/images/dog/1.jpg": b"dog",
    "top/images/._x.jpg": b"of macOS",
    "top/other.txt": b"other",
}
UNSAFE = {
    "parent": {"top/images/../../../evil.txt": b"x"},
    "parent outside of the folder": {"../evil.txt": b"x"},
    "absolute": {"/evil.txt": b"x"},
    "backslashes": {"top\\images\\..\\..\\evil.txt": b"x"},
    "drive": {"C:/evil.txt": b"x"},
    "symbolic link": {"top/images/link": (tarfile.SYMTYPE, "../../..")},
}
ONLY_TAR = {
    "hard link": {"top/images/link": (tarfile.LNKTYPE, "top/images/cat/1.jpg")},
    "device": {"top/images/device": (tarfile.CHRTYPE, "")},
    "through a link": {
        "top/images/link": (tarfile.SYMTYPE, "/tmp"),
        "top/images/link/evil.txt": b"x",
    },
}


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


class TestArchives:
    @pytest.mark.parametrize("kind", ["tar", "gz", "xz", "zip", "dots"])
    def test_one_folder_is_unpacked(self, tmp_path, kind):
        path = tmp_path / "archive"
        if kind == "zip":
            made_zip(path, GOOD)
        elif kind == "dots":
            made_tar(path, {f"./{name}": value for name, value in GOOD.items()})
        else:
            made_tar(path, GOOD, f"w:{kind}" if kind != "tar" else "w")
        target = tmp_path / "data/images"
        target.mkdir(parents=True)
        _archives.unpack_folder(path, "top/images", target)
        assert files_in(target) == {"cat/1.jpg": b"cat", "dog/1.jpg": b"dog"}
        assert [path.name for path in target.parent.iterdir()] == ["images"]
        _archives.unpack_file(path, "top/other.txt", tmp_path / "one.txt")
        assert (tmp_path / "one.txt").read_bytes() == b"other"

    @pytest.mark.parametrize("members", (UNSAFE | ONLY_TAR).values(), ids=UNSAFE | ONLY_TAR)
    def test_unsafe_tar_files(self, tmp_path, members):
        self.check_unsafe(made_tar(tmp_path / "a.tar", {**GOOD, **members}), tmp_path)

    @pytest.mark.parametrize("members", UNSAFE.values(), ids=UNSAFE)
    def test_unsafe_zip_files(self, tmp_path, members):
        self.check_unsafe(made_zip(tmp_path / "a.zip", {**GOOD, **members}), tmp_path)

    def check_unsafe(self, archive, tmp_path):
        work = tmp_path / "a/b/c"
        work.mkdir(parents=True)
        with pytest.raises(DatasetError, match=r"leads out of the folder|is a link or a device"):
            _archives.unpack_folder(archive, "top/images", work / "images")
        assert list(work.iterdir()) == []
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", archive.name]
        assert not os.path.exists("/evil.txt") and not os.path.exists("/tmp/evil.txt")

    @pytest.mark.parametrize("kind", ["no archive", "cut tar", "cut zip", "wrong bytes"])
    def test_damaged_archives(self, tmp_path, kind):
        path = tmp_path / "archive"
        if kind == "cut zip":
            made_zip(path, GOOD)
        else:
            made_tar(path, {**GOOD, "top/images/big": os.urandom(100_000)})
        content = path.read_bytes()
        damaged = {"no archive": b"<html>", "wrong bytes": content[:5000] + b"x" * 500 + content[5500:]}
        path.write_bytes(damaged.get(kind, content[: len(content) // 2]))
        with pytest.raises(DatasetError, match="is damaged"):
            _archives.unpack_folder(path, "top/images", tmp_path / "images")
        assert [path.name for path in tmp_path.iterdir()] == ["archive"]

    def test_missing_members(self, tmp_path):
        path = made_tar(tmp_path / "a.tar", GOOD)
        for inside in ("top/image", "images", "top/other.txt"):
            with pytest.raises(DatasetError, match="There is no folder"):
                _archives.unpack_folder(path, inside, tmp_path / "images")
        with pytest.raises(DatasetError, match="There is no file"):
            _archives.unpack_file(path, "top/images", tmp_path / "x")

    def test_a_file_that_is_a_folder(self, tmp_path):
        path = made_tar(tmp_path / "a.tar", {"d/a": b"x", "d/a/b": b"y"})
        with pytest.raises(DatasetError, match="is damaged"):
            _archives.unpack_folder(path, "d", tmp_path / "d")


def packed(tmp_path, source):
    """Return an archive of the form that a source expects."""
    members = {f"{source.inside}/x/1.jpg": b"image", "unrelated/readme.txt": b"text"}
    if source.inside == "fgvc-aircraft-2013b/data":
        members = {f"{source.inside}/images/1.jpg": b"image", f"{source.inside}/variants.txt": b"707"}
    path = tmp_path / "packed"
    if source.nested:
        members = {source.nested: made_tar(path, members).read_bytes()}
    is_zip = source.archive.url.endswith(".zip")
    return (made_zip(path, members) if is_zip else made_tar(path, members)).read_bytes()


def serve(server, monkeypatch, name, splits, **changes):
    """Download a data set, and its split file, from the local server."""
    facts = _catalog.CATALOG[name]
    if facts.split_file:
        server.files["/" + facts.split_file] = splits
        changes["split_checksum"] = remote(server, "/" + facts.split_file).checksum
        facts = replace(facts, split_url=f"{server.url}/{facts.split_file}")
    monkeypatch.setitem(_catalog.CATALOG, name, facts)
    monkeypatch.setitem(_fetch.SOURCES, name, replace(_fetch.SOURCES[name], **changes))


@pytest.fixture(params=list(_fetch.SOURCES))
def source(request, server, tmp_path, monkeypatch):
    """Serve a small archive in place of that of a data set."""
    source = _fetch.SOURCES[request.param]
    server.files["/" + source.archive.name] = packed(tmp_path, source)
    serve(server, monkeypatch, request.param, b"{}", archive=remote(server, "/" + source.archive.name, "md5"))
    return request.param, source


class TestFetchBenchmark:
    def test_layout(self, source, server, tmp_path):
        name, source = source
        root = tmp_path / "root"
        folder = fetch_benchmark(name, root=root)
        facts = _catalog.CATALOG[name]
        assert folder == root / facts.folders[0]
        expected = {
            f"{facts.folders[0]}/{facts.images[0]}/{'1.jpg' if name == 'fgvc_aircraft' else 'x/1.jpg'}"
        }
        expected |= {f"{facts.folders[0]}/{facts.split_file}"} if facts.split_file else set()
        expected |= {"fgvc_aircraft/variants.txt"} if name == "fgvc_aircraft" else set()
        assert set(files_in(root)) == expected
        assert sorted(path.name for path in root.iterdir()) == [facts.folders[0]]
        n_requests = len(server.requests)
        assert n_requests == 1 + bool(facts.split_file)
        fetch_benchmark(name, root=root)
        assert len(server.requests) == n_requests

    def test_interrupted_between_download_and_unpacking(self, source, server, tmp_path, monkeypatch):
        name, source = source
        unpack = _fetch.unpack_folder
        monkeypatch.setattr(_fetch, "unpack_folder", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fetch_benchmark(name, root=tmp_path / "root")
        n_requests = len(server.requests)
        monkeypatch.setattr(_fetch, "unpack_folder", unpack)
        fetch_benchmark(name, root=tmp_path / "root")
        assert sum(source.archive.name in path for path, _ in server.requests) == 1
        assert len(server.requests) <= n_requests + 1
        assert not (tmp_path / "root/downloads").exists()


def test_images_in_other_known_folders_are_used(server, tmp_path, monkeypatch):
    serve(server, monkeypatch, "oxford_pets", b"{}")
    (tmp_path / "oxford-iiit-pet/images").mkdir(parents=True)
    (tmp_path / "oxford-iiit-pet/images/1.jpg").write_bytes(b"image")
    monkeypatch.setenv("CLIPCAL_DATA", str(tmp_path))
    assert fetch_benchmark("OxfordPets") == tmp_path / "oxford-iiit-pet"
    assert (tmp_path / "oxford-iiit-pet/split_zhou_OxfordPets.json").is_file()


def test_a_folder_without_images_is_noticed_before_the_download(server, tmp_path):
    (tmp_path / "fgvc_aircraft").mkdir()
    (tmp_path / "fgvc_aircraft/variants.txt").write_text("707")
    with pytest.raises(DatasetError, match=r"fgvc_aircraft' has files, but no images\. Delete or rename"):
        fetch_benchmark("fgvc_aircraft", root=tmp_path)
    assert not (tmp_path / "downloads").exists()


def test_command_tells_where_from_and_where_to(server, tmp_path, monkeypatch, capsys, caplog):
    serve(server, monkeypatch, "oxford_pets", b"{}")
    (tmp_path / "oxford_pets/images").mkdir(parents=True)
    (tmp_path / "oxford_pets/images/1.jpg").write_bytes(b"image")
    assert main(["data", "fetch", "pets", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "oxford_pets")
    assert "split_zhou_OxfordPets.json" in caplog.text
    with pytest.raises(SystemExit) as raised:
        main(["data", "fetch", "cars", "--root", str(tmp_path)])
    assert raised.value.code == 1
    assert "must be downloaded by hand" in capsys.readouterr().err


def test_fetched_data_sets_can_be_loaded(server, tmp_path, monkeypatch):
    rows = {
        name: [[f"{c}/{name}.jpg", i, c] for i, c in enumerate("ab")] for name in ("train", "val", "test")
    }
    image = io.BytesIO()
    Image.new("RGB", (8, 9)).save(image, "jpeg")
    members = {f"dtd/images/{row[0]}": image.getvalue() for part in rows.values() for row in part}
    server.files["/dtd.tar.gz"] = made_tar(tmp_path / "packed", members).read_bytes()
    serve(server, monkeypatch, "dtd", json.dumps(rows).encode(), archive=remote(server, "/dtd.tar.gz"))
    fetch_benchmark("dtd", root=tmp_path / "root")
    with pytest.warns(UserWarning):  # of other numbers of images than published
        data = load_benchmark("dtd", root=tmp_path / "root")
    assert data.train.paths == ("a/train.jpg", "b/train.jpg")
    assert read_image(data.test.images, 1).size == (8, 9)


def test_sources_agree_with_the_catalog():
    for name, source in _fetch.SOURCES.items():
        facts = _catalog.CATALOG[name]
        assert source.archive.url.startswith("https://")
        assert source.archive.megabytes > 0
        assert source.target in {f"{facts.folders[0]}/{images}".rstrip("/") for images in (*facts.images, "")}
        assert facts.split_url.startswith("https://") or not facts.split_file
        assert facts.split_file or not source.split_checksum


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("imagenet", r"image-net.org.*imagenet.*images'"),
        ("cars", r"StanfordCars must be downloaded by hand.*stanford_cars'.*StanfordCars.json.*offline"),
        ("SUN397", r"split_zhou_SUN397.json, and put it in '.*sun397'"),
        ("ucf101", r"drive.google.com.*UCF-101-midframes'"),
        ("mini/colors-street", "is generated; it has no files"),
        ("oxford_pet", "did you mean 'oxford_pets'"),
    ],
)
def test_data_sets_that_cannot_be_fetched(tmp_path, name, match):
    with pytest.raises(DatasetError, match=match):
        fetch_benchmark(name, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_root_is_required(monkeypatch):
    monkeypatch.delenv("CLIPCAL_DATA", raising=False)
    with pytest.raises(DatasetError, match=r"pass root=.*CLIPCAL_DATA"):
        fetch_benchmark("dtd")


def test_small_disks_are_noticed_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(_fetch.shutil, "disk_usage", lambda path: type("", (), {"free": 10_000_000}))
    with pytest.raises(DatasetError, match=r"190 MB are needed .* but 10 MB are free"):
        fetch_benchmark("eurosat", root=tmp_path)


def test_hashes_are_of_the_right_length():
    for source in _fetch.SOURCES.values():
        for checksum in (source.archive.checksum, source.split_checksum):
            if checksum:
                algorithm, _, digits = checksum.partition(":")
                assert (algorithm, len(digits)) in {("md5", 32), ("sha256", 16)}
                int(digits, 16)


def test_md5_hashes_are_those_of_torchvision():
    datasets = pytest.importorskip("torchvision.datasets")
    classes = {
        "caltech101": "Caltech101", "dtd": "DTD", "eurosat": "EuroSAT", "food101": "Food101",
        "oxford_flowers": "Flowers102", "oxford_pets": "OxfordIIITPet",
    }  # fmt: skip
    for name, cls in classes.items():
        text = inspect.getsource(getattr(datasets, cls))
        archive = _fetch.SOURCES[name].archive
        assert archive.checksum.removeprefix("md5:") in text
        assert archive.name in text
