"""Tensors of every kind become arrays; nothing else is touched."""

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
def test_types_are_kept_where_numpy_has_them(given, expected):
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
def test_graphs_are_left_behind(tensor):
    np.testing.assert_array_equal(to_numpy(tensor), [1.0, 2.0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_other_devices():
    np.testing.assert_array_equal(to_numpy(torch.ones(3, device="cuda", requires_grad=True)), np.ones(3))


@pytest.mark.parametrize("values", [None, "a", 1.0, [1.0], (1,), np.ones(2), np.float32(1.0)])
def test_everything_else_stays(values):
    assert to_numpy(values) is values
