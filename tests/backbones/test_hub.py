"""A missing network is reported within seconds, and a slow one does not raise."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import huggingface_hub
import numpy as np
import open_clip
import pytest
from fake_hub import (
    MODEL_CFG,
    OPENAI_REPOSITORY,
    FakeHub,
    hub_environment,
    random_repository,
    serving,
    tiny_hub,
)
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

HF_TOKENIZER_CFG = {"context_length": 16, "hf_tokenizer_name": "org/tokenizer"}
# Errors must be raised within this time, with some margin for imports on a busy machine.
SECONDS = 8.0


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
        with serving(tiny_hub()) as proxy, client(proxy=proxy.url) as session:
            monkeypatch.setattr(hub_module, "get_session", lambda: session)
            assert_refused_soon(lambda: open_backbone("hf-hub:org/name", device="cpu"), "ProxyError")
            assert proxy.requests == ["CONNECT"]


class TestConnection:
    def test_weights_are_downloaded(self, endpoint):
        with serving(tiny_hub()) as server:
            endpoint(server.url)
            backbone = open_backbone("hf-hub:org/name", device="cpu")
        assert backbone.embedding_dim == 64
        assert len(server.downloads()) == 1

    def test_interrupted_download_is_continued(self, endpoint, monkeypatch):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits before it tries again
        with serving(tiny_hub()) as server:
            endpoint(server.url)
            server.cut = 12_000_000  # of 13.6 million bytes; the client writes 10 MiB at once
            cut = open_backbone("hf-hub:org/name", device="cpu")
        first, second = server.downloads()
        assert second == f"{first} bytes={10 * 2**20}-"
        assert all(
            (ours == theirs).all()
            for ours, theirs in zip(
                cut.model.state_dict().values(), make_tiny_model().state_dict().values(), strict=True
            )
        )

    def test_slow_server_is_waited_for(self, endpoint, monkeypatch):
        monkeypatch.setattr(hub_module, "_ANSWER_SECONDS", 0.1)
        with serving(tiny_hub(delay=0.5)) as server:
            endpoint(server.url)
            assert open_backbone("hf-hub:org/name", device="cpu").embedding_dim == 64

    def test_connection_without_an_answer_is_not_a_failure(self, endpoint, silent, monkeypatch):
        monkeypatch.setattr(hub_module, "_ANSWER_SECONDS", 0.1)
        endpoint(f"http://{port_of(silent)}")
        assert Hub().failure == ""

    def test_redirect_of_the_root_page_is_not_followed(self, endpoint):
        with serving(tiny_hub(moved_to=f"http://{closed_port()}")) as server:
            endpoint(server.url)
            assert open_backbone("hf-hub:org/name", device="cpu").embedding_dim == 64

    def test_missing_repository_raises(self, endpoint):
        with serving(tiny_hub()) as server:
            endpoint(server.url)
            with pytest.raises(WeightsUnavailableError, match=r"org/other.*404"):
                open_backbone("hf-hub:org/other", device="cpu")

    def test_requests_client(self, endpoint, monkeypatch, silent):
        # huggingface_hub before 1.0 uses requests.
        requests = pytest.importorskip("requests")
        monkeypatch.setattr(hub_module, "get_session", requests.Session)
        monkeypatch.setattr(hub_module, "_ANSWER_SECONDS", 0.1)
        with serving(tiny_hub(delay=0.5)) as server:
            endpoint(server.url)
            assert Hub().failure == ""
        monkeypatch.setattr(hub_module, "_CONNECT_SECONDS", 0.5)
        for url in (f"http://{closed_port()}", "https://nowhere.invalid", f"https://{port_of(silent)}"):
            endpoint(url)
            assert url in Hub().failure


class TestCache:
    @pytest.mark.parametrize("name", ["ViT-B-16/openai", "hf-hub:org/name"])
    def test_cached_weights_open_without_a_network(self, endpoint, tiny_architecture, monkeypatch, name):
        with serving(tiny_hub()) as server:
            endpoint(server.url)
            fingerprint = open_backbone(name, device="cpu").fingerprint
        registry._loaded.clear()
        for download in ("download_pretrained", "download_pretrained_from_hf"):
            monkeypatch.setattr(loading, download, lambda *args, **kwargs: pytest.fail("download attempted"))
        start = time.perf_counter()
        assert open_backbone(name, device="cpu").fingerprint == fingerprint
        assert time.perf_counter() - start < SECONDS

    def test_with_a_network_the_cache_is_validated_but_not_downloaded_again(self, endpoint):
        with serving(tiny_hub()) as server:
            endpoint(server.url)
            open_backbone("hf-hub:org/name", device="cpu")
            registry._loaded.clear()
            server.requests.clear()
            open_backbone("hf-hub:org/name", device="cpu")
        assert "HEAD /org/name/resolve/main/open_clip_model.safetensors" in server.requests
        assert not any(request.startswith("GET") for request in server.requests)

    def test_backbone_recorded_in_a_feature_cache_sends_no_request(self, endpoint, monkeypatch, tmp_path):
        memory = tmp_path / "features"
        with serving(tiny_hub()) as server:
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
        with serving(tiny_hub()) as server:
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


class TestFirstRun:
    """Fit and predict in new processes: with an empty cache, then from the cache without a network."""

    CODE = """
import numpy as np, sys
from clipcal import PromptTunedCLIPClassifier
X = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
clf = PromptTunedCLIPClassifier(sys.argv[1], recipe="original", max_epochs=1, random_state=0, device="cpu")
print(clf.fit(X, ["cat", "dog", "cat", "dog"]).predict_proba(X).tolist())
"""

    def run(self, backbone, environment):
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, backbone],
            env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def check(self, backbone, server, home):
        environment = hub_environment(server, home)
        with serving(server):
            first = self.run(backbone, environment)
            assert len(server.downloads()) == 1
            assert self.run(backbone, environment) == first
            assert len(server.downloads()) == 1
        assert np.allclose(np.sum(json.loads(first), axis=1), 1)
        assert self.run(backbone, environment | {"HF_HUB_OFFLINE": "1"}) == first

    @pytest.mark.slow
    def test_repository(self, tmp_path):
        self.check("hf-hub:org/name", tiny_hub(), tmp_path)

    @pytest.mark.slow
    def test_default_backbone(self, tmp_path):
        weights = tmp_path / "ViT-B-16.safetensors"  # 300 MB
        try:
            files = random_repository("ViT-B-16", weights)
            self.check("ViT-B-16/openai", FakeHub({OPENAI_REPOSITORY: files}), tmp_path / "home")
        finally:
            weights.unlink()
            shutil.rmtree(tmp_path / "home", ignore_errors=True)


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
        text_cfg = MODEL_CFG["text_cfg"] | {"hf_tokenizer_name": "org/tokenizer"}
        with serving(tiny_hub(MODEL_CFG | {"text_cfg": text_cfg})) as server:
            endpoint(server.url)
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
        with serving(tiny_hub(delay=0.5)) as server:
            tag(f"{server.url}/org/name/resolve/main/open_clip_model.safetensors")
            fingerprint = open_backbone("Tiny/tag", device="cpu").fingerprint
        registry._loaded.clear()
        assert open_backbone("Tiny/tag", device="cpu").fingerprint == fingerprint

    def test_http_error_is_not_a_connection_failure(self):
        with serving(tiny_hub()) as server:
            hub_module._probe_url(f"{server.url}/nothing")
        assert server.requests == ["HEAD /nothing"]
