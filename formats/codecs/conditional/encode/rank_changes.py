"""The encoder's pass over a chunk's words: the rank of each change among its population's words.

It mirrors the decoder's (``decode/place_changes.py``). Where few words are small enough to belong
to a population, the others are left out first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.encode.change_statistics import Changes
from patchc.formats.codecs.conditional.model.chunk_model import (
    ALL,
    EDGES,
    LOW,
    ONE_GROUP,
    STAGES,
    Layout,
    Model,
    Ranges,
    exponent_in,
    last_magnitude,
)
from patchc.formats.codecs.conditional.model.window import (
    WINDOW_WORDS,
    Window,
    find_range,
    load_window,
)
from patchc.formats.codecs.protocol import Groups, Positions
from patchc.jit import Integer, loop
from patchc.kernels.histograms import Counts
from patchc.simd import BLOCK, lowest, popcount, within

_DENSE = 8  # with one small word in so many, the pass takes all words

_ONE = np.uint64(1)


class RankedWords(NamedTuple):
    """The words among which changes are ranked.

    Attributes:
        words, groups: the words and their groups.
        places: where the changes are among these words.
    """

    words: Words
    groups: Groups
    places: Positions


def sift(
    words: Words, groups: Groups | None, positions: Positions, word_counts: Counts,
    mantissa: int, exponent: int,
) -> RankedWords:  # fmt: skip
    """Leave out the words that no population but that of all words can hold, if they are many.

    Args:
        words, groups: of the chunk.
        positions: of the changes.
        word_counts: words by group and exponent.
        mantissa, exponent: bits of a word.
    """
    members = ONE_GROUP if groups is None else groups
    whole = RankedWords(words, members, positions)
    if not exponent or len(positions) * _DENSE > len(words):
        return whole
    exponents = words[positions] >> mantissa & (1 << exponent) - 1
    highest = int(exponents.max())
    most = int(word_counts[:, : highest + 2].sum())  # an edge reaches into the next exponent
    if most * _DENSE > len(words):
        return whole
    small = RankedWords(
        np.empty(most, words.dtype), np.empty(most, np.uint8), np.empty(len(positions), np.uint32)
    )
    last = np.uint64(highest + 1) << np.uint64(mantissa)
    count = _sift(words, members, positions, groups is not None, last, small)
    return small._replace(words=small.words[:count], groups=small.groups[:count])


@loop
def _sift(
    words: Words, groups: Groups, positions: Positions, grouped: bool, last: Integer,
    small: RankedWords,
) -> Integer:  # fmt: skip
    """Copy the words of magnitudes up to ``last``; return their number."""
    count, change = np.uint64(0), np.uint64(0)
    limit = np.uint64(words.size)
    up = np.uint64(64 - 8 * words.itemsize + 1)
    for first in range(np.uint64(0), limit, np.uint64(BLOCK)):
        found = np.uint64(0)
        if first + np.uint64(BLOCK) <= limit:
            found = within(words, first, np.uint64(0), last)
        else:
            for i in range(limit - first):
                magnitude = np.uint64(words[first + i]) << up >> up
                found |= np.uint64(magnitude <= last) << np.uint64(i)
        while found:
            i = first + lowest(found)
            small.words[count] = words[i]
            if grouped:
                small.groups[count] = groups[i]
            if change < positions.size and positions[change] == i:
                small.places[change] = count
                change += _ONE
            count += _ONE
            found &= found - _ONE
    return np.int64(count)


def find_populations(
    words: Words, changes: Changes, layout: Layout, model: Model, usual: NDArray[np.int16],
    populations: NDArray[np.int16], sources: NDArray[np.uint32],
) -> None:  # fmt: skip
    """Find each change's population, and list the changes by it; fills ``model.hits``.

    Args:
        words: the chunk in the base.
        changes: of the chunk.
        layout: of the words.
        model: has classes.
        usual: filled; for each cell, the population of the changes that stay in their class.
        populations: filled; one per change.
        sources: filled with the changes, by population and then by position.
    """
    class_of = np.empty(len(usual), np.int64)
    _find_populations(words, changes, layout, model, usual, populations, class_of)
    _list_changes(populations, np.cumsum(model.hits) - model.hits, sources)


@loop
def _find_populations(
    words: Words, changes: Changes, layout: Layout, model: Model, usual: NDArray[np.int16],
    populations: NDArray[np.int16], class_of: NDArray[np.int64],
) -> None:  # fmt: skip
    exponents = usual.size // layout.group_count
    for group in range(layout.group_count):
        number, last = model.firsts[group], model.firsts[group + 1] - 1
        for exponent in range(exponents):
            while number < last and exponents > 1 and exponent > model.tops[number]:
                number += 1
            cell = group * exponents + exponent
            class_of[cell] = number
            usual[cell] = number if number < last else ALL
            model.hits[usual[cell]] += changes.hits[cell]
    for change in range(populations.size):
        populations[change] = usual[changes.cells[change]]
    for i in range(changes.crossers.size):
        change = changes.crossers[i]
        cell = np.int64(changes.cells[change])
        own = cell // exponents
        word = np.uint64(words[changes.positions[change]])
        result = word ^ np.uint64(changes.flips[change])
        before = class_of[cell]
        after = class_of[own * exponents + np.int64(exponent_in(result, layout))]
        if before == after:
            continue
        population: Integer = np.int64(ALL)
        low, high = min(before, after), max(before, after)
        if high < model.firsts[own] + model.lows[own]:
            population = LOW + own
        elif high == low + 1:
            top = last_magnitude(model, low, layout)
            if word ^ result == top ^ (top + np.uint64(1)) and min(word, result) & top == top:
                population = EDGES + low
        model.hits[usual[cell]] -= 1
        model.hits[population] += 1
        populations[change] = population


@loop
def _list_changes(
    populations: NDArray[np.int16], slots: NDArray[np.int64], sources: NDArray[np.uint32]
) -> None:
    """List the changes by population, from the slot of each population's first on."""
    for change in range(populations.size):
        slot = slots[populations[change]]
        slots[populations[change]] = slot + 1
        sources[slot] = change


@loop
def rank_changes(
    ranked: RankedWords, positions: Positions, flips: Words, words: Integer, layout: Layout,
    ranges: Ranges, window: Window, sources: NDArray[np.uint32], cursors: NDArray[np.int64],
    ends: NDArray[np.int64], gaps: NDArray[np.uint32], nexts: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:  # fmt: skip
    """Find the gap before each change in its population, and the size of all populations.

    Args:
        ranked: the words to pass over.
        positions, flips: of each change.
        words: how many the chunk has.
        layout: of the words.
        ranges: the populations.
        window: for this chunk.
        sources: the changes, by population and then by position.
        cursors, ends: for each range, its changes in ``sources``; cursors move to the ends.
        gaps: filled, in the order of ``sources``.
        nexts: zeros, one per range; while ranking, the rank after that of the last change.
        counts: zeros, one per range; filled.
    """
    places, found, ranks = ranked.places, window.found, window.ranks
    partial = np.int64(0)
    for k in range(ranges.numbers.size):
        if not _is_whole(k, layout, ranges):
            partial += 1
            continue
        counts[k] = words
        for cursor in range(cursors[k], ends[k]):
            gaps[cursor] = np.int64(positions[sources[cursor]]) - nexts[k]
            nexts[k] = np.int64(positions[sources[cursor]]) + 1
    if not partial:
        return
    for first in range(np.uint64(0), np.uint64(ranked.words.size), WINDOW_WORDS):
        load_window(ranked.words, ranked.groups, first, layout, window)
        for k in range(ranges.numbers.size):
            whole = _is_whole(k, layout, ranges)
            before = np.uint64(counts[k])
            if not whole:
                counts[k] += find_range(k, ranges, window)
            cursor, end = cursors[k], ends[k]
            while cursor < end:
                change = sources[cursor]
                place = np.uint64(places[change]) - first
                if place >= WINDOW_WORDS:
                    break
                if not whole:
                    block = place >> np.uint64(6)
                    below = (_ONE << (place & np.uint64(BLOCK - 1))) - _ONE
                    rank = before + ranks[block] + popcount(found[k, block] & below)
                    gaps[cursor] = np.int64(rank) - nexts[k]
                    nexts[k] = np.int64(rank) + 1
                if k < ranges.stages[STAGES - 1]:
                    window.words[place] ^= flips[change]
                cursor += 1
            cursors[k] = cursor


@loop
def _is_whole(k: Integer, layout: Layout, ranges: Ranges) -> Integer:
    """Whether a range has all words of the chunk: then ranks are positions."""
    of_all = layout.group_count == 1 or ranges.numbers[k] == ALL
    return of_all and ranges.lows[k] == 0 and ranges.spans[k] == layout.word_mask >> _ONE
