"""Shared fixtures."""

import os
import sys

# The models in the tests are small, and on a busy machine threads that share small operations spend most of
# the time waiting. Set before torch is imported, and inherited by subprocesses.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(autouse=True)
def close_figures():
    """Close figures that a test leaves open, as code on pages and in the README does."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def tiny_backbone():
    """Return a CLIP model of open_clip with random weights on the CPU."""
    # Imported here, as importing open_clip is slow and not all tests need it.
    import open_clip
    from tiny_clip import make_tiny_model

    from clipcal.backbones import OpenClipBackbone

    return OpenClipBackbone(make_tiny_model(), open_clip.SimpleTokenizer(), device="cpu")
