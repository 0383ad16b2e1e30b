"""Sets of entries as one bit each: entry i is bit i mod 32 of word i div 32.

An eighth of a byte per entry is little enough to keep for a whole tensor, and set algebra on it
costs nothing beside reading the weights. Bits past the last entry are 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, loop
from patchc.simd import popcount

Bitmask = NDArray[np.uint32]
Mask = NDArray[np.bool_]


def words_for(entries: int) -> int:
    """How many words hold so many entries."""
    return -(-entries // 32)


def run_of(bits: Bitmask, start: int, entries: int) -> Bitmask:
    """The bits of so many entries from ``start`` on, a multiple of 32; a view."""
    return bits[start >> 5 : (start >> 5) + words_for(entries)]


def pack(mask: Mask) -> Bitmask:
    """The bitmask of a mask of one byte an entry."""
    bits = np.zeros(words_for(mask.size), np.uint32)
    packed = np.packbits(mask, bitorder="little")
    bits.view(np.uint8)[: packed.size] = packed
    return bits


def unpack(bits: Bitmask, entries: int) -> Mask:
    """The mask of the first so many entries, one byte each."""
    mask: Mask = np.unpackbits(bits.view(np.uint8), count=entries, bitorder="little").view(np.bool_)
    return mask


@loop
def count(bits: Bitmask) -> Integer:
    """How many entries are set."""
    total = np.uint64(0)
    for i in range(bits.size):
        total += popcount(np.uint64(bits[i]))
    return np.int64(total)
