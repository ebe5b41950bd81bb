"""Learned contexts after 50 steps equal those stored in ``tests/data/contexts.npz``.

``python tests/training/test_reference.py`` rewrites the file. Run it only after a change that is meant to
alter the learned contexts.
"""

from pathlib import Path

import numpy as np
import pytest

from clipcal import (
    CLIPImageEncoder,
    CoOp,
    DynamicOutlierRegularizer,
    KgCoOp,
    PromptTunedCLIPClassifier,
    make_shapes,
)
from clipcal.regularizers import AnchorRegularizer

FILE = Path(__file__).parents[1] / "data" / "contexts.npz"
N_CLASSES, N_SHOTS = 10, 16
NOUNS = [
    f"{colour} {thing}" for colour in ("red", "dark", "old") for thing in ("barn", "vase", "violin", "map")
]


def dor(**params):
    return DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=5, **params)


CASES = {
    "words": {},
    "random": {"method": CoOp(None, n_context=16)},
    "middle": {"method": CoOp(None, n_context=5, class_token_position="middle")},
    "front": {"method": CoOp(class_token_position="front")},
    "class-specific": {"method": CoOp(None, n_context=4, class_specific=True)},
    "kgcoop": {"method": KgCoOp()},
    "kg": {"method": CoOp(None, n_context=4), "regularizer": AnchorRegularizer(2.0)},
    "dor": {"method": CoOp(None, n_context=16), "regularizer": dor()},
    "kgcoop with dor": {"method": "kgcoop", "regularizer": dor(weight=4.0, pool="far", pool_size=6)},
    "learning rate": {"learning_rate": 0.02, "batch_size": 160, "max_epochs": 50},
}


def data():
    images, labels = make_shapes("colors", n_per_class=N_SHOTS, random_state=0, return_X_y=True)
    few = np.isin(labels, np.unique(labels)[:N_CLASSES])
    return CLIPImageEncoder("mini", device="cpu").transform(images[few]), labels[few]


def learned(X, y, case, **fit_params):
    # 160 samples in batches of 32: five steps an epoch.
    params = {"recipe": "original", "max_epochs": 10, "batch_size": 32, "random_state": 0, "device": "cpu"}
    params |= CASES[case]
    return PromptTunedCLIPClassifier("mini", **params).fit(X, y, **fit_params).learned_["context"]


@pytest.fixture(scope="module")
def embedded():
    return data()


@pytest.mark.parametrize("case", CASES)
def test_contexts_equal_the_reference(embedded, case):
    with np.load(FILE) as expected:
        np.testing.assert_allclose(learned(*embedded, case), expected[case], rtol=0, atol=1e-6)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    X, y = data()
    np.savez_compressed(FILE, **{case: learned(X, y, case) for case in CASES})
