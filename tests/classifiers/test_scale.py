"""Memory and time of a fit with 1000 classes."""

import subprocess
import sys
from pathlib import Path

import pytest

# VmHWM is the peak of this process only; ru_maxrss would include the peak of the parent process.
CODE = """
import sys, time
import numpy as np, open_clip, torch
from clipcal import CoOp, PromptTunedCLIPClassifier
from clipcal.backbones import OpenClipBackbone

def megabytes(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

torch.set_num_threads(1)
torch.manual_seed(0)
model = open_clip.CLIP(
    embed_dim=512,
    vision_cfg=dict(image_size=32, patch_size=16, width=64, layers=1),
    text_cfg=dict(width=512, heads=8, layers=2),
)
backbone = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
n_classes = 1000
X = np.random.default_rng(0).normal(size=(n_classes, 512))
y = [f"thing {i:04d}" for i in range(n_classes)]
clf = PromptTunedCLIPClassifier(
    backbone, method=CoOp(text_chunk_size=int(sys.argv[1])), max_epochs=1, batch_size=n_classes
)
clf.fit(X[:4], y[:4])  # excludes imports and other one-time costs
before = megabytes("VmRSS")
start = time.perf_counter()
clf.fit(X, y)
print(megabytes("VmHWM") - before, time.perf_counter() - start, clf.text_features_.shape[0])
"""


def fit(chunk_size):
    """Return the increase of peak memory in MB and the duration in seconds of one fit."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(chunk_size)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    growth, seconds, n_classes = map(float, done.stdout.split()[-3:])
    assert n_classes == 1000
    return growth, seconds


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_chunks_reduce_the_memory():
    chunked, seconds_chunked = fit(64)
    whole, seconds_whole = fit(1000)
    assert whole > 400  # otherwise the comparison is meaningless
    assert chunked < whole / 4
    assert max(seconds_chunked, seconds_whole) < 60
