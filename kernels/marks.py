"""Sets of entries as one bit each: entry i is bit i mod 32 of word i div 32.

An eighth of a byte an entry is little enough to keep for a whole tensor, and set algebra on it
costs nothing beside reading the weights. Bits past the last entry are 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, compiled, inlined

Marks = NDArray[np.uint32]
Mask = NDArray[np.bool_]


def words_for(entries: int) -> int:
    """How many words hold the marks of so many entries."""
    return -(-entries // 32)


def pack(mask: Mask) -> Marks:
    """The marks of a mask, one byte an entry."""
    marks = np.zeros(words_for(mask.size), np.uint32)
    packed = np.packbits(mask, bitorder="little")
    marks.view(np.uint8)[: packed.size] = packed
    return marks


def unpack(marks: Marks, entries: int) -> Mask:
    """The mask of the first so many entries, one byte each."""
    bits = np.unpackbits(marks.view(np.uint8), count=entries, bitorder="little")
    mask: Mask = bits.view(np.bool_)
    return mask


@compiled
def count(marks: Marks) -> int:
    """How many entries are marked."""
    total = 0
    for i in range(marks.size):
        total += ones(marks[i])
    return total


@inlined
def ones(word: np.uint32) -> Integer:
    """How many bits of a word are set."""
    pairs = word - ((word >> np.uint32(1)) & np.uint32(0x55555555))
    fours = (pairs & np.uint32(0x33333333)) + ((pairs >> np.uint32(2)) & np.uint32(0x33333333))
    bytes_ = (fours + (fours >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    return np.int64(np.uint32(bytes_ * np.uint32(0x01010101)) >> np.uint32(24))


@inlined
def lowest(word: np.uint32) -> Integer:
    """The number of the lowest bit that is set, some number below 32 where none is.

    It is the exponent of the word that has only this bit, which a float holds exactly.
    """
    alone = word & (np.uint32(0) - word)
    exponent = np.float32(alone).view(np.uint32) >> np.uint32(23)
    return np.int64((exponent - np.uint32(127)) & np.uint32(31))
