"""The decoder's loop over a chunk's words, and the windows in which the encoder's goes too.

SPEC.md, section 6.4.5. Each word passes through the populations that it belongs to: all words,
those of the lowest classes, an edge, its class. At most one of them changes it, and no population
gains or loses a word by its own changes; so the loop runs forward from the base through them, or
backward from the result, and counts the same. It goes by windows, each through all stages.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.model.classes import (
    ALL,
    EDGES,
    MOST_GROUPS,
    NEVER,
    Groups,
    Layout,
    Ranges,
    absolute,
    moved,
    step_between,
)
from patchc.formats.codecs.protocol import Positions, Steps
from patchc.jit import Integer, always_inline, kernel, kernel_helper
from patchc.simd import BLOCK, lowest, nth, popcount, within

TWICE = -2
MISFIT = -3
WINDOW = 8
"""Blocks in a window: the more, the fewer are looked at one by one."""

WINDOW_WORDS = np.uint64(WINDOW * BLOCK)
"""Words of a window."""

_ONE = np.uint64(1)
_BLOCK = np.uint64(BLOCK)


class Scratch(NamedTuple):
    """What the loops keep of a window.

    Attributes:
        words, groups: its words and their groups.
        members: which of its words there are of each group, a number a block; of any, in the last
            row, and in the first where words are not grouped.
        found: which belong to a range, a number a block and range.
        ranks: how many the blocks before each hold of the range that was found last.
        changed: which words were changed, a number a block.
        steps: of its words that change.
    """

    words: Words
    groups: Groups
    members: NDArray[np.uint64]
    found: NDArray[np.uint64]
    ranks: NDArray[np.uint64]
    changed: NDArray[np.uint64]
    steps: NDArray[np.int64]


def scratch_for(words: Words, ranges: Ranges) -> Scratch:
    """Scratch for a chunk."""
    return Scratch(
        np.zeros(WINDOW * BLOCK, words.dtype),
        np.zeros(WINDOW * BLOCK, np.uint8),
        np.full((MOST_GROUPS + 1, WINDOW), ~np.uint64(0)),
        np.empty((len(ranges.numbers), WINDOW), np.uint64),
        np.empty(WINDOW, np.uint64),
        np.zeros(WINDOW, np.uint64),
        np.empty(WINDOW * BLOCK, np.int64),
    )


@kernel
def place_changes(
    words: Words, groups: Groups, revert: bool, layout: Layout, ranges: Ranges, scratch: Scratch,
    flipped: NDArray[np.bool_], cursors: NDArray[np.int64], ends: NDArray[np.int64],
    gaps: NDArray[np.uint32], values: NDArray[np.int64], left: NDArray[np.int64],
    positions: Positions, steps: Steps, results: Words,
) -> Integer:  # fmt: skip
    """Find the words that change, from the gaps of each population.

    Args:
        words: base words, or the result's with ``revert``.
        groups: see :data:`Groups`.
        revert: which of the two.
        layout: of the words.
        ranges: the populations; each has changes.
        scratch: see :class:`Scratch`.
        flipped: of each range, whether its values are flipped bits and not steps.
        cursors, ends: of each range, its first change in ``gaps`` and ``values``, and their end.
        gaps, values: of all changes, by population.
        left: scratch, one a range.
        positions, steps: filled, in the order of the words, where ``results`` is empty.
        results: ``words`` themselves, to be changed; or empty.

    Returns:
        The number of changes, or a fault.
    """
    quiet = _quiet(ranges)
    count = np.uint64(ranges.numbers.size)
    for each in range(count):
        left[each] = gaps[cursors[each]]
    with_all = ranges.stages[1] > 0
    done = np.uint64(0)
    for first in range(np.uint64(0), np.uint64(words.size), WINDOW_WORDS):
        load(words, groups, first, layout, scratch)
        if _is_quiet(scratch, quiet):
            if not with_all:
                continue
            if left[0] >= WINDOW * BLOCK:
                left[0] -= WINDOW * BLOCK
                continue
        for turn in range(count):
            k: Integer = count - _ONE - turn if revert else turn
            total = find(k, ranges, scratch)
            if left[k] >= total:
                left[k] -= total
                continue
            fault = _change(
                k, np.uint64(total), revert, layout, ranges, scratch, flipped, cursors, ends, gaps,
                values, left,
            )  # fmt: skip
            if fault:
                return fault
        if results.size:
            done += _store(first, scratch, results)
        else:
            done = _list(first, done, scratch, positions, steps)
    return np.int64(done)


@always_inline
def _store(first: Integer, scratch: Scratch, results: Words) -> Integer:
    """Write back the window from word ``first`` on; return how many words have changed."""
    count = np.uint64(0)
    for block in range(np.uint64(WINDOW)):
        count += popcount(scratch.changed[block])
        scratch.changed[block] = 0
    if count:
        for i in range(min(WINDOW_WORDS, np.uint64(results.size) - first)):
            results[first + i] = scratch.words[i]
    return count


@always_inline
def _list(
    first: Integer, done: Integer, scratch: Scratch, positions: Positions, steps: Steps
) -> Integer:
    """Add the changes of the window from word ``first`` on; return how many there are now."""
    for block in range(np.uint64(WINDOW)):
        changed = scratch.changed[block]
        scratch.changed[block] = 0
        while changed:
            place = (block << np.uint64(6)) | lowest(changed)
            positions[done] = first + place
            steps[done] = scratch.steps[place]
            done += _ONE
            changed &= changed - _ONE
    return done


@always_inline
def _change(
    k: Integer, total: Integer, revert: bool, layout: Layout, ranges: Ranges, scratch: Scratch,
    flipped: NDArray[np.bool_], cursors: NDArray[np.int64], ends: NDArray[np.int64],
    gaps: NDArray[np.uint32], values: NDArray[np.int64], left: NDArray[np.int64],
) -> Integer:  # fmt: skip
    """Change the words of a range in a window, which holds ``total`` of them; return a fault or 0.

    Faults are gathered and told at the end: a way out of the loop would keep the compiler from
    computing without branches, which takes twice as long.
    """
    kind = scratch.words.dtype.type
    low, span = ranges.lows[k], ranges.spans[k]
    is_edge, is_flipped = ranges.numbers[k] >= EDGES, flipped[k]
    cursor, end = np.uint64(cursors[k]), np.uint64(ends[k])
    rank: Integer = np.uint64(left[k])
    misfit, twice = np.uint64(0), np.uint64(0)
    while rank < total:
        block = np.uint64(0)
        for each in range(np.uint64(1), np.uint64(WINDOW)):
            block += np.uint64(scratch.ranks[each] <= rank)
        bit = nth(scratch.found[k, block], rank - scratch.ranks[block])
        place = (block << np.uint64(6)) | bit
        word = np.uint64(scratch.words[place])
        step: Integer = values[cursor]
        if is_edge:
            other = word + _ONE if absolute(word, layout) == low else word - _ONE
        elif is_flipped:
            other = word ^ np.uint64(step)
        else:
            other = moved(word, -step if revert else step, layout)
        if is_edge or is_flipped:
            step = step_between(word, other, layout)
            if revert:
                step = step_between(other, word, layout)
        misfit |= np.uint64(other == word) | np.uint64(absolute(other, layout) - low > span)
        twice |= scratch.changed[block] >> bit & _ONE
        scratch.changed[block] |= _ONE << bit
        scratch.words[place] = kind(other)
        scratch.steps[place] = step
        cursor += _ONE
        rank = rank + _ONE + np.uint64(gaps[cursor]) if cursor < end else np.uint64(NEVER)
    left[k] = rank - total
    cursors[k] = cursor
    if misfit:
        return MISFIT
    return TWICE if twice else 0


@always_inline
def load(words: Words, groups: Groups, first: Integer, layout: Layout, scratch: Scratch) -> Integer:
    """Copy the window from word ``first`` on, and tell its groups apart."""
    size = min(WINDOW_WORDS, np.uint64(words.size) - first)
    for i in range(size):
        scratch.words[i] = words[first + i]
    if size < WINDOW_WORDS:
        for block in range(np.uint64(WINDOW)):
            there = min(max(size, block * _BLOCK) - block * _BLOCK, _BLOCK)
            valid = (_ONE << there) - _ONE if there < _BLOCK else ~np.uint64(0)
            scratch.members[0, block] = valid
            scratch.members[MOST_GROUPS, block] = valid
    if layout.grouped:
        for i in range(size):
            scratch.groups[i] = groups[first + i]
        for own in range(np.uint64(MOST_GROUPS)):
            for block in range(np.uint64(WINDOW)):
                scratch.members[own, block] = scratch.members[MOST_GROUPS, block] & within(
                    scratch.groups, block * _BLOCK, own, np.uint64(0)
                )


@always_inline
def find(k: Integer, ranges: Ranges, scratch: Scratch) -> Integer:
    """Find the words of a window that belong to a range; return their number."""
    low, span = ranges.lows[k], ranges.spans[k]
    own = np.int64(MOST_GROUPS) if ranges.numbers[k] == ALL else ranges.groups[k]
    total = np.uint64(0)
    for block in range(np.uint64(WINDOW)):
        found = within(scratch.words, block * _BLOCK, low, span) & scratch.members[own, block]
        scratch.found[k, block] = found
        scratch.ranks[block] = total
        total += popcount(found)
    return np.int64(total)


@always_inline
def _is_quiet(scratch: Scratch, quiet: Integer) -> Integer:
    """Whether a window has no magnitude up to ``quiet``."""
    some = np.uint64(0)
    for block in range(np.uint64(WINDOW)):
        some |= (
            within(scratch.words, block * _BLOCK, np.uint64(0), quiet)
            & scratch.members[MOST_GROUPS, block]
        )
    return some == 0


@kernel_helper
def _quiet(ranges: Ranges) -> Integer:
    """The greatest magnitude of a word that may belong to a range that is not all words."""
    greatest = np.uint64(0)
    for k in range(ranges.stages[1], ranges.numbers.size):
        greatest = max(greatest, ranges.lows[k] + ranges.spans[k])
    return greatest
