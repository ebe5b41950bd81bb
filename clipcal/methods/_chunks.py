"""Text features of any number of prompts in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from clipcal.backbones import Backbone
from clipcal.methods._base import Prompts

__all__ = ["chunks_of", "encode_in_chunks"]

_BUDGET = 2**30
# Where a backbone does not say what a token costs.
_SIZE = 256


def chunks_of(prompts: Prompts, lengths: Tensor | None, size: int | str, backbone: Backbone) -> list[slice]:
    """Cut prompts into runs that are encoded at once.

    Parameters
    ----------
    prompts : Prompts
    lengths : Tensor of int, shape (n_prompts,), or None
        Tokens that are computed for each prompt; None for all that are padded.
    size : int or "auto"
        Prompts in a chunk; ``"auto"`` takes as many as a budget of memory allows.
    backbone : Backbone

    Returns
    -------
    chunks : list of slice
        At least one.
    """
    n_prompts = len(prompts)
    cost = getattr(backbone, "text_bytes_per_token", None)
    if isinstance(size, int) or cost is None:
        step = size if isinstance(size, int) else _SIZE
        starts = list(range(0, n_prompts, step))
    else:
        room = max(1, _budget(backbone.device) // cost)
        if lengths is None:
            lengths = torch.full((n_prompts,), prompts.tokens.shape[1])
        chunk = (lengths.cumsum(0) - 1) // room
        starts = torch.unique_consecutive(chunk, return_counts=True)[1].cumsum(0).tolist()
        starts = [0, *starts[:-1]]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n_prompts], strict=True)]


def _budget(device: torch.device) -> int:
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return max(_BUDGET, free // 4)


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
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        context = ctx.saved_tensors[0].detach().requires_grad_()
        total = torch.zeros_like(context)
        for rows in ctx.chunks:
            with torch.enable_grad():
                features = ctx.encode(rows, context)
            total += torch.autograd.grad(features, context, grads[0][rows])[0]
        return None, None, total
