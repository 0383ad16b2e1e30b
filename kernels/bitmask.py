"""Sets of entries as one bit each: entry i is bit i mod 32 of word i div 32.

An eighth of a byte an entry is little enough to keep for a whole tensor, and set algebra on it
costs nothing beside reading the weights. Bits past the last entry are 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, compiled
from patchc.simd import popcount

Bitmask = NDArray[np.uint32]
Mask = NDArray[np.bool_]


def words_for(entries: int) -> int:
    """How many words hold the marks of so many entries."""
    return -(-entries // 32)


def run_of(marks: Bitmask, start: int, entries: int) -> Bitmask:
    """The marks of so many entries from ``start`` on, a multiple of 32; a view."""
    return marks[start >> 5 : (start >> 5) + words_for(entries)]


def pack(mask: Mask) -> Bitmask:
    """The marks of a mask, one byte an entry."""
    marks = np.zeros(words_for(mask.size), np.uint32)
    packed = np.packbits(mask, bitorder="little")
    marks.view(np.uint8)[: packed.size] = packed
    return marks


def unpack(marks: Bitmask, entries: int) -> Mask:
    """The mask of the first so many entries, one byte each."""
    bits = np.unpackbits(marks.view(np.uint8), count=entries, bitorder="little")
    mask: Mask = bits.view(np.bool_)
    return mask


@compiled
def count(marks: Bitmask) -> Integer:
    """How many entries are marked."""
    total = np.uint64(0)
    for i in range(marks.size):
        total += popcount(np.uint64(marks[i]))
    return np.int64(total)
