"""A missing network is reported within seconds, and a slow one does not raise."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import numpy as np
import open_clip
import pytest
from huggingface_hub.utils import get_session
from safetensors.torch import save
from tiny_clip import make_tiny_model

from clipcal import CLIPImageEncoder, PromptTunedCLIPClassifier, ZeroShotCLIPClassifier
from clipcal.backbones import _hub as hub_module
from clipcal.backbones import _loading as loading
from clipcal.backbones import _registry as registry
from clipcal.backbones import open_backbone
from clipcal.backbones._hub import Hub
from clipcal.exceptions import WeightsUnavailableError

MODEL_CFG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
HF_TOKENIZER_CFG = {"context_length": 16, "hf_tokenizer_name": "org/tokenizer"}
# Errors must be raised within this time, with some margin for imports on a busy machine.
SECONDS = 8.0


class FakeHub(ThreadingHTTPServer):
    """Serve two repositories as the hub does, directly or as the proxy of a host that does not exist."""

    daemon_threads = True
    repositories = ("org/name", "timm/vit_base_patch16_clip_224.openai")

    def __init__(self, delay=0.0, moved_to=None):
        super().__init__(("127.0.0.1", 0), Answers)
        self.delay = delay
        self.moved_to = moved_to
        self.requests = []
        config = json.dumps({"model_cfg": MODEL_CFG}).encode()
        self.contents = {
            "open_clip_config.json": config,
            "open_clip_model.safetensors": save(make_tiny_model().state_dict()),
        }
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.wfile.write(self.answer())

    def do_CONNECT(self):
        self.server.requests.append("CONNECT")
        self.send_error(503)

    def answer(self):
        path = self.path.removeprefix("http://nowhere.invalid")
        self.server.requests.append(f"{self.command} {path}")
        time.sleep(self.server.delay)
        repository, _, filename = path[1:].partition("/resolve/main/")
        content = self.server.contents.get(filename) if repository in self.server.repositories else None
        if path in ("", "/"):
            self.send_response(302 if self.server.moved_to else 200)
            self.send_header("Location", self.server.moved_to or "/")
            self.end_headers()
            return b""
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            content = b""
        else:
            self.send_response(200)
            self.send_header("ETag", f'"{filename.partition(".")[0]}"')
            self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *args):
        pass


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", {})


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    """Return a function that sets the URL of the hub, as HF_ENDPOINT does before the import of the client."""

    def point_to(url):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(
            huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        return url

    return point_to


@pytest.fixture
def tiny_architecture(monkeypatch):
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: dict(MODEL_CFG))


@pytest.fixture
def silent():
    """Return a socket that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def port_of(listener):
    return f"127.0.0.1:{listener.getsockname()[1]}"


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def assert_refused_soon(open_it, *words):
    start = time.perf_counter()
    with pytest.raises(WeightsUnavailableError) as caught:
        open_it()
    assert time.perf_counter() - start < SECONDS
    for word in ("No connection to ", "HF_HUB_OFFLINE", "local-dir:", *words):
        assert word in str(caught.value)


class TestNoConnection:
    @pytest.mark.parametrize("name", ["ViT-B-16/openai", "hf-hub:org/name"])
    def test_connection_refused(self, endpoint, name):
        url = endpoint(f"http://{closed_port()}")
        assert_refused_soon(lambda: open_backbone(name, device="cpu"), repr(name), url, "refused")

    def test_unknown_host(self, endpoint):
        endpoint("https://nowhere.invalid")
        assert_refused_soon(lambda: open_backbone("ViT-B-16/openai", device="cpu"), "nowhere.invalid")

    @pytest.mark.slow
    def test_unreachable_address(self, endpoint):
        url = endpoint("https://192.0.2.1")
        assert_refused_soon(lambda: open_backbone("hf-hub:org/name", device="cpu"), url)

    @pytest.mark.slow
    def test_server_that_does_not_complete_the_tls_handshake(self, endpoint, silent):
        # Without a completed handshake there is no connection.
        url = endpoint(f"https://{port_of(silent)}")
        assert_refused_soon(lambda: open_backbone("ViT-B-16/openai", device="cpu"), url)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # there is no second attempt
            silent.accept()

    def test_name_resolution_that_never_returns(self, endpoint, monkeypatch):
        endpoint("https://somewhere.invalid")
        asked = threading.Event()
        answered = threading.Event()

        def never(*args, **kwargs):
            asked.set()
            answered.wait(60)
            raise socket.gaierror("too late")

        monkeypatch.setattr(socket, "getaddrinfo", never)
        monkeypatch.setattr(hub_module, "_TOTAL_SECONDS", 0.3)
        try:
            assert_refused_soon(lambda: open_backbone("ViT-B-16/openai", device="cpu"), "within 0.3 seconds")
        finally:
            answered.set()
        assert asked.is_set()

    @pytest.mark.parametrize(
        "use",
        [
            lambda X, y: PromptTunedCLIPClassifier().fit(X, y),
            lambda X, y: ZeroShotCLIPClassifier(backbone="ViT-B-16/openai").fit(X, y),
            lambda X, y: CLIPImageEncoder(backbone="hf-hub:org/name").fit_transform(X),
        ],
        ids=["prompt-tuned", "zero-shot", "encoder"],
    )
    def test_estimators_raise_within_seconds(self, endpoint, use):
        endpoint(f"http://{closed_port()}")
        images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
        assert_refused_soon(lambda: use(images, ["cat", "dog", "cat", "dog"]))

    def test_environment_and_client_are_not_modified(self, endpoint):
        endpoint(f"http://{closed_port()}")
        before = dict(os.environ), dict(vars(huggingface_hub.constants)), get_session()
        assert_refused_soon(lambda: open_backbone("ViT-B-16/openai", device="cpu"))
        assert (dict(os.environ), dict(vars(huggingface_hub.constants)), get_session()) == before

    def test_proxy_that_refuses_the_connection(self, endpoint, monkeypatch):
        endpoint("https://nowhere.invalid")
        client = type(get_session())
        if not hasattr(get_session(), "follow_redirects"):
            pytest.skip("this client of the hub configures proxies differently")
        with serving(FakeHub()) as proxy, client(proxy=proxy.url) as session:
            monkeypatch.setattr(hub_module, "get_session", lambda: session)
            assert_refused_soon(lambda: open_backbone("hf-hub:org/name", device="cpu"), "ProxyError")
            assert proxy.requests == ["CONNECT"]


class TestConnection:
    def test_weights_are_downloaded(self, endpoint):
        with serving(FakeHub()) as server:
            endpoint(server.url)
            backbone = open_backbone("hf-hub:org/name", device="cpu")
        assert backbone.embedding_dim == 64
        assert server.requests.count("GET /org/name/resolve/main/open_clip_model.safetensors") == 1

    def test_slow_server_is_waited_for(self, endpoint, monkeypatch):
        monkeypatch.setattr(hub_module, "_ANSWER_SECONDS", 0.1)
        with serving(FakeHub(delay=0.5)) as server:
            endpoint(server.url)
            assert open_backbone("hf-hub:org/name", device="cpu").embedding_dim == 64

    def test_connection_without_an_answer_is_not_a_failure(self, endpoint, silent, monkeypatch):
        monkeypatch.setattr(hub_module, "_ANSWER_SECONDS", 0.1)
        endpoint(f"http://{port_of(silent)}")
        assert Hub().failure == ""

    def test_redirect_of_the_root_page_is_not_followed(self, endpoint):
        with serving(FakeHub(moved_to=f"http://{closed_port()}")) as server:
            endpoint(server.url)
            assert open_backbone("hf-hub:org/name", device="cpu").embedding_dim == 64

    def test_missing_repository_raises(self, endpoint):
        with serving(FakeHub()) as server:
            endpoint(server.url)
            with pytest.raises(WeightsUnavailableError, match=r"org/other.*404"):
                open_backbone("hf-hub:org/other", device="cpu")

    def test_requests_client(self, endpoint, monkeypatch, silent):
        # huggingface_hub before 1.0 uses requests.
        requests = pytest.importorskip("requests")
        monkeypatch.setattr(hub_module, "get_session", requests.Session)
        monkeypatch.setattr(hub_module, "_ANSWER_SECONDS", 0.1)
        with serving(FakeHub(delay=0.5)) as server:
            endpoint(server.url)
            assert Hub().failure == ""
        monkeypatch.setattr(hub_module, "_CONNECT_SECONDS", 0.5)
        for url in (f"http://{closed_port()}", "https://nowhere.invalid", f"https://{port_of(silent)}"):
            endpoint(url)
            assert url in Hub().failure


class TestCache:
    @pytest.mark.parametrize("name", ["ViT-B-16/openai", "hf-hub:org/name"])
    def test_cached_weights_open_without_a_network(self, endpoint, tiny_architecture, monkeypatch, name):
        with serving(FakeHub()) as server:
            endpoint(server.url)
            fingerprint = open_backbone(name, device="cpu").fingerprint
        registry._loaded.clear()
        for download in ("download_pretrained", "download_pretrained_from_hf"):
            monkeypatch.setattr(loading, download, lambda *args, **kwargs: pytest.fail("download attempted"))
        start = time.perf_counter()
        assert open_backbone(name, device="cpu").fingerprint == fingerprint
        assert time.perf_counter() - start < SECONDS

    def test_with_a_network_the_cache_is_validated_but_not_downloaded_again(self, endpoint):
        with serving(FakeHub()) as server:
            endpoint(server.url)
            open_backbone("hf-hub:org/name", device="cpu")
            registry._loaded.clear()
            server.requests.clear()
            open_backbone("hf-hub:org/name", device="cpu")
        assert "HEAD /org/name/resolve/main/open_clip_model.safetensors" in server.requests
        assert not any(request.startswith("GET") for request in server.requests)

    def test_backbone_recorded_in_a_feature_cache_sends_no_request(self, endpoint, monkeypatch, tmp_path):
        memory = tmp_path / "features"
        with serving(FakeHub()) as server:
            endpoint(server.url)
            fingerprint = open_backbone("hf-hub:org/name", device="cpu", memory=memory).fingerprint
        registry._loaded.clear()
        monkeypatch.setattr(hub_module, "get_session", lambda: pytest.fail("asked"))
        assert open_backbone("hf-hub:org/name", device="cpu", memory=memory).fingerprint == fingerprint


class TestEnvironment:
    """Environment variables that the hub client reads at import."""

    @staticmethod
    def run(code, **environment):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", f"from clipcal.backbones import open_backbone\n{code}"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            capture_output=True,
            text=True,
        )
        return done, time.perf_counter() - start

    @pytest.mark.slow
    def test_mirror_proxy_and_offline_mode(self, tmp_path):
        code = "print(open_backbone('hf-hub:org/name', device='cpu').fingerprint)"
        home = {"HF_HOME": str(tmp_path), "NO_PROXY": "", "no_proxy": ""}
        with serving(FakeHub()) as server:
            # The host is reachable through the proxy only.
            through = home | {"HF_ENDPOINT": "http://nowhere.invalid", "HTTP_PROXY": server.url}
            first, _ = self.run(code, **through)
            assert first.returncode == 0, first.stderr
            n_requests = len(server.requests)
            offline, _ = self.run(code, **through, HF_HUB_OFFLINE="1")
            assert offline.stdout == first.stdout
            other, _ = self.run(code.replace("name", "other"), **through, HF_HUB_OFFLINE="1")
            assert "WeightsUnavailableError" in other.stderr
            assert len(server.requests) == n_requests
        direct, seconds = self.run(code, **home, HF_ENDPOINT=f"http://{closed_port()}")
        assert direct.stdout == first.stdout
        assert seconds < 2 * SECONDS


class TestTokenizer:
    @pytest.fixture
    def asked(self, monkeypatch):
        """Record the requested tokenizers."""
        calls = []

        def from_hub(name, **kwargs):
            calls.append((name, kwargs.get("local_files_only", False)))
            if kwargs.get("local_files_only"):
                raise OSError("not in the cache")
            return open_clip.SimpleTokenizer()

        monkeypatch.setattr(loading, "HFTokenizer", from_hub)
        return calls

    def test_without_a_network_only_the_cache_is_used(self, endpoint, asked, monkeypatch, tmp_path):
        url = endpoint(f"http://{closed_port()}")
        cfg = MODEL_CFG | {"text_cfg": MODEL_CFG["text_cfg"] | HF_TOKENIZER_CFG}
        monkeypatch.setattr(open_clip, "get_model_config", lambda name: cfg)
        weights = tmp_path / "w.safetensors"
        state = make_tiny_model().state_dict()
        state["positional_embedding"] = state["positional_embedding"][:16].clone()
        weights.write_bytes(save(state))
        assert_refused_soon(lambda: open_backbone(f"Tiny:{weights}", device="cpu"), "tokenizer", url)
        assert asked == [("org/tokenizer", True)]

    def test_hub_is_probed_once_per_opened_backbone(self, endpoint, asked, monkeypatch):
        probes = []
        monkeypatch.setattr(hub_module, "_probe_hub", lambda: probes.append(1))
        with serving(FakeHub()) as server:
            endpoint(server.url)
            text_cfg = MODEL_CFG["text_cfg"] | {"hf_tokenizer_name": "org/tokenizer"}
            server.contents["open_clip_config.json"] = json.dumps(
                {"model_cfg": MODEL_CFG | {"text_cfg": text_cfg}}
            ).encode()
            open_backbone("hf-hub:org/name", device="cpu")
        assert asked == [("org/tokenizer", False)]
        assert probes == [1]

    def test_tokenizer_from_a_folder_does_not_use_the_hub(self, asked, monkeypatch):
        monkeypatch.setattr(hub_module, "_probe_hub", lambda: pytest.fail("asked"))
        loading._tokenizer("x", HF_TOKENIZER_CFG, "folder", Hub())
        assert asked == [("folder", False)]


class TestUrl:
    """Tags whose weights are downloaded from a URL."""

    @pytest.fixture
    def tag(self, monkeypatch, tmp_path, tiny_architecture):
        monkeypatch.setattr(hub_module, "URL_CACHE", tmp_path)
        monkeypatch.setattr(
            loading,
            "download_pretrained",
            lambda cfg: open_clip.pretrained.download_pretrained(cfg, cache_dir=str(tmp_path)),
        )

        def of(url):
            monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda architecture, tag: {"url": url})

        return of

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_connection_refused(self, tag, scheme):
        tag(url := f"{scheme}://{closed_port()}/weights.safetensors")
        assert_refused_soon(lambda: open_backbone("Tiny/tag", device="cpu"), url)

    @pytest.mark.slow
    def test_server_that_does_not_complete_the_tls_handshake(self, tag, silent):
        tag(f"https://{port_of(silent)}/weights.safetensors")
        assert_refused_soon(lambda: open_backbone("Tiny/tag", device="cpu"))

    def test_slow_server_is_waited_for_and_the_cache_needs_no_network(self, tag, monkeypatch):
        monkeypatch.setattr(hub_module, "_CONNECT_SECONDS", 0.2)
        with serving(FakeHub(delay=0.5)) as server:
            tag(f"{server.url}/org/name/resolve/main/open_clip_model.safetensors")
            fingerprint = open_backbone("Tiny/tag", device="cpu").fingerprint
        registry._loaded.clear()
        assert open_backbone("Tiny/tag", device="cpu").fingerprint == fingerprint

    def test_http_error_is_not_a_connection_failure(self):
        with serving(FakeHub()) as server:
            hub_module._probe_url(f"{server.url}/nothing")
        assert server.requests == ["HEAD /nothing"]
