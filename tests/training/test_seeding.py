"""Random number generators are seeded by ``random_state`` and do not change global state."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_backbone import AnyWidthBackbone

from clipcal import CoOp, DynamicOutlierRegularizer, PromptTunedCLIPClassifier
from clipcal.training import torch_generator


def draws(random_state, n=4):
    return torch.rand(n, generator=torch_generator(random_state)).tolist()


def test_zero_is_a_valid_seed():
    assert draws(0) == draws(0)
    assert draws(0) != draws(1)
    assert draws(None) != draws(None)


def test_random_state_instance_advances():
    state = np.random.RandomState(3)
    first = draws(state)
    assert first == draws(3)
    assert draws(state) != first


@pytest.mark.parametrize("random_state", [0, None])
def test_fit_does_not_change_global_generators(random_state):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    clf = PromptTunedCLIPClassifier(
        AnyWidthBackbone(),
        method=CoOp(context_init=None, n_context=2),
        regularizer=DynamicOutlierRegularizer(lexicon=["dog", "river", "denim"]),
        n_views=3,
        max_epochs=2,
        random_state=random_state,
    )
    # None means NumPy's global generator, as in scikit-learn, so that generator may advance.
    numpy_before, torch_before = np.random.get_state()[1:3], torch.random.get_rng_state()
    clf.fit([Image.fromarray(p) for p in pixels], ["cat", "cow"] * 3)
    assert torch.equal(torch_before, torch.random.get_rng_state())
    if random_state is not None:
        after = np.random.get_state()[1:3]
        np.testing.assert_array_equal(numpy_before[0], after[0])
        assert numpy_before[1] == after[1]
