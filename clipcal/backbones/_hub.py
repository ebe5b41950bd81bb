"""Files of pretrained models, fetched or found in the cache; a missing network is noticed within seconds."""

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
# Where open_clip and the clip package of OpenAI keep what does not come from the hub.
URL_CACHE = Path("~/.cache/clip")

# Each address of a host is given the first, all of them together and the name service the last.
_CONNECT_SECONDS = 3.5
_ANSWER_SECONDS = 2.0
_TOTAL_SECONDS = 7.5
# huggingface_hub has changed its HTTP client and may do so again, so errors are known by their names:
# those of httpx, then those that requests wraps.
_NOT_CONNECTED = {"ConnectError", "ConnectTimeout", "ProxyError"}
_NOT_CONNECTED |= {"NewConnectionError", "ConnectTimeoutError", "SSLError"}


class Hub:
    """Where pretrained files come from, as one opening of a backbone finds it.

    The client of the hub repeats requests that fail and so takes minutes to say that there is no network.
    Here, one request with the client's own session, and so with its proxies and certificates, comes before
    its first download. Only where that request could not be connected does the cache have to do.
    """

    @property
    def endpoint(self) -> str:
        """The address of the hub, which the environment may have set to a mirror."""
        return str(constants.ENDPOINT)

    @cached_property
    def failure(self) -> str:
        """Why the hub cannot be connected to; empty if it can, or if the user has forbidden to try."""
        return "" if constants.HF_HUB_OFFLINE else _failure(self.endpoint, _knock_at_hub)

    def fetch(self, download: Callable[[], str], repository: str, filename: str = "") -> Path:
        """Return a file of a repository on the hub.

        Parameters
        ----------
        download : callable
            Downloads the file unless the cache has the newest one, and returns its path.
        repository : str
            The repository, ``"org/name"``.
        filename : str, default=""
            The file; empty for the weights under the names that open_clip gives them.

        Returns
        -------
        Path
            The file in the cache.

        Raises
        ------
        ConnectionError
            If the hub cannot be connected to and the cache has no such file.
        """
        if not self.failure:
            return Path(download())
        for candidate in _candidates(filename):
            # Not hf_hub_download(local_files_only=True), which may ask the hub how to introduce itself.
            found = try_to_load_from_cache(repository, candidate)
            if isinstance(found, str):
                return Path(found)
        raise ConnectionError(self.failure)

    def fetch_url(self, download: Callable[[], str], url: str) -> Path:
        """Return a file that has an address of its own; see :meth:`fetch`."""
        if not cached_file(url).is_file():
            failure = _failure(url, partial(_knock_at_url, url))
            if failure:
                raise ConnectionError(failure)
        return Path(download())


def cached_file(url: str) -> Path:
    """Say where open_clip and the clip package keep the file of an address."""
    return URL_CACHE.expanduser() / os.path.basename(url)


def _candidates(filename: str) -> list[str]:
    """List the names of a file in the order in which open_clip tries them."""
    if not filename:
        return ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    stem, suffix = os.path.splitext(filename)
    return [f"{stem}.safetensors", filename] if suffix in (".bin", ".pth") else [filename]


class _NotConnectedError(OSError):
    """No connection could be made; an answer that is late, or not the one hoped for, is no such case."""


def _failure(address: str, knock: Callable[[], None]) -> str:
    """Say why `knock` could make no connection; empty if it made one, whatever came of it."""
    reasons: list[str] = []

    def run() -> None:
        try:
            knock()
        except _NotConnectedError as error:
            reasons.append(str(error))

    # In a thread, as no timeout of a client covers the name service.
    thread = threading.Thread(target=run, name="clipcal-knock", daemon=True)
    thread.start()
    thread.join(_TOTAL_SECONDS)
    if thread.is_alive():
        reasons.append(f"nothing within {_TOTAL_SECONDS} seconds")
    return f"No connection to {address}: {reasons[0]}." if reasons else ""


def _knock_at_hub() -> None:
    """Ask for the head of the hub's first page with the client's own session."""
    try:
        session: Any = get_session()
        # httpx is told not to follow a redirection, which may lead elsewhere; requests does not by itself.
        stay = {"follow_redirects": False} if hasattr(session, "follow_redirects") else {}
        session.head(str(constants.ENDPOINT), timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS), **stay)
    except Exception as error:
        # Whatever else goes wrong is for the client to deal with.
        if any(map(_is_unconnected, _layers(error))):
            raise _NotConnectedError(f"{type(error).__name__}: {error}") from error


def _knock_at_url(url: str) -> None:
    """Ask for the head of a file the way open_clip downloads it, which is with urllib."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_CONNECT_SECONDS).close()
    except urllib.error.HTTPError:
        return
    except urllib.error.URLError as error:
        raise _NotConnectedError(str(error.reason)) from error
    except (OSError, http.client.HTTPException):
        return  # urllib wraps what goes wrong before there is a connection, and only that


def _layers(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those that requests has put into it."""
    layer: Any = error
    while isinstance(layer, BaseException):
        yield layer
        inner = getattr(layer, "reason", None) or (layer.args[0] if layer.args else None)
        layer = inner if isinstance(inner, BaseException) else layer.__cause__


def _is_unconnected(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    # To requests, a server that leaves the handshake of TLS unanswered is one that is slow to answer.
    return bool(names & _NOT_CONNECTED) or (isinstance(error, TimeoutError) and "handshake" in str(error))
