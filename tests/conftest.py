"""Fixtures that several test files share."""

import pytest


@pytest.fixture(scope="session")
def tiny_backbone():
    """Return a real CLIP with random weights on the CPU."""
    # Tests of NumPy code should not wait for open_clip to be imported.
    import open_clip
    from tiny_clip import make_tiny_model

    from clipcal.backbones import OpenClipBackbone

    return OpenClipBackbone(make_tiny_model(), open_clip.SimpleTokenizer(), device="cpu")
