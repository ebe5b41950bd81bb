"""Encode many class names that share a prefix, computing the prefix and each name token once.

The prompts of all classes start with the same tokens (start marker and context) and end with different
class names. Encoding each prompt separately, padded to the context length, computes the prefix once per
class and processes mostly padding. For a causal text tower, this module computes the same features without
either:

- A position attends only to itself and earlier positions, so in every block the rows of the prefix are the
  same in all prompts and are computed once. For the same reason padding after the end marker has no effect
  and is omitted.
- Layer norms and linear layers act on each token separately, so the prefix and the tokens of all names are
  concatenated to one packed row of tokens, and these layers run once over the packed row.
- Attention mixes tokens, so it is computed in tiles: the packed names are split into groups of whole names,
  and the keys and values of the prefix are put before each group. A mask lets each token attend to the
  prefix and to its own name up to itself. See :class:`clipcal.backbones.Packing` for the index tensors.
- Deep prompts that differ between the names end the sharing: from their block on, the positions that they
  replace are part of each name, and the prefix is what precedes them.
- The features are read at the end marker. The last block therefore computes keys and values of all tokens,
  but queries, output projection and MLP of the end markers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipcal.backbones._packing import Packing
from clipcal.backbones._threads import join_parts, product_size

if TYPE_CHECKING:
    from clipcal.backbones._text_tower import TextTower

__all__ = ["PrefixEncoder", "bytes_per_token", "is_plain_block", "supports_shared_prefix"]

_PARTS = {"ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2"}
# QuickGELU(z) = z * sigmoid(1.702 z).
_QUICK = 1.702


def supports_shared_prefix(tower: TextTower) -> bool:
    """Whether :class:`PrefixEncoder` supports the structure of a text tower.

    The tower must be causal, be read at the end marker only, and consist of standard pre-norm blocks. The
    structure does not show what the modules compute; :meth:`PrefixEncoder.agrees` checks that numerically.
    """
    return tower.can_truncate and all(map(is_plain_block, tower.module.transformer.resblocks))


def is_plain_block(block: nn.Module) -> bool:
    """Whether a block has the structure of a standard pre-norm block."""
    parts = dict(block.named_children())
    if set(parts) != _PARTS or not isinstance(parts["attn"], nn.MultiheadAttention):
        return False
    attention, layers = parts["attn"], list(parts["mlp"].children())
    return (
        attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
        and len(layers) == 3
        and type(layers[0]) is nn.Linear
        and type(layers[2]) is nn.Linear
        and next(block.parameters()).is_floating_point()
    )


def bytes_per_token(tower: TextTower, precision: str) -> int:
    """Estimate the memory that one token needs for the backward pass through a tower."""
    width = tower.width
    hidden = 4 * width
    # Saved per block: the inputs of both norms in float32; tiled queries, keys and values with the prefix,
    # the attention output, and the input of the MLP activation.
    per_block = 2 * 4 * width + (2 if precision == "bf16" else 4) * (5 * width + hidden)
    return len(tower.module.transformer.resblocks) * per_block


class PrefixEncoder:
    """Encode class names behind a shared prefix with the weights of a causal text tower.

    The features equal those of the tower on padded prompts; the module docstring explains why.

    Parameters
    ----------
    tower : TextTower
        A tower for which :func:`supports_shared_prefix` is true.
    precision : {"fp32", "bf16"}, default="fp32"
        Precision of the linear layers and the attention. Residuals, norms and learned parameters are float32.
    """

    def __init__(self, tower: TextTower, precision: str = "fp32") -> None:
        self.tower = tower
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.blocks = [_Block(block, self.dtype) for block in tower.module.transformer.resblocks]

    def __call__(
        self,
        prefix: Tensor,
        suffixes: Tensor,
        packing: Packing,
        deep: Mapping[int, Tensor] | None = None,
        *,
        n_start: int = 1,
    ) -> Tensor:
        """Encode names behind a prefix; differentiable in every tensor.

        Parameters
        ----------
        prefix : Tensor, shape (n_prefix, width) or (n_prompts, n_prefix, width)
            Token embeddings before the names, including the start marker, without positional embeddings. The
            second shape holds several prefixes, for instance one per image; each is combined with all names.
        suffixes : Tensor, shape (n_tokens, width) or (n_prompts, n_tokens, width)
            Packed token embeddings of the names. With the first shape, all prefixes share them.
        packing : Packing
            Layout of `suffixes`.
        deep : mapping of int to Tensor, default=None
            Deep prompts. ``deep[k]`` replaces the positions of the prefix after the start markers at the
            *input* of block k, counted from 0; shape (n_replaced, width), (n_prompts, n_replaced, width), or
            (n_prompts or 1, n_names, n_replaced, width) for prompts that differ between the names.
        n_start : int, default=1
            Number of start markers.

        Returns
        -------
        features : Tensor, shape (n_names, embedding_dim) or (n_prompts, n_names, embedding_dim)
            Float32, not normalized.
        """
        single = prefix.ndim == 2
        prefix = prefix[None] if single else prefix
        n_prompts, n_prefix, _ = prefix.shape
        x = torch.cat([prefix, suffixes.expand(n_prompts, -1, -1)], dim=1)
        # Every name continues the prefix, so its positions start at n_prefix again.
        places = torch.arange(n_prefix, device=x.device)
        x = x + self.tower.module.positional_embedding[torch.cat([places, packing.positions])]
        for number, block in enumerate(self.blocks):
            if deep is not None and number in deep:
                if deep[number].ndim == 4 and packing.n_prefix == n_prefix:
                    packing, rows = packing.unshared(n_prefix - n_start)
                    x = x.index_select(1, rows)
                x = _replace_prompt(x, deep[number], packing, n_start)
            x = block.last(x, packing) if number == len(self.blocks) - 1 else block(x, packing)
        features = self._project(self.tower.module.ln_final(x)).float()
        return features[0] if single else features

    def in_parts(self, prefix: Tensor, suffixes: Tensor, packing: Packing) -> Tensor:
        """Encode names behind one prefix without gradients; for small towers, in several threads.

        Parameters
        ----------
        prefix : Tensor, shape (n_prefix, width)
        suffixes : Tensor, shape (n_tokens, width)
        packing : Packing
            See :meth:`__call__`.

        Returns
        -------
        features : Tensor, shape (n_names, embedding_dim)
        """

        def encode(names: slice) -> Tensor:
            part, tokens = packing.part(names)
            with torch.no_grad(), torch.autocast(prefix.device.type, enabled=False):
                return self(prefix, suffixes[tokens], part)

        work = product_size(len(prefix) + len(suffixes), self.tower.width)
        return join_parts(encode, packing.lengths.tolist(), work)

    def _project(self, x: Tensor) -> Tensor:
        projection = self.tower.module.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection

    @torch.no_grad()
    def agrees(self) -> bool:
        """Whether features of random prompts equal those of the tower's forward pass; for float32 only."""
        tower, device = self.tower, self.tower.module.positional_embedding.device
        generator = torch.Generator().manual_seed(0)
        room = min(8, tower.context_length - 2)
        lengths = torch.tensor([1, room, max(1, room // 2)])
        table = tower.module.token_embedding.weight
        rows = torch.randint(len(table), (2 + len(lengths) * room,), generator=generator).to(device)
        embeddings = table[rows].float()
        prefix, names = embeddings[:2], embeddings[2:].reshape(len(lengths), room, -1)
        # The tower uses the ids only to find the end marker: the largest id, or its own end marker id.
        end = tower.eos_id if tower.pool == "eos" and tower.eos_id is not None else len(table) - 1
        tokens = torch.full((len(lengths), 2 + room), end - 1 if end else 1, device=device)
        tokens[torch.arange(len(lengths)), lengths + 1] = end
        whole = torch.cat([prefix.expand(len(lengths), -1, -1), names], dim=1)
        expected = tower.encode(whole, tokens).float()
        packing = Packing(lengths, n_prefix=2, device=device)
        packed = names[packing.names, packing.positions - 2]
        difference = (self(prefix, packed, packing) - expected).norm(dim=1)
        return bool((difference <= 1e-4 * expected.norm(dim=1)).all())


def _replace_prompt(x: Tensor, prompt: Tensor, packing: Packing, n_start: int) -> Tensor:
    """Replace the positions after the start markers by a deep prompt."""
    stop = n_start + prompt.shape[-2]
    if packing.n_prefix >= stop:
        # Exact: the replaced positions belong to the prefix, so they are still equal in all prompts.
        prompt = prompt.expand(len(x), -1, -1).to(x.dtype)
        return torch.cat([x[:, :n_start], prompt, x[:, stop:]], dim=1)
    prompt = prompt if prompt.ndim == 4 else prompt.unsqueeze(-3)
    own = prompt.expand(len(x), len(packing), -1, -1).flatten(1, 2).to(x.dtype)
    return x.index_copy(1, packing.rows_at(n_start, stop), own)


class _Block:
    """A pre-norm transformer block on packed rows (n_prompts, n_prefix + n_tokens, width)."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        # In float32 these are references to the weights. In bfloat16 they are copies, made once here;
        # autocast would make them in every step.
        attention, (mlp_in, activation, mlp_out) = block.attn, block.mlp.children()
        self.ln_1, self.ls_1, self.ln_2, self.ls_2 = block.ln_1, block.ls_1, block.ln_2, block.ls_2
        self.n_heads: int = attention.num_heads
        self.dtype = dtype
        self.activation: nn.Module | None = activation
        self.attention_in = _detached(attention.in_proj_weight, attention.in_proj_bias, dtype)
        self.attention_out = _detached(attention.out_proj.weight, attention.out_proj.bias, dtype)
        self.mlp_in = _detached(mlp_in.weight, mlp_in.bias, dtype)
        self.mlp_out = _detached(mlp_out.weight, mlp_out.bias, dtype)
        if type(activation).__name__ == "QuickGELU" and mlp_in.bias is not None and mlp_out.bias is not None:
            self.activation = None
            self.quick_biases = (mlp_in.bias.detach() * _QUICK).to(dtype), mlp_out.bias.detach().to(dtype)

    def __call__(self, x: Tensor, packing: Packing) -> Tensor:
        """Apply the block to all rows, as ``ResidualAttentionBlock.forward`` does."""
        qkv = F.linear(self.ln_1(x).to(self.dtype), *self.attention_in)
        # The prefix attends to itself only, so its rows are computed once and not per tile.
        attended = torch.cat([self._prefix_attention(qkv, packing), self._attention(qkv, packing)], dim=1)
        x = x + self.ls_1(F.linear(attended, *self.attention_out))
        return x + self.ls_2(self._mlp(self.ln_2(x).to(self.dtype)))

    def last(self, x: Tensor, packing: Packing) -> Tensor:
        """Apply the block, but return the rows of the end markers only: (n_prompts, n_names, width).

        Attention at the end markers needs keys and values of all tokens. All else is computed for the rows of
        the end markers only.
        """
        width = x.shape[-1]
        weight, bias = self.attention_in
        normed = self.ln_1(x).to(self.dtype)
        kv = F.linear(normed, weight[width:], None if bias is None else bias[width:])
        rows = packing.n_prefix + packing.ends
        q = F.linear(normed.index_select(1, rows), weight[:width], None if bias is None else bias[:width])
        x = x.index_select(1, rows)
        x = x + self.ls_1(F.linear(self._end_attention(q, kv, packing), *self.attention_out))
        return x + self.ls_2(self._mlp(self.ln_2(x).to(self.dtype)))

    def _mlp(self, x: Tensor) -> Tensor:
        if self.activation is not None:
            return F.linear(self.activation(F.linear(x, *self.mlp_in)), *self.mlp_out)
        # QuickGELU(z) = SiLU(1.702 z) / 1.702. SiLU is a single fused kernel, and addmm applies the two
        # factors within the matrix products at no cost.
        flat = x.reshape(-1, x.shape[-1])
        in_bias, out_bias = self.quick_biases
        hidden = torch.addmm(in_bias, flat, self.mlp_in[0].T, alpha=_QUICK)
        out = torch.addmm(out_bias, F.silu(hidden), self.mlp_out[0].T, alpha=1 / _QUICK)
        return out.reshape(x.shape)

    def _prefix_attention(self, qkv: Tensor, packing: Packing) -> Tensor:
        q, k, v = self._split_heads(qkv[:, : packing.n_prefix], 3)
        return _merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def _attention(self, qkv: Tensor, packing: Packing) -> Tensor:
        tiles = cast(Tensor, _Tiled.apply(qkv, packing))
        q, k, v = self._split_heads(tiles, 3)
        # Only the slots of names are queries; the prefix in each tile provides keys and values.
        mask = _repeat_mask(packing.mask, len(qkv)).to(self.dtype)
        out = _merge_heads(F.scaled_dot_product_attention(q[:, :, packing.n_prefix :], k, v, attn_mask=mask))
        return out.reshape(len(qkv), -1, out.shape[2]).index_select(1, packing.untiled)

    def _end_attention(self, q: Tensor, kv: Tensor, packing: Packing) -> Tensor:
        # Each tile has n_ends query places, one per name; the keys and values are those of the whole tile.
        places = q.index_select(1, packing.end_rows).reshape(-1, packing.n_ends, q.shape[-1])
        (places,) = self._split_heads(places, 1)
        k, v = self._split_heads(cast(Tensor, _Tiled.apply(kv, packing)), 2)
        mask = _repeat_mask(packing.end_mask, len(q)).to(self.dtype)
        out = _merge_heads(F.scaled_dot_product_attention(places, k, v, attn_mask=mask))
        return out.reshape(len(q), -1, out.shape[2]).index_select(1, packing.end_places)

    def _split_heads(self, x: Tensor, n_parts: int) -> tuple[Tensor, ...]:
        """Split rows (n, length, n_parts * width) into n_parts tensors (n, n_heads, length, head_width)."""
        return x.unflatten(2, (n_parts, self.n_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _repeat_mask(mask: Tensor, n_prompts: int) -> Tensor:
    return mask if n_prompts == 1 else mask.repeat(n_prompts, 1, 1, 1)


def _merge_heads(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def _detached(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)


class _Tiled(torch.autograd.Function):
    """Gather packed rows (n_prompts, n_prefix + n_tokens, width) into tiles that start with the prefix.

    The result has shape (n_prompts * n_tiles, n_prefix + tile_size, width). The forward pass is plain
    indexing. The backward pass of indexing would scatter-add the gradients row by row; here it is a gather
    and a sum:

    - The row of a name token is in exactly one slot, so its gradient is read from that slot.
    - The prefix is in every tile, so its gradient is the sum over tiles.
    - Empty slots hold a copy of row 0. They are masked for all name tokens and their outputs are never read,
      so their gradient is zero and is skipped.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        n_prompts, _, width = rows.shape
        shape = (n_prompts * packing.n_tiles, packing.n_prefix + packing.tile_size, width)
        return rows.index_select(1, packing.tiled).view(shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        packing: Packing = ctx.packing
        n_prefix, width = packing.n_prefix, grads[0].shape[-1]
        tiles = grads[0].view(-1, packing.n_tiles, n_prefix + packing.tile_size, width)
        shared = tiles[:, :, :n_prefix].sum(dim=1)
        # `untiled` counts slots without the prefix; add the prefix rows of this tile and of those before it.
        slots = packing.untiled + (packing.untiled // packing.tile_size + 1) * n_prefix
        own = tiles.flatten(1, 2).index_select(1, slots)
        return torch.cat([shared, own], dim=1), None
