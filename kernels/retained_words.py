"""The words of retained entries, one after another, and put back to their places.

What is retained follows from seed, stream and threshold alone, so the places are not stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, allocating_loop
from patchc.kernels.philox import Retention
from patchc.kernels.philox.cpu import NEVER_RETAINED, draw_tile
from patchc.simd import below, lowest, popcount

BLOCK_WORDS = 1 << 14
"""So many entries of a tensor are counted together. A small read costs a block's draws, and many
counts cost little beside the words that they find."""

_TILE = 4096

Words = NDArray[np.unsignedinteger]


@allocating_loop
def count_retained(entries: int, first: int, retention: Retention) -> Integer:
    """How many of so many entries are retained, from flat index ``first`` on, a multiple of 4."""
    draws = np.empty(_TILE, np.uint32)
    total = np.uint64(0)
    for start in range(0, entries, _TILE):
        limit = draw_tile(retention, first + start, draws)
        draws[entries - start :] = NEVER_RETAINED
        for at in range(0, _TILE, 32):
            total += popcount(np.uint64(below(draws, np.uint64(at), limit)))
    return np.int64(total)


@allocating_loop
def take_retained(words: Words, first: int, retention: Retention, out: Words) -> Integer:
    """Copy the words of retained entries to the start of ``out``, in order.

    Args:
        words: those of flat indices ``first`` on.
        first: a multiple of 4.
        retention: which entries are retained.
        out: as long as ``words``, and of their type.

    Returns:
        How many there are.
    """
    draws = np.empty(_TILE, np.uint32)
    taken = 0
    for start in range(0, words.size, _TILE):
        limit = draw_tile(retention, first + start, draws)
        draws[words.size - start :] = NEVER_RETAINED
        for at in range(0, min(_TILE, words.size - start), 32):
            members = np.uint64(below(draws, np.uint64(at), limit))
            while members:
                out[taken] = words[start + at + np.int64(lowest(members))]
                members &= members - np.uint64(1)
                taken += 1
    return taken


@allocating_loop
def put_retained(
    words: Words, before: NDArray[np.int64], first: int, retention: Retention, out: Words
) -> bool:
    """Put words to the places of the retained entries, in order, and 0 everywhere else.

    Args:
        words: those of the retained entries of one block after another.
        before: how many words lie before each block, and at last before the end; any origin.
        first: flat index of the first entry of ``out``, at the start of a block.
        retention: which entries are retained.
        out: all overwritten; whole blocks but for the last, and of the type of ``words``.

    Returns:
        Whether each block has as many words as it has retained entries; ``out`` holds only then.
    """
    draws = np.empty(_TILE, np.uint32)
    out[:] = 0
    placed = 0
    for start in range(0, out.size, _TILE):
        limit = draw_tile(retention, first + start, draws)
        draws[out.size - start :] = NEVER_RETAINED
        for at in range(0, min(_TILE, out.size - start), 32):
            members = np.uint64(below(draws, np.uint64(at), limit))
            while members:
                if placed < words.size:
                    out[start + at + np.int64(lowest(members))] = words[placed]
                members &= members - np.uint64(1)
                placed += 1
        end = min(start + _TILE, out.size)
        blocks = (end + BLOCK_WORDS - 1) // BLOCK_WORDS
        is_end = end % BLOCK_WORDS == 0 or end == out.size
        if is_end and placed != before[blocks] - before[0]:
            return False
    return True
