"""Packing: hand-computed layouts and properties of random ones."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcal.backbones import Packing

CPU = torch.device("cpu")


def test_hand_computed_single_tile():
    packing = Packing(torch.tensor([2, 1]), 1, CPU)
    assert (packing.n_tokens, packing.n_tiles, packing.tile_size, packing.n_ends) == (3, 1, 3, 2)
    assert packing.tiled.tolist() == [0, 1, 2, 3]
    assert packing.untiled.tolist() == [0, 1, 2]
    no = float("-inf")
    assert packing.mask[0, 0].tolist() == [[0, 0, no, no], [0, 0, 0, no], [0, no, no, 0]]
    assert packing.end_mask[0, 0].tolist() == [[0, 0, 0, no], [0, no, no, 0]]


def test_hand_computed_positions_that_are_no_longer_shared():
    packing = Packing(torch.tensor([2, 1]), 3, CPU)
    # Rows: the prefix p0 p1 p2, then a3 a4 of the first name and b3 of the second.
    other, rows = packing.unshared(2)
    assert (other.n_prefix, other.lengths.tolist()) == (1, [4, 3])
    assert rows.tolist() == [0, 1, 2, 3, 4, 1, 2, 5]
    assert other.positions.tolist() == [1, 2, 3, 4, 1, 2, 3]
    assert other.rows_at(1, 3).tolist() == [1, 2, 5, 6]
    assert other.rows_at(2, 3).tolist() == [2, 6]
    assert packing.unshared(2)[0] is other
    assert packing == Packing(packing.lengths, 3, CPU)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=150), n_prefix=st.integers(1, 20))
def test_each_token_attends_to_the_prefix_and_its_own_name_up_to_itself(lengths, n_prefix):
    packing = Packing(torch.tensor(lengths), n_prefix, CPU)
    rows = packing.tiled.reshape(packing.n_tiles, -1)
    visible = packing.mask.squeeze(1) == 0
    token = 0
    for length in lengths:
        for place in range(length):
            tile, slot = divmod(int(packing.untiled[token]), packing.tile_size)
            seen = rows[tile][visible[tile, slot]].tolist()
            first = n_prefix + token - place
            assert seen == [*range(n_prefix), *range(first, first + place + 1)]
            assert packing.positions[token] == n_prefix + place
            token += 1
    assert visible.any(dim=-1).all()  # a fully masked row would be NaN


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=100))
def test_end_mask_equals_the_mask_of_the_end_markers(lengths):
    packing = Packing(torch.tensor(lengths), 3, CPU)
    width = 3 + packing.tile_size
    masks = packing.end_mask.reshape(-1, width)[packing.end_places]
    assert torch.equal(masks, packing.mask.reshape(-1, width)[packing.untiled[packing.ends]])
    assert packing.end_rows[packing.end_places].tolist() == list(range(len(lengths)))
    assert len(set((packing.end_places // packing.n_ends).tolist())) == packing.n_tiles


def test_one_long_name_does_not_increase_the_padding_of_all_tiles():
    packing = Packing(torch.tensor([2] * 500 + [70] + [2] * 500), 17, CPU)
    assert packing.tile_size < 140
    assert packing.n_tiles * packing.tile_size < 2 * packing.n_tokens + 140
