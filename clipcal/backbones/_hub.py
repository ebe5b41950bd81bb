"""Download the files of pretrained models or find them in the cache, failing fast without a network."""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import get_session

CONFIG_FILE = "open_clip_config.json"
# Where open_clip and OpenAI's clip package store files that are not from the hub.
URL_CACHE = Path("~/.cache/clip")
_CHECKPOINT_SUFFIXES = {".bin", ".pt", ".pth", ".safetensors"}

# Timeouts: to connect to one IP address, to wait for an answer, and in total, including name resolution.
_CONNECT_SECONDS = 3.5
_ANSWER_SECONDS = 2.0
_TOTAL_SECONDS = 7.5
# Connection errors are recognized by name, as huggingface_hub has changed its HTTP client before: first those
# of httpx, then those that requests wraps.
_NOT_CONNECTED = {"ConnectError", "ConnectTimeout", "ProxyError"}
_NOT_CONNECTED |= {"NewConnectionError", "ConnectTimeoutError", "SSLError"}


class Hub:
    """Source of pretrained files while one backbone is opened.

    The hub client retries failed requests, so it takes minutes to report a missing network. Before its first
    download, this class sends one request with the client's own session, which has its proxies and
    certificates. Only if that request cannot connect, files are read from the cache alone.
    """

    @property
    def endpoint(self) -> str:
        """URL of the hub, which the environment may set to a mirror."""
        return str(constants.ENDPOINT)

    @cached_property
    def failure(self) -> str:
        """Why the connection to the hub failed; empty if it succeeded or HF_HUB_OFFLINE is set."""
        return "" if constants.HF_HUB_OFFLINE else _failure(self.endpoint, _probe_hub)

    def fetch(self, download: Callable[[], str], repository: str, filename: str = "") -> Path:
        """Return a file of a repository on the hub.

        Parameters
        ----------
        download : callable
            Function that downloads the file, unless the cached version is current, and returns its path.
        repository : str
            The repository, ``"org/name"``.
        filename : str, default=""
            The file; empty for the weights under open_clip's default names.

        Returns
        -------
        Path
            The file in the cache.

        Raises
        ------
        ConnectionError
            If the connection to the hub fails and the file is not in the cache.
        """
        if not self.failure:
            return Path(download())
        for candidate in _candidates(filename):
            # hf_hub_download(local_files_only=True) may still send a request to the hub.
            found = try_to_load_from_cache(repository, candidate)
            if isinstance(found, str):
                return Path(found)
        raise ConnectionError(self.failure)

    def fetch_url(self, download: Callable[[], str], url: str) -> Path:
        """Return a file that is downloaded from a URL; see :meth:`fetch`."""
        if not cached_file(url).is_file():
            failure = _failure(url, partial(_probe_url, url))
            if failure:
                raise ConnectionError(failure)
        return Path(download())


def cached_file(url: str) -> Path:
    """Return the path at which open_clip and the clip package cache the file of a URL."""
    return url_cache() / os.path.basename(url)


def url_cache() -> Path:
    """Return the folder in which open_clip and the clip package cache files that are not from the hub."""
    return URL_CACHE.expanduser()


def hub_cache() -> Path:
    """Return the folder of the cache of the hub, which the environment may set."""
    return Path(constants.HF_HUB_CACHE)


def cached_models() -> list[str]:
    """Return names of backbones whose configuration and weights are in the cache of the hub."""
    found = []
    for folder in sorted(hub_cache().glob("models--*--*")):
        complete = any(
            (config.parent / weights).exists()
            for config in folder.glob(f"snapshots/*/{CONFIG_FILE}")
            for weights in _candidates("")
        )
        if complete:
            found.append("hf-hub:" + folder.name.removeprefix("models--").replace("--", "/", 1))
    return found


def cached_checkpoints() -> list[str]:
    """Return the names of the checkpoint files in the cache of files that are not from the hub."""
    return sorted(path.name for path in url_cache().glob("*") if path.suffix in _CHECKPOINT_SUFFIXES)


def _candidates(filename: str) -> list[str]:
    """List the file names that open_clip tries, in its order."""
    if not filename:
        return ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    stem, suffix = os.path.splitext(filename)
    return [f"{stem}.safetensors", filename] if suffix in (".bin", ".pth") else [filename]


class _NotConnectedError(OSError):
    """No connection could be made. A late answer or an HTTP error is not such a failure."""


def _failure(address: str, probe: Callable[[], None]) -> str:
    """Return why `probe` could not connect; empty if it connected, whatever the answer."""
    reasons: list[str] = []

    def run() -> None:
        try:
            probe()
        except _NotConnectedError as error:
            reasons.append(str(error))

    # In a thread, as the timeouts of the clients do not cover name resolution.
    thread = threading.Thread(target=run, name="clipcal-probe", daemon=True)
    thread.start()
    thread.join(_TOTAL_SECONDS)
    if thread.is_alive():
        reasons.append(f"no answer within {_TOTAL_SECONDS} seconds")
    return f"No connection to {address}: {reasons[0]}." if reasons else ""


def _probe_hub() -> None:
    """Send a HEAD request for the root page of the hub with the client's own session."""
    try:
        session: Any = get_session()
        # Do not follow redirects, which may lead to another host; requests does not follow them for HEAD.
        stay = {"follow_redirects": False} if hasattr(session, "follow_redirects") else {}
        session.head(str(constants.ENDPOINT), timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS), **stay)
    except Exception as error:
        # Other errors are left to the client.
        if any(map(_is_unconnected, _layers(error))):
            raise _NotConnectedError(f"{type(error).__name__}: {error}") from error


def _probe_url(url: str) -> None:
    """Send a HEAD request for a file with urllib, which open_clip downloads with."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_CONNECT_SECONDS).close()
    except urllib.error.HTTPError:
        return
    except urllib.error.URLError as error:
        raise _NotConnectedError(str(error.reason)) from error
    except (OSError, http.client.HTTPException):
        return  # the connection exists: urllib wraps errors before that in URLError


def _layers(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that it wraps or was raised from."""
    layer: Any = error
    while isinstance(layer, BaseException):
        yield layer
        inner = getattr(layer, "reason", None) or (layer.args[0] if layer.args else None)
        layer = inner if isinstance(inner, BaseException) else layer.__cause__


def _is_unconnected(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    # requests reports a TLS handshake without answer as a read timeout.
    return bool(names & _NOT_CONNECTED) or (isinstance(error, TimeoutError) and "handshake" in str(error))
