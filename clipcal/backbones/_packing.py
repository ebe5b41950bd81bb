"""Index tensors for the tokens of many names, packed in one row without padding."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from clipcal.backbones._device import upload

__all__ = ["Packing"]

# Target number of tokens per attention tile. Larger tiles compute more products that are masked, smaller ones
# have more overhead; 32 to 128 are equally fast for names of a few tokens.
_TILE = 64


@dataclass(frozen=True)
class Packing:
    """Layout of packed suffixes: the tokens of all names, concatenated.

    Linear layers use the packed row directly. Attention splits it into tiles of whole names and masks the
    other names of a tile, so only tiles have padding, and its amount does not depend on the spread of the
    lengths.

    Attributes
    ----------
    lengths : Tensor of int, shape (n_names,), on the CPU
        Number of tokens of each suffix, including the end marker, at least 1.
    n_prefix : int
        Number of positions before each suffix.
    device : torch.device
        Device of the index tensors.

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
    _unshared: dict[int, tuple[Packing, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, names: slice) -> tuple[Packing, slice]:
        """Return the packing of a slice of names, and the slice of their tokens in this packing."""
        lengths = self.lengths[names]
        start = int(self.lengths[: names.start].sum())
        return Packing(lengths, self.n_prefix, self.device), slice(start, start + int(lengths.sum()))

    def unshared(self, n: int) -> tuple[Packing, Tensor]:
        """Return the packing in which the last n positions of the prefix are part of each suffix.

        Parameters
        ----------
        n : int
            Number of positions, less than `n_prefix`.

        Returns
        -------
        packing : Packing
            The other packing. It is cached.
        rows : Tensor of int, shape (n_rows,)
            The row of this packing for each row of the other one. Rows are those of the prefix, followed by
            the packed suffixes.
        """
        if n not in self._unshared:
            other = Packing(self.lengths + n, self.n_prefix - n, self.device)
            positions = other._positions
            own = torch.where(positions < self.n_prefix, positions, self._starts[other._names] + positions)
            rows = torch.cat([torch.arange(other.n_prefix), own])
            self._unshared[n] = other, self._upload(rows)
        return self._unshared[n]

    def rows_at(self, start: int, stop: int) -> Tensor:
        """Return the rows of the positions from start to stop of each suffix, (n_names * (stop - start),)."""
        return self._upload((self._starts[:, None] + torch.arange(start, stop)).flatten())

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
    def _positions(self) -> Tensor:
        return self.n_prefix + torch.arange(self.n_tokens) - self._starts[self._names]

    @cached_property
    def names(self) -> Tensor:
        """Index of the name of each token, shape (n_tokens,)."""
        return self._upload(self._names)

    @cached_property
    def positions(self) -> Tensor:
        """Position of each token in its prompt, shape (n_tokens,)."""
        return self._upload(self._positions)

    @cached_property
    def ends(self) -> Tensor:
        """Index of the last token of each name, shape (n_names,)."""
        return self._upload(self._starts + self.lengths - 1)

    @cached_property
    def _tiles(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tile of each name, and the start and end of each tile in the packed row."""
        # The first token of a name determines its tile; tiles without names are dropped.
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
        """Number of tokens in the largest tile."""
        _, starts, ends = self._tiles
        return int((ends - starts).max())

    @cached_property
    def _slots(self) -> Tensor:
        """Return the index of the token in each slot (n_tiles, tile_size), -1 for empty slots."""
        _, starts, ends = self._tiles
        rows = starts[:, None] + torch.arange(self.tile_size)
        return torch.where(rows < ends[:, None], rows, -1)

    @cached_property
    def tiled(self) -> Tensor:
        """Row of the prefix and packed suffixes in each place of each tile, flattened; 0 for empty slots.

        The shape is (n_tiles * (n_prefix + tile_size),). Each tile starts with the prefix.
        """
        shared = torch.arange(self.n_prefix).expand(self.n_tiles, self.n_prefix)
        own = torch.where(self._slots < 0, 0, self._slots + self.n_prefix)
        return self._upload(torch.cat([shared, own], dim=1).flatten())

    @cached_property
    def untiled(self) -> Tensor:
        """Slot of each token among the slots of all tiles, prefix not counted, shape (n_tokens,)."""
        tile, starts, _ = self._tiles
        of_token = tile[self._names]
        return self._upload(of_token * self.tile_size + torch.arange(self.n_tokens) - starts[of_token])

    @cached_property
    def mask(self) -> Tensor:
        """Additive attention mask, shape (n_tiles, 1, tile_size, n_prefix + tile_size).

        A token attends to the prefix and to its own name up to itself. Empty slots attend to the prefix,
        which avoids NaN; their outputs are not used.
        """
        slots = self._upload(self._slots)
        names = torch.where(slots < 0, -1, self.names[slots.clamp(min=0)])
        seen = (names[:, :, None] == names[:, None, :]).tril()
        seen = torch.nn.functional.pad(seen, (self.n_prefix, 0), value=True)
        zero = torch.zeros((), device=self.device)
        return torch.where(seen, zero, float("-inf"))[:, None]

    @cached_property
    def _ends_in_tiles(self) -> tuple[int, Tensor]:
        """Return the largest number of names in a tile, and the place of each name (n_names,)."""
        tile = self._tiles[0]
        counts = torch.bincount(tile)
        first = counts.cumsum(0) - counts
        most = int(counts.max())
        return most, tile * most + torch.arange(len(tile)) - first[tile]

    @cached_property
    def n_ends(self) -> int:
        """Largest number of names in a tile."""
        return self._ends_in_tiles[0]

    @cached_property
    def end_places(self) -> Tensor:
        """Place of each name, shape (n_names,), where each tile has `n_ends` places."""
        return self._upload(self._ends_in_tiles[1])

    @cached_property
    def end_rows(self) -> Tensor:
        """Name in each place of each tile, shape (n_tiles * n_ends,); 0 for empty places."""
        rows = torch.zeros(self.n_tiles * self.n_ends, dtype=torch.long, device=self.device)
        return rows.index_copy(0, self.end_places, torch.arange(len(self), device=self.device))

    @cached_property
    def end_mask(self) -> Tensor:
        """Additive attention mask of the end markers, shape (n_tiles, 1, n_ends, n_prefix + tile_size)."""
        width = self.n_prefix + self.tile_size
        rows = self.mask.reshape(-1, width)[self.untiled[self.ends]]
        return rows[self.end_rows].reshape(self.n_tiles, 1, self.n_ends, width)

    def _upload(self, index: Tensor) -> Tensor:
        return upload(index, self.device)
