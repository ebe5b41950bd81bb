"""Describe the environment for bug reports: versions, devices, and folders."""

from __future__ import annotations

import importlib
import os
import platform
import re
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clipcal import __version__

__all__ = ["describe_environment", "format_environment"]

# The module that each distribution installs, in the order of the description; in brackets its extra.
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "open_clip_torch": "open_clip",
    "scikit-learn": "sklearn",
    "numpy": "numpy",
    "scipy": "scipy",
    "huggingface_hub": "huggingface_hub",
    "joblib": "joblib",
    "nltk": "nltk",
    "pillow": "PIL",
    "safetensors": "safetensors",
    "threadpoolctl": "threadpoolctl",
    "tqdm": "tqdm",
}
OPTIONAL_PACKAGES = {
    "matplotlib [plot]": "matplotlib",
    "rich [rich]": "rich",
    "pandas [pandas]": "pandas",
    "jinja2 [report]": "jinja2",
    "pyarrow [parquet]": "pyarrow",
    "distributed [cluster]": "distributed",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
NETWORK_VARIABLES = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE")
_GIB = 2**30


def describe_environment() -> dict[str, dict[str, str]]:
    """Describe the environment that clipcal runs in.

    Packages are imported, as an installed package may be broken. What cannot be determined is described by
    the error. The home folder is replaced by ``~``, and passwords in URLs are dropped.

    Returns
    -------
    dict of str to dict
        For each section, such as ``"Devices"``, names and values.
    """
    sections = {
        "System": _system,
        "Packages": lambda: {name: _package(name, module) for name, module in PACKAGES.items()},
        "Optional packages [extra]": lambda: {
            name: _package(name, module) for name, module in OPTIONAL_PACKAGES.items()
        },
        "Devices": _devices,
        "Threads": _threads,
        "Folders": _folders,
        "Network": lambda: _variables(NETWORK_VARIABLES),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        described = {title: _attempt(section) for title, section in sections.items()}
    return {
        title: {name: _without_secrets(value) for name, value in lines.items()}
        for title, lines in described.items()
    }


def format_environment(sections: dict[str, dict[str, str]]) -> str:
    """Return the sections of a description as aligned text."""
    width = max(len(name) for lines in sections.values() for name in lines)
    blocks = []
    for title, lines in sections.items():
        blocks.append("\n".join([title, *(f"  {name:{width}}  {value}" for name, value in lines.items())]))
    return "\n\n".join(blocks)


def _attempt(section: Callable[[], dict[str, str]]) -> dict[str, str]:
    try:
        return section()
    except Exception as error:
        return {"unknown": _reason(error)}


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _system() -> dict[str, str]:
    return {
        "clipcal": f"{__version__}, in {Path(__file__).parent}",
        "Python": f"{platform.python_version()}, {platform.python_implementation()}",
        "platform": platform.platform(),
    }


def _package(name: str, module: str) -> str:
    """Return the version of a package, and the error if it cannot be imported."""
    try:
        found = version(name.partition(" ")[0]) or "unknown version"
    except PackageNotFoundError:
        return "not installed"
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        return f"{found}, cannot be imported: {_reason(error)}"
    return found


def _devices() -> dict[str, str]:
    described = {"CPU": f"{_cpu()}, {os.cpu_count()} cores"}
    import torch

    from clipcal.backbones import resolve_device, resolve_precision

    described["CUDA"] = f"version {torch.version.cuda} of torch" if torch.version.cuda else "not in torch"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            described[f"cuda:{number}"] = f"{card.name}, {card.total_memory / _GIB:.1f} GiB"
    else:
        described["CUDA"] += ", no device"
    described["MPS"] = "available" if torch.backends.mps.is_available() else "no device"
    device = resolve_device("auto")
    described['device="auto"'] = str(device)
    described['precision="auto"'] = resolve_precision("auto", device)
    return described


def _cpu() -> str:
    """Return the name of the processor, which Linux lists in a file."""
    try:
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        listed = ""
    named = re.search(r"^model name\s*:\s*(.+)$", listed, flags=re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def _threads() -> dict[str, str]:
    described = _variables(THREAD_VARIABLES)
    import torch

    return {"torch": str(torch.get_num_threads()), **described}


def _folders() -> dict[str, str]:
    described = _variables(["CLIPCAL_DATA"])
    from clipcal.backbones import cached_checkpoints, cached_models, hub_cache, url_cache

    described["Hugging Face cache"] = str(hub_cache())
    described["models in it"] = ", ".join(cached_models()) or "none"
    described["checkpoint cache"] = str(url_cache())
    described["checkpoints in it"] = ", ".join(cached_checkpoints()) or "none"
    return described


def _variables(names: tuple[str, ...] | list[str]) -> dict[str, str]:
    return {name: os.environ.get(name, "not set") for name in names}


def _homes() -> set[str]:
    try:
        return {str(Path.home()), str(Path.home().resolve())}
    except RuntimeError:  # a user without an entry in the list of users, as in some containers
        return set()


def _without_secrets(text: str) -> str:
    """Replace the home folder, which often has the name of the user, and drop secrets of URLs."""
    text = re.sub(r"://\S*@", "://", text)
    text = re.sub(r"(://[^\s?]*)\?\S*", r"\1?...", text)
    for home in _homes():
        if home != Path(home).anchor:
            text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    return text
