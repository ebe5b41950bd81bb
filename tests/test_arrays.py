"""Tensors are converted to arrays; other objects are unchanged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipcal._arrays import to_numpy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float64, np.float64),
        (torch.float32, np.float32),
        (torch.float16, np.float16),
        (torch.bfloat16, np.float32),
        (torch.float8_e4m3fn, np.float32),
        (torch.int64, np.int64),
        (torch.bool, np.bool_),
    ],
)
def test_dtypes_that_numpy_supports_are_kept(given, expected):
    array = to_numpy(torch.tensor([1.0, 0.0]).to(given))
    assert isinstance(array, np.ndarray)
    assert array.dtype == expected
    np.testing.assert_array_equal(array.astype(float), [1.0, 0.0])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.tensor([0.5, 1.0], requires_grad=True) * 2,
        torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)),
        torch.tensor([1 + 1j, 2 + 2j]).conj().imag.neg() * 1,
    ],
    ids=["leaf", "graph", "parameter", "lazy"],
)
def test_tensors_are_detached_and_resolved(tensor):
    np.testing.assert_array_equal(to_numpy(tensor), [1.0, 2.0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="requires a GPU")
def test_tensor_on_a_gpu():
    np.testing.assert_array_equal(to_numpy(torch.ones(3, device="cuda", requires_grad=True)), np.ones(3))


@pytest.mark.parametrize("values", [None, "a", 1.0, [1.0], (1,), np.ones(2), np.float32(1.0)])
def test_other_objects_are_unchanged(values):
    assert to_numpy(values) is values
