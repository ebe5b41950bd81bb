"""Text features of many names behind one prefix: exact, and each token computed once."""

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

__all__ = ["PrefixEncoder", "bytes_per_token", "reads_only_the_end"]

_PARTS = {"ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2"}
_QUICK = 1.702


def reads_only_the_end(tower: TextTower) -> bool:
    """Say whether a tower's structure allows :class:`PrefixEncoder`.

    It must be causal, read the end marker alone, and consist of plain pre-norm blocks. What the parts
    compute is not judged here, but by :meth:`PrefixEncoder.agrees`.
    """
    return tower.ignores_the_rest and all(map(_is_plain, tower.module.transformer.resblocks))


def _is_plain(block: nn.Module) -> bool:
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
    """Estimate what a token leaves in memory for the backward pass through a tower."""
    width = tower.width
    hidden = 4 * width
    # Two norms' inputs in float32; queries, keys and values in tiles with the prefix, what attention gives,
    # and the MLP before its activation.
    per_block = 2 * 4 * width + (2 if precision == "bf16" else 4) * (5 * width + hidden)
    return len(tower.module.transformer.resblocks) * per_block


class PrefixEncoder:
    """A causal text tower that computes what prompts have in common once.

    Three facts make it exact. Nothing after a position can change it, so that padding need not exist and
    the prefix, start marker and context, is the same for all names in every block. Linear layers treat
    each token alone, so that tokens of all names can stand in one row. And only the end marker is read, so
    that the last block needs keys and values of all tokens but queries and MLP of the end markers alone.

    Parameters
    ----------
    tower : TextTower
        One that :func:`reads_only_the_end`.
    precision : {"fp32", "bf16"}, default="fp32"
        The arithmetic of the linear layers and attention. Residuals, norms and everything that is learned
        stay float32.
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
    ) -> Tensor:
        """Encode names behind a prefix; differentiable in every tensor.

        Parameters
        ----------
        prefix : Tensor, shape (n_prefix, width) or (n_prompts, n_prefix, width)
            Token embeddings of everything before the names, start marker included, without positions. The
            second shape is for several prefixes, one an image for instance; each meets all names.
        suffixes : Tensor, shape (n_tokens, width) or (n_prompts, n_tokens, width)
            Token embeddings of the names, packed. Those of the first shape serve every prefix.
        packing : Packing
            How `suffixes` are packed.
        deep : mapping of int to Tensor, default=None
            Prompts of later blocks: what replaces the last positions of the prefix at the *input* of block
            k, counted from 0; shape (n_replaced, width) or (n_prompts, n_replaced, width).

        Returns
        -------
        features : Tensor, shape (n_names, embedding_dim) or (n_prompts, n_names, embedding_dim)
            Float32, not normalised.
        """
        single = prefix.ndim == 2
        prefix = prefix[None] if single else prefix
        n_prompts, n_prefix, _ = prefix.shape
        x = torch.cat([prefix, suffixes.expand(n_prompts, -1, -1)], dim=1)
        places = torch.arange(n_prefix, device=x.device)
        x = x + self.tower.module.positional_embedding[torch.cat([places, packing.positions])]
        for number, block in enumerate(self.blocks):
            if deep is not None and number in deep:
                x = _replaced(x, deep[number], n_prefix)
            x = block.last(x, packing) if number == len(self.blocks) - 1 else block(x, packing)
        features = self._project(self.tower.module.ln_final(x)).float()
        return features[0] if single else features

    def in_parts(self, prefix: Tensor, suffixes: Tensor, packing: Packing) -> Tensor:
        """Encode names behind one prefix without a graph, those of a small tower shared out over threads.

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
        """Compare with the tower's own forward pass on made-up prompts; only sensible in float32."""
        tower, device = self.tower, self.tower.module.positional_embedding.device
        generator = torch.Generator().manual_seed(0)
        room = min(8, tower.context_length - 2)
        lengths = torch.tensor([1, room, max(1, room // 2)])
        table = tower.module.token_embedding.weight
        rows = torch.randint(len(table), (2 + len(lengths) * room,), generator=generator).to(device)
        embeddings = table[rows].float()
        prefix, names = embeddings[:2], embeddings[2:].reshape(len(lengths), room, -1)
        # Ids serve only to say where the texts end, for a tower that looks for the largest or for its own.
        end = tower.eos_id if tower.pool == "eos" and tower.eos_id is not None else len(table) - 1
        tokens = torch.full((len(lengths), 2 + room), end - 1 if end else 1, device=device)
        tokens[torch.arange(len(lengths)), lengths + 1] = end
        whole = torch.cat([prefix.expand(len(lengths), -1, -1), names], dim=1)
        expected = tower.encode(whole, tokens).float()
        packing = Packing(lengths, n_prefix=2, device=device)
        packed = names[packing.names, packing.positions - 2]
        difference = (self(prefix, packed, packing) - expected).norm(dim=1)
        return bool((difference <= 1e-4 * expected.norm(dim=1)).all())


def _replaced(x: Tensor, prompt: Tensor, n_prefix: int) -> Tensor:
    """Put a prompt over the last positions of the prefix."""
    n_kept = n_prefix - prompt.shape[-2]
    prompt = prompt.expand(len(x), -1, -1).to(x.dtype)
    return torch.cat([x[:, :n_kept], prompt, x[:, n_prefix:]], dim=1)


class _Block:
    """A pre-norm transformer block on packed rows (n_prompts, n_prefix + n_tokens, width)."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        # References in float32; copies, made once, in bfloat16: autocast would make them in each step.
        attention, (rise, activation, fall) = block.attn, block.mlp.children()
        self.ln_1, self.ls_1, self.ln_2, self.ls_2 = block.ln_1, block.ls_1, block.ln_2, block.ls_2
        self.n_heads: int = attention.num_heads
        self.dtype = dtype
        self.activation: nn.Module | None = activation
        self.attention_in = _weights(attention.in_proj_weight, attention.in_proj_bias, dtype)
        self.attention_out = _weights(attention.out_proj.weight, attention.out_proj.bias, dtype)
        self.rise = _weights(rise.weight, rise.bias, dtype)
        self.fall = _weights(fall.weight, fall.bias, dtype)
        if type(activation).__name__ == "QuickGELU" and rise.bias is not None and fall.bias is not None:
            self.activation = None
            self.quick_biases = (rise.bias.detach() * _QUICK).to(dtype), fall.bias.detach().to(dtype)

    def __call__(self, x: Tensor, packing: Packing) -> Tensor:
        """Transform all rows."""
        qkv = F.linear(self.ln_1(x).to(self.dtype), *self.attention_in)
        attended = torch.cat([self._prefix_attention(qkv, packing), self._attention(qkv, packing)], dim=1)
        x = x + self.ls_1(F.linear(attended, *self.attention_out))
        return x + self.ls_2(self._mlp(self.ln_2(x).to(self.dtype)))

    def last(self, x: Tensor, packing: Packing) -> Tensor:
        """Transform the end markers' rows alone: (n_prompts, n_names, width)."""
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
            return F.linear(self.activation(F.linear(x, *self.rise)), *self.fall)
        # QuickGELU, z * sigmoid(1.702 z), is SiLU of 1.702 z divided by 1.702; SiLU is one fused kernel, and
        # the factors cost nothing where the matrix product takes them.
        flat = x.reshape(-1, x.shape[-1])
        rise_bias, fall_bias = self.quick_biases
        raised = torch.addmm(rise_bias, flat, self.rise[0].T, alpha=_QUICK)
        fallen = torch.addmm(fall_bias, F.silu(raised), self.fall[0].T, alpha=1 / _QUICK)
        return fallen.reshape(x.shape)

    def _prefix_attention(self, qkv: Tensor, packing: Packing) -> Tensor:
        q, k, v = self._heads(qkv[:, : packing.n_prefix], 3)
        return _joined(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def _attention(self, qkv: Tensor, packing: Packing) -> Tensor:
        tiles = cast(Tensor, _Tiled.apply(qkv, packing))
        q, k, v = self._heads(tiles, 3)
        mask = _repeated(packing.mask, len(qkv)).to(self.dtype)
        out = F.scaled_dot_product_attention(q[:, :, packing.n_prefix :], k, v, attn_mask=mask)
        return (
            _joined(out).reshape(len(qkv), -1, out.shape[1] * out.shape[3]).index_select(1, packing.untiled)
        )

    def _end_attention(self, q: Tensor, kv: Tensor, packing: Packing) -> Tensor:
        places = q.index_select(1, packing.end_rows).reshape(-1, packing.n_ends, q.shape[-1])
        (places,) = self._heads(places, 1)
        k, v = self._heads(cast(Tensor, _Tiled.apply(kv, packing)), 2)
        mask = _repeated(packing.end_mask, len(q)).to(self.dtype)
        out = _joined(F.scaled_dot_product_attention(places, k, v, attn_mask=mask))
        return out.reshape(len(q), -1, out.shape[2]).index_select(1, packing.end_places)

    def _heads(self, x: Tensor, n_parts: int) -> tuple[Tensor, ...]:
        """Cut rows (n, length, n_parts * width) into parts (n, n_heads, length, head_width)."""
        return x.unflatten(2, (n_parts, self.n_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _repeated(mask: Tensor, n_prompts: int) -> Tensor:
    return mask if n_prompts == 1 else mask.repeat(n_prompts, 1, 1, 1)


def _joined(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def _weights(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)


class _Tiled(torch.autograd.Function):
    """Packed rows (n_prompts, n_prefix + n_tokens, width) to tiles, each with the prefix before it.

    Indexing would do, but its backward pass adds row by row what can be read in one go: outside the prefix
    every row goes to one slot, and empty slots get no gradient since nothing sees them.
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
        slots = packing.untiled + (packing.untiled // packing.tile_size + 1) * n_prefix
        own = tiles.flatten(1, 2).index_select(1, slots)
        return torch.cat([shared, own], dim=1), None
