"""Text features of any number of prompts in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["chunks_of", "encode_in_chunks", "memory_budget"]

_BUDGET = 2**29
# Where a backbone does not say what a token costs.
_SIZE = 256


def memory_budget(device: torch.device) -> int:
    """Return how many bytes one chunk may leave for the backward pass on a device."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return max(_BUDGET, free // 4)


def chunks_of(lengths: Tensor, size: int | str, *, cost: int | None, budget: int) -> list[slice]:
    """Cut prompts into runs that are encoded at once.

    Parameters
    ----------
    lengths : Tensor of int, shape (n_prompts,), on the CPU
        Tokens that are computed for each prompt.
    size : int or "auto"
        Prompts in a chunk; ``"auto"`` takes as many as the budget allows.
    cost : int or None
        Bytes that a token leaves for the backward pass, if known.
    budget : int
        Bytes that a chunk may leave.

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
    encode: Callable[[slice, Tensor], Tensor], chunks: Sequence[slice], context: Tensor
) -> Tensor:
    """Encode chunk by chunk with the memory of one.

    A single chunk is encoded with its graph. Several are encoded without; once the gradient of the loss with
    respect to their features is known, each is encoded again and hands its part on to the context.

    Parameters
    ----------
    encode : callable
        ``encode(rows, context)`` gives the features of some prompts, shape (n_rows, embedding_dim).
    chunks : sequence of slice
        The rows, in order.
    context : Tensor
        What the features are differentiated by.

    Returns
    -------
    features : Tensor, shape (n_prompts, embedding_dim)
        The same as from one chunk, gradient included, up to rounding.
    """
    if len(chunks) == 1:
        return encode(chunks[0], context)
    return cast(Tensor, _Chunked.apply(encode, chunks, context))


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, encode: Callable[[slice, Tensor], Tensor], chunks: Sequence[slice], context: Tensor
    ) -> Tensor:
        ctx.encode, ctx.chunks = encode, chunks
        ctx.save_for_backward(context)
        return torch.cat([encode(rows, context) for rows in chunks])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        context = ctx.saved_tensors[0].detach().requires_grad_()
        total = torch.zeros_like(context)
        for rows in ctx.chunks:
            with torch.enable_grad():
                features = ctx.encode(rows, context)
            total += torch.autograd.grad(features, context, grads[0][rows])[0]
        return None, None, total
