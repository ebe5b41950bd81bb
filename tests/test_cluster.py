"""The code on the page about clusters runs, with the embedded CLIP instead of a large one."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcal import CLIPImageEncoder
from clipcal.images import load_embeddings

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "cluster.md"


def code_after(title, n):
    """Return block number n of the Python code after a title, for the embedded CLIP."""
    section = PAGE.read_text(encoding="utf-8").partition(f"# {title}\n")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[n]
    return code.replace("ViT-B-16/openai", "mini")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Write photographs to a folder in the working directory and return their paths, which are relative."""
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    paths = [Path("photos") / f"{i:02}.jpg" for i in range(12)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)).save(path)
    return paths


def test_one_machine(photos):
    photos[3].write_bytes(b"not an image")
    names = {"y": np.array(["cat", "dog"] * 6)}
    with pytest.warns(UserWarning, match="1 images"):
        exec(code_after("Encoding millions of images", 0), names)
    code = code_after("Encoding millions of images", 1)
    assert 'PromptTunedCLIPClassifier("mini")' in code
    quick = code.replace(
        'PromptTunedCLIPClassifier("mini")', 'PromptTunedCLIPClassifier("mini", max_epochs=1)'
    )
    exec(quick, names)
    assert names["data"].positions.tolist() == [0, 1, 2, *range(4, 12)]
    assert names["clf"].predict(names["data"].embeddings).shape == (11,)


def test_parts(photos, monkeypatch):
    code = code_after("Several GPUs or machines", 0)
    code = code.replace("part=part", "part=part, shard_size=2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    for i in (2, 0, 1):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(i))
        exec(code, {})
    data = load_embeddings("embeddings", backbone="mini")
    assert data.paths == list(map(str, photos))
    np.testing.assert_allclose(data.embeddings, CLIPImageEncoder("mini").transform(photos), atol=1e-6)


@pytest.mark.slow
def test_ray(photos, tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    title = "Decoding on other machines than those with GPUs"
    code = code_after(title, 0).replace("SIZE = 224", "SIZE = 32").replace("N_GPUS = 4", "N_GPUS = 1")
    names = {"__name__": "recipe"}
    exec(code + code_after(title, 1), names)
    # Ray does not check that the GPU exists, and the backbone uses the CPU if there is none.
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        names["encode"]([tmp_path / path for path in photos], tmp_path / "encoded")
    finally:
        ray.shutdown()
    paths, embeddings = names["read"](tmp_path / "encoded")
    assert paths == [str(tmp_path / path) for path in photos]
    np.testing.assert_allclose(embeddings, CLIPImageEncoder("mini").transform(photos), atol=1e-6)
