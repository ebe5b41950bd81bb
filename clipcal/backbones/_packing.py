"""Where the tokens of many names lie once they stand in one row, without padding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clipcal.backbones._device import upload

__all__ = ["Packing"]

# Tokens that attend in one piece. Larger pieces waste products between names that do not see each other,
# smaller ones waste time between them; 32 to 128 are equally good for names of a few tokens.
_TILE = 64


@dataclass(frozen=True)
class Packing:
    """The layout of packed suffixes: name after name, each with its own number of tokens.

    Linear layers see the packed row as it is. Attention cuts it into tiles of whole names and masks what
    belongs to other names, so that padding exists only there and its amount does not depend on how
    different the names' lengths are.

    Attributes
    ----------
    lengths : Tensor of int, shape (n_names,), on the CPU
        Tokens of each suffix, end marker included, at least 1.
    n_prefix : int
        Positions that stand before each suffix.
    device : torch.device
        Where the index tensors are.

    Examples
    --------
    >>> import torch
    >>> from clipcal.backbones import Packing
    >>> packing = Packing(torch.tensor([3, 2]), n_prefix=5, device=torch.device("cpu"))
    >>> packing.names.tolist(), packing.positions.tolist(), packing.ends.tolist()
    ([0, 0, 0, 1, 1], [5, 6, 7, 5, 6], [2, 4])
    """

    lengths: Tensor
    n_prefix: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, names: slice) -> tuple[Packing, slice]:
        """Return the packing of some successive names, and where their tokens lie in this one."""
        lengths = self.lengths[names]
        start = int(self.lengths[: names.start].sum())
        return Packing(lengths, self.n_prefix, self.device), slice(start, start + int(lengths.sum()))

    @cached_property
    def n_tokens(self) -> int:
        """Number of packed tokens."""
        return int(self.lengths.sum())

    @cached_property
    def _names(self) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(self.lengths)), self.lengths)

    @cached_property
    def _starts(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths

    @cached_property
    def names(self) -> Tensor:
        """The name that each token belongs to, shape (n_tokens,)."""
        return self._upload(self._names)

    @cached_property
    def positions(self) -> Tensor:
        """The position of each token in its prompt, shape (n_tokens,)."""
        return self._upload(self.n_prefix + torch.arange(self.n_tokens) - self._starts[self._names])

    @cached_property
    def ends(self) -> Tensor:
        """The packed row of each name's last token, shape (n_names,)."""
        return self._upload(self._starts + self.lengths - 1)

    @cached_property
    def _tiles(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return each name's tile, and where each tile starts and ends in the packed row."""
        # A name goes to the tile that its first token falls into; numbers without a name are left out.
        tile = torch.unique_consecutive(self._starts // _TILE, return_inverse=True)[1]
        n_tiles = int(tile[-1]) + 1
        starts = self._starts[torch.searchsorted(tile, torch.arange(n_tiles))]
        return tile, starts, torch.cat([starts[1:], torch.tensor([self.n_tokens])])

    @cached_property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self._tiles[1])

    @cached_property
    def tile_size(self) -> int:
        """Tokens in the fullest tile."""
        _, starts, ends = self._tiles
        return int((ends - starts).max())

    @cached_property
    def _slots(self) -> Tensor:
        """Return the packed row of each tile's slots (n_tiles, tile_size), -1 where there is none."""
        _, starts, ends = self._tiles
        rows = starts[:, None] + torch.arange(self.tile_size)
        return torch.where(rows < ends[:, None], rows, -1)

    @cached_property
    def tiled(self) -> Tensor:
        """The rows, of prefix and packed suffixes together, that the tiles hold, flat; 0 in empty slots."""
        shared = torch.arange(self.n_prefix).expand(self.n_tiles, self.n_prefix)
        own = torch.where(self._slots < 0, 0, self._slots + self.n_prefix)
        return self._upload(torch.cat([shared, own], dim=1).flatten())

    @cached_property
    def untiled(self) -> Tensor:
        """The slot of each packed row among all tiles' slots, shape (n_tokens,)."""
        tile, starts, _ = self._tiles
        of_token = tile[self._names]
        return self._upload(of_token * self.tile_size + torch.arange(self.n_tokens) - starts[of_token])

    @cached_property
    def mask(self) -> Tensor:
        """What each slot may see, additive, shape (n_tiles, 1, tile_size, n_prefix + tile_size)."""
        slots = self._upload(self._slots)
        names = torch.where(slots < 0, -1, self.names[slots.clamp(min=0)])
        seen = (names[:, :, None] == names[:, None, :]).tril()
        seen = torch.nn.functional.pad(seen, (self.n_prefix, 0), value=True)
        zero = torch.zeros((), device=self.device)
        return torch.where(seen, zero, float("-inf"))[:, None]

    @cached_property
    def _ends_in_tiles(self) -> tuple[int, Tensor]:
        """Return the most names of a tile, and each name's place (n_names,) among all tiles' places."""
        tile = self._tiles[0]
        counts = torch.bincount(tile)
        first = counts.cumsum(0) - counts
        most = int(counts.max())
        return most, tile * most + torch.arange(len(tile)) - first[tile]

    @cached_property
    def n_ends(self) -> int:
        """Names in the tile with most of them."""
        return self._ends_in_tiles[0]

    @cached_property
    def end_places(self) -> Tensor:
        """Each name's place (n_names,) where a tile has `n_ends` places, one a name."""
        return self._upload(self._ends_in_tiles[1])

    @cached_property
    def end_rows(self) -> Tensor:
        """The name in each place of each tile, shape (n_tiles * n_ends,); 0 where there is none."""
        rows = torch.zeros(self.n_tiles * self.n_ends, dtype=torch.long, device=self.device)
        return rows.index_copy(0, self.end_places, torch.arange(len(self), device=self.device))

    @cached_property
    def end_mask(self) -> Tensor:
        """What each place may see, shape (n_tiles, 1, n_ends, n_prefix + tile_size)."""
        width = self.n_prefix + self.tile_size
        rows = self.mask.reshape(-1, width)[self.untiled[self.ends]]
        return rows[self.end_rows].reshape(self.n_tiles, 1, self.n_ends, width)

    def _upload(self, index: Tensor) -> Tensor:
        return upload(index, self.device)
