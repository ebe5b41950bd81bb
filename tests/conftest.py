"""Fixtures that several test files share."""

import os

# The models of the tests are small, and on a busy machine threads that share small operations wait for each
# other far longer than they compute. Set before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def tiny_backbone():
    """Return a real CLIP with random weights on the CPU."""
    # Tests of NumPy code should not wait for open_clip to be imported.
    import open_clip
    from tiny_clip import make_tiny_model

    from clipcal.backbones import OpenClipBackbone

    return OpenClipBackbone(make_tiny_model(), open_clip.SimpleTokenizer(), device="cpu")
