"""TensorReport set bits: what the processor offers, and what stands in for it elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchc.jit import inlined, loop
from patchc.simd import nth, nth_by_table

_by_table = inlined(nth_by_table)


@loop
def _nth(members: np.uint64, rank: np.uint64) -> int:
    return nth(members, rank)


@loop
def _nth_by_table(members: np.uint64, rank: np.uint64) -> int:
    return _by_table(members, rank)


@pytest.mark.parametrize("find", [_nth, _nth_by_table])
@given(members=st.integers(1, 2**64 - 1), data=st.data())
def test_every_way_finds_the_bit_of_a_rank(find, members, data):
    places = [place for place in range(64) if members >> place & 1]
    rank = data.draw(st.integers(0, len(places) - 1))
    assert find(np.uint64(members), np.uint64(rank)) == places[rank]


def test_full_and_single_bits_are_found():
    for place in range(64):
        assert _nth(np.uint64(2**64 - 1), np.uint64(place)) == place
        assert _nth_by_table(np.uint64(2**64 - 1), np.uint64(place)) == place
        assert _nth(np.uint64(1 << place), np.uint64(0)) == place
        assert _nth_by_table(np.uint64(1 << place), np.uint64(0)) == place
