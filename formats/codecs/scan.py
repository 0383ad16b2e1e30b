"""The two loops over a chunk's words: ranking for the encoder, and placing for the decoder.

SPEC.md, section 6.4.5. Each word passes through the populations that it belongs to: all words,
those of the lowest classes, an edge, its class. At most one of them changes it, and no population
gains or loses a word by its own changes; so the loop runs forward from the base through them, or
backward from the result, and counts the same. It goes by blocks, a block through all stages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, kernel, part, spliced
from patchc.formats.codecs.blocks import BLOCK, lowest, nth, popcount, within
from patchc.formats.codecs.classes import (
    ALL,
    EDGES,
    NEVER,
    STAGES,
    Groups,
    Layout,
    Ranges,
    Words,
    absolute,
    moved,
    step_between,
)
from patchc.formats.codecs.codec import Positions, Steps

TWICE = -2
MISFIT = -3
_FULL = ~np.uint64(0)
_ONE = np.uint64(1)


@kernel
def rank_changes(
    words: Words, groups: Groups, positions: Positions, populations: NDArray[np.int32],
    flips: NDArray[np.uint64], layout: Layout, ranges: Ranges, block: Words, kinds: Groups,
    found: NDArray[np.uint64], counts: NDArray[np.int64], slots: NDArray[np.int64],
    ranks: NDArray[np.uint32], sources: NDArray[np.uint32],
) -> None:  # fmt: skip
    """Find each change's rank in its population, and the size of all populations.

    Args:
        words: the base.
        groups: see :data:`Groups`.
        positions: of the changes.
        populations: of the changes.
        flips: the bits that each change flips.
        layout: of the words.
        ranges: the populations.
        block, kinds, found: scratch, of ``BLOCK`` words, ``BLOCK`` groups and one a population.
        counts: filled, one a population; must be 0.
        slots: where the changes of each population start in ``ranks``; where they end, afterwards.
        ranks: filled, by population.
        sources: filled with the change that each rank is of.
    """
    size = np.uint64(words.size)
    quiet = _quiet(ranges)
    change = np.int64(0)
    for number in range((words.size + BLOCK - 1) // BLOCK):
        first = np.uint64(number) * np.uint64(BLOCK)
        end = change
        while end < positions.size and np.uint64(positions[end]) < first + np.uint64(BLOCK):
            end += 1
        valid = _load(words, groups, first, size, layout, block, kinds)
        if change == end and not within(block, np.uint64(0), np.uint64(0), quiet) & valid:
            continue
        for stage in range(STAGES):
            start, stop = ranges.stages[stage], ranges.stages[stage + 1]
            if start == stop:
                continue
            for k in range(start, stop):
                found[ranges.numbers[k]] = _found(block, kinds, k, valid, layout, ranges)
            least, most = ranges.numbers[start], ranges.numbers[stop - 1]
            for at in range(change, end):
                own = np.int64(populations[at])
                if least <= own <= most:
                    bit = np.uint64(positions[at]) - first
                    below = (_ONE << bit) - _ONE
                    ranks[slots[own]] = counts[own] + np.int64(popcount(found[own] & below))
                    sources[slots[own]] = at
                    slots[own] += 1
                    block[bit] ^= block.dtype.type(flips[at])
            for k in range(start, stop):
                own = ranges.numbers[k]
                counts[own] += np.int64(popcount(found[own]))
        change = end


@kernel
def place_changes(
    words: Words, groups: Groups, revert: bool, layout: Layout, ranges: Ranges,
    flipped: NDArray[np.bool_], cursors: NDArray[np.int64], ends: NDArray[np.int64],
    gaps: NDArray[np.uint32], values: NDArray[np.int64], left: NDArray[np.int64], block: Words,
    kinds: Groups, placed: NDArray[np.int64], positions: Positions, steps: Steps,
) -> Integer:  # fmt: skip
    """Find the words that change, from the gaps of each population.

    Args:
        words: base words, or the result's with ``revert``.
        groups: see :data:`Groups`.
        revert: which of the two.
        layout: of the words.
        ranges: the populations; each has changes.
        flipped: of each range, whether its values are flipped bits and not steps.
        cursors, ends: of each range, its first change in ``gaps`` and ``values``, and their end.
        gaps, values: of all changes, by population.
        left, block, kinds, placed: scratch, of one a range, and ``BLOCK`` of each of the others.
        positions, steps: filled, in the order of the words.

    Returns:
        The number of changes, or a fault.
    """
    size = np.uint64(words.size)
    quiet = _quiet(ranges)
    count = ranges.numbers.size
    for k in range(count):
        left[k] = gaps[cursors[k]]
    with_all = ranges.stages[1] > 0
    done = np.int64(0)
    for number in range((words.size + BLOCK - 1) // BLOCK):
        first = np.uint64(number) * np.uint64(BLOCK)
        valid = _load(words, groups, first, size, layout, block, kinds)
        if not within(block, np.uint64(0), np.uint64(0), quiet) & valid:
            if not with_all:
                continue
            if left[0] >= BLOCK:
                left[0] -= BLOCK
                continue
        changed = np.uint64(0)
        for turn in range(count):
            k = count - 1 - turn if revert else turn
            found = _found(block, kinds, k, valid, layout, ranges)
            held = np.int64(popcount(found))
            gap = left[k]
            while gap < held:
                bit = nth(found, np.uint64(gap))
                word = np.uint64(block[bit])
                other, step = _changed(word, values[cursors[k]], revert, flipped[k], k, layout, ranges)
                if changed >> bit & _ONE:
                    return np.int64(TWICE)
                if other == word or absolute(other, layout) - ranges.lows[k] > ranges.spans[k]:
                    return np.int64(MISFIT)
                changed |= _ONE << bit
                block[bit] = other
                placed[bit] = step
                cursors[k] += 1
                gap = gap + 1 + np.int64(gaps[cursors[k]]) if cursors[k] < ends[k] else NEVER
            left[k] = gap - held
        while changed:
            bit = lowest(changed)
            positions[done] = first + bit
            steps[done] = placed[bit]
            done += 1
            changed &= changed - _ONE
    return done


@spliced
def _load(
    words: Words, groups: Groups, first: Integer, size: Integer, layout: Layout, block: Words,
    kinds: Groups,
) -> Integer:  # fmt: skip
    """Copy a block and its groups; return which of its words there are."""
    if first + np.uint64(BLOCK) <= size:
        for i in range(BLOCK):
            block[i] = words[first + np.uint64(i)]
        if layout.grouped:
            for i in range(BLOCK):
                kinds[i] = groups[first + np.uint64(i)]
        return _FULL
    for i in range(size - first):
        block[i] = words[first + np.uint64(i)]
        if layout.grouped:
            kinds[i] = groups[first + np.uint64(i)]
    return _FULL >> (np.uint64(BLOCK) - (size - first))


@spliced
def _found(
    block: Words, kinds: Groups, k: Integer, valid: Integer, layout: Layout, ranges: Ranges
) -> Integer:
    """Which words of a block belong to a range."""
    found = within(block, np.uint64(0), ranges.lows[k], ranges.spans[k]) & valid
    if layout.grouped and ranges.numbers[k] != ALL:
        found &= within(kinds, np.uint64(0), np.uint64(ranges.groups[k]), np.uint64(0))
    return found


@part
def _changed(
    word: Integer, value: Integer, revert: bool, flipped: bool, k: Integer, layout: Layout,
    ranges: Ranges,
) -> tuple[Integer, Integer]:  # fmt: skip
    """The other word of a change in range ``k``, and the step from base to result."""
    if ranges.numbers[k] >= EDGES:
        up = absolute(word, layout) == ranges.lows[k]
        other = word + _ONE if up else word - _ONE
    elif flipped:
        other = word ^ np.uint64(value)
    else:
        return moved(word, -value if revert else value, layout), value
    if revert:
        return other, step_between(other, word, layout)
    return other, step_between(word, other, layout)


@part
def _quiet(ranges: Ranges) -> Integer:
    """The greatest magnitude of a word that may belong to a range that is not all words."""
    greatest = np.uint64(0)
    for k in range(ranges.stages[1], ranges.numbers.size):
        greatest = max(greatest, ranges.lows[k] + ranges.spans[k])
    return greatest
