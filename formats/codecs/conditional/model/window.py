"""Windows of a chunk's words, and which words of a window belong to a population.

SPEC.md, section 6.4.5. Encoder and decoder pass over a chunk window by window, and take each window
through all populations: all words, the lowest classes, edges, classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.model.chunk_model import ALL, MOST_GROUPS, Layout, Ranges
from patchc.formats.codecs.protocol import Groups
from patchc.jit import Integer, inlined
from patchc.simd import BLOCK, popcount, within

WINDOW = 8
"""Blocks in a window: the more, the fewer are looked at one by one."""

WINDOW_WORDS = np.uint64(WINDOW * BLOCK)
"""Words of a window."""

_ONE = np.uint64(1)
_BLOCK = np.uint64(BLOCK)


class Window(NamedTuple):
    """A window of words; sets of its words are bits, one number per block.

    Attributes:
        words, groups: the words and their groups.
        members: the words of each group; the last row has all words, and so has the first where
            words are not grouped.
        found: the words of each range.
        ranks: words of the range that was found last in the blocks before each block.
        changed: the words that the decoder changed.
        steps: of the changed words.
    """

    words: Words
    groups: Groups
    members: NDArray[np.uint64]
    found: NDArray[np.uint64]
    ranks: NDArray[np.uint64]
    changed: NDArray[np.uint64]
    steps: NDArray[np.int64]


def make_window(words: Words, ranges: Ranges) -> Window:
    """Make a window for a chunk."""
    return Window(
        np.zeros(WINDOW * BLOCK, words.dtype),
        np.zeros(WINDOW * BLOCK, np.uint8),
        np.full((MOST_GROUPS + 1, WINDOW), ~np.uint64(0)),
        np.empty((len(ranges.numbers), WINDOW), np.uint64),
        np.empty(WINDOW, np.uint64),
        np.zeros(WINDOW, np.uint64),
        np.empty(WINDOW * BLOCK, np.int64),
    )


@inlined
def load_window(
    words: Words, groups: Groups, first: Integer, layout: Layout, window: Window
) -> Integer:
    """Copy the words from ``first`` on, and find the members of each group."""
    size = min(WINDOW_WORDS, np.uint64(words.size) - first)
    for i in range(size):
        window.words[i] = words[first + i]
    if size < WINDOW_WORDS:
        for block in range(np.uint64(WINDOW)):
            there = min(max(size, block * _BLOCK) - block * _BLOCK, _BLOCK)
            valid = (_ONE << there) - _ONE if there < _BLOCK else ~np.uint64(0)
            window.members[0, block] = valid
            window.members[MOST_GROUPS, block] = valid
    if layout.group_count > 1:
        for i in range(size):
            window.groups[i] = groups[first + i]
        for own in range(np.uint64(MOST_GROUPS)):
            for block in range(np.uint64(WINDOW)):
                window.members[own, block] = window.members[MOST_GROUPS, block] & within(
                    window.groups, block * _BLOCK, own, np.uint64(0)
                )


@inlined
def find_range(k: Integer, ranges: Ranges, window: Window) -> Integer:
    """Find the words of range ``k`` in a window; return their number."""
    low, span = ranges.lows[k], ranges.spans[k]
    own = np.int64(MOST_GROUPS) if ranges.numbers[k] == ALL else ranges.groups[k]
    total = np.uint64(0)
    for block in range(np.uint64(WINDOW)):
        found = within(window.words, block * _BLOCK, low, span) & window.members[own, block]
        window.found[k, block] = found
        window.ranks[block] = total
        total += popcount(found)
    return np.int64(total)


@inlined
def is_above(window: Window, magnitude: Integer) -> Integer:
    """Whether all words of a window have greater magnitudes."""
    some = np.uint64(0)
    for block in range(np.uint64(WINDOW)):
        some |= (
            within(window.words, block * _BLOCK, np.uint64(0), magnitude)
            & window.members[MOST_GROUPS, block]
        )
    return some == 0
