"""Encode prompts in chunks to limit the memory of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["chunks_of", "encode_in_chunks", "memory_budget"]

_BUDGET = 2**29
# Prompts per chunk if the memory per token is unknown.
_SIZE = 256


def memory_budget(device: torch.device) -> int:
    """Return the number of bytes that one chunk may keep for the backward pass on a device."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return max(_BUDGET, free // 4)


def chunks_of(lengths: Tensor, size: int | str, *, cost: int | None, budget: int) -> list[slice]:
    """Split prompts into chunks that are encoded one at a time.

    Parameters
    ----------
    lengths : Tensor of int, shape (n_prompts,), on the CPU
        Number of tokens computed for each prompt.
    size : int or "auto"
        Prompts per chunk. ``"auto"`` uses as many as the budget allows.
    cost : int or None
        Bytes per token that are kept for the backward pass, if known.
    budget : int
        Bytes that a chunk may keep for the backward pass.

    Returns
    -------
    chunks : list of slice
        At least one.
    """
    if isinstance(size, str):
        size = _SIZE
        if cost is not None:
            chunk = (lengths.cumsum(0) - 1) // max(1, budget // cost)
            stops = torch.unique_consecutive(chunk, return_counts=True)[1].cumsum(0).tolist()
            return [slice(start, stop) for start, stop in pairwise([0, *stops])]
    return [slice(start, start + size) for start in range(0, len(lengths), size)]


def encode_in_chunks(
    encode: Callable[..., Tensor], chunks: Sequence[slice], learned: Sequence[Tensor]
) -> Tensor:
    """Encode prompts chunk by chunk, with the memory needed for one chunk.

    A single chunk is encoded with its computation graph. Several chunks are encoded without a graph, and
    each is encoded again in the backward pass, where its gradient is added to those of the learned tensors.

    Parameters
    ----------
    encode : callable
        ``encode(rows, *learned)`` returns the features of some prompts, shape (..., n_rows, embedding_dim).
    chunks : sequence of slice
        Rows of each chunk, in order.
    learned : sequence of Tensor
        Tensors with respect to which the features are differentiated.

    Returns
    -------
    features : Tensor, shape (..., n_prompts, embedding_dim)
        Up to rounding, features and gradients equal those of a single chunk.
    """
    if len(chunks) == 1:
        return encode(chunks[0], *learned)
    return cast(Tensor, _Chunked.apply(encode, chunks, *learned))


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encode: Callable[..., Tensor], chunks: Sequence[slice], *learned: Tensor) -> Tensor:
        ctx.encode, ctx.chunks = encode, chunks
        ctx.save_for_backward(*learned)
        return torch.cat([encode(rows, *learned) for rows in chunks], dim=-2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        wanted = ctx.needs_input_grad[2:]
        learned = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        active = [tensor for tensor in learned if tensor.requires_grad]
        totals = [torch.zeros_like(tensor) for tensor in active]
        for rows in ctx.chunks:
            with torch.enable_grad():
                features = ctx.encode(rows, *learned)
            parts = torch.autograd.grad(features, active, grads[0][..., rows, :])
            for total, part in zip(totals, parts, strict=True):
                total += part
        remaining = iter(totals)
        return None, None, *(next(remaining) if needed else None for needed in wanted)
