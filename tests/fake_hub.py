"""A server on the loopback interface that answers as the Hugging Face hub does.

Small files are answered directly. Weights are answered with a redirect to another host, as files of Git LFS
are, from which parts of a file can be requested.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "1" * 40
# open_clip's repository of the weights of "ViT-B-16/openai".
OPENAI_REPOSITORY = "timm/vit_base_patch16_clip_224.openai"
# Architecture of the model in tests/tiny_clip.py.
MODEL_CFG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
_WEIGHTS = (".safetensors", ".bin", ".pt")
_PIECE = 1 << 20


class HubFile:
    """One file of a repository, in memory or on disk."""

    def __init__(self, source: bytes | Path) -> None:
        self.source = source

    @property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def digest(self) -> str:
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        with open(self.source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        if isinstance(self.source, bytes):
            yield self.source[start:stop]
            return
        with open(self.source, "rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(_PIECE, stop - start))):
                start += len(piece)
                yield piece


class FakeHub(ThreadingHTTPServer):
    """Serve repositories as the hub does, directly or as the proxy of a host that does not exist.

    Parameters
    ----------
    repositories : mapping of str to mapping
        The content (bytes) or the path of each file of each repository ``"org/name"``.
    delay : float, default=0
        Seconds before each answer.
    moved_to : str or None, default=None
        Address to which the root page redirects.
    cut : int or None, default=None
        Number of bytes of weights after which the first download is interrupted.
    """

    daemon_threads = True

    def __init__(
        self,
        repositories: Mapping[str, Mapping[str, bytes | Path]],
        *,
        delay: float = 0.0,
        moved_to: str | None = None,
        cut: int | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories = {
            name: {filename: HubFile(source) for filename, source in files.items()}
            for name, files in repositories.items()
        }
        self.delay = delay
        self.moved_to = moved_to
        self.cut = cut
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self) -> list[str]:
        """Return the requests for weights that were sent to the address after the redirect."""
        return [request for request in self.requests if request.startswith("GET /lfs/")]


class _Answers(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_CONNECT(self) -> None:
        self.server.requests.append("CONNECT")
        self.send_error(503)

    def answer(self) -> None:
        path = re.sub("^http://[^/]*", "", self.path)
        wanted = self.headers.get("Range", "")
        self.server.requests.append(f"{self.command} {path} {wanted}".rstrip())
        time.sleep(self.server.delay)
        repository, found, filename = path[1:].partition("/resolve/main/")
        if path in ("", "/"):
            self.reply(302 if self.server.moved_to else 200, {"Location": self.server.moved_to or "/"})
        elif path.startswith("/lfs/"):
            self.send_weights(path.removeprefix("/lfs/"), wanted)
        elif path.startswith("/api/models/"):
            self.describe(path.removeprefix("/api/models/").removesuffix("/revision/main"))
        elif not found or repository not in self.server.repositories:
            self.reply(404, {"X-Error-Code": "RepoNotFound"})
        elif filename not in self.server.repositories[repository]:
            self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self.send_file(self.server.repositories[repository][filename], filename)

    def reply(self, status: int, headers: Mapping[str, object], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": len(content)} | dict(headers)).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def send_file(self, file: HubFile, filename: str) -> None:
        commit = {"X-Repo-Commit": COMMIT}
        if filename.endswith(_WEIGHTS):
            # Another host, as the client follows redirects to the same host before it reads the headers. The
            # host that was asked is not this server if this server is its proxy.
            host = self.headers["Host"]
            other = host.replace("127.0.0.1", "localhost") if "127.0.0.1" in host else f"cdn.{host}"
            location = f"http://{other}/lfs/{file.digest}"
            linked = {"X-Linked-Size": file.size, "X-Linked-ETag": f'"{file.digest}"'}
            self.reply(302, commit | linked | {"Location": location})
        else:
            content = b"".join(file.pieces(0, file.size))
            self.reply(200, commit | {"ETag": f'"{file.digest[:40]}"'}, content)

    def send_weights(self, digest: str, wanted: str) -> None:
        files = [file for files in self.server.repositories.values() for file in files.values()]
        file = next((file for file in files if file.digest == digest), None)
        if file is None:
            self.reply(404, {})
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        start = int(found[1]) if found else 0
        stop = int(found[2]) + 1 if found and found[2] else file.size
        self.send_response(206 if found else 200)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{file.size}")
        self.end_headers()
        if self.command == "GET":
            if self.server.cut is not None:
                stop, self.server.cut = start + self.server.cut, None
            for piece in file.pieces(start, stop):
                self.wfile.write(piece)

    def describe(self, repository: str) -> None:
        files = self.server.repositories.get(repository)
        if files is None:
            self.reply(404, {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [{"rfilename": filename} for filename in files]
        content = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def log_message(self, *args: object) -> None:
        pass


def tiny_hub(config: Mapping[str, object] = MODEL_CFG, **kwargs: Any) -> FakeHub:
    """Return a server with a model that is small, in the repositories of two backbones."""
    from safetensors.torch import save
    from tiny_clip import make_tiny_model

    files = {
        "open_clip_config.json": json.dumps({"model_cfg": config}).encode(),
        "open_clip_model.safetensors": save(make_tiny_model().state_dict()),
    }
    return FakeHub({"org/name": files, OPENAI_REPOSITORY: files}, **kwargs)


@contextmanager
def serving(server: FakeHub) -> Iterator[FakeHub]:
    """Run a server in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub_environment(server: FakeHub, home: Path) -> dict[str, str]:
    """Return the environment of a process that uses `server` as the hub, with its cache in `home`."""
    # Settings of the machine, such as offline mode or another cache, are not those of a first run.
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    local = "127.0.0.1,localhost"
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "NO_PROXY": local, "no_proxy": local}
    return kept | own


def random_repository(architecture: str, path: Path) -> dict[str, bytes | Path]:
    """Write random weights of an architecture of open_clip to `path`, and return the files of its repository.

    The weights are float16, which open_clip converts when it loads them: half the size on disk.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in open_clip.CLIP(**config).state_dict().items()}
    numbers = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).half() * 0.02
    tensors = {}
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        values = numbers.roll(i).repeat(shape.numel() // len(numbers) + 1)[: shape.numel()].reshape(shape)
        is_scale = len(shape) == 1 and name.endswith("weight")  # of a layer norm
        tensors[name] = torch.ones(shape).half() if is_scale else values.clone()
    tensors["logit_scale"] = torch.tensor(100.0).log()
    save_file(tensors, path)
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    config_file = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}).encode()
    return {"open_clip_config.json": config_file, "open_clip_model.safetensors": path}
