"""The encoder's loop over a chunk's words: the rank of each change among those of its population.

It mirrors the decoder's (``decode/decode_positions.py``). Where few words are small enough to
belong to a population, the others are left out beforehand.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.decode.decode_positions import (
    WINDOW,
    WINDOW_WORDS,
    Scratch,
    find,
    load,
)
from patchc.formats.codecs.conditional.encode.change_statistics import Changes
from patchc.formats.codecs.conditional.model.chunk_model import Model, last_magnitude
from patchc.formats.codecs.conditional.model.classes import (
    ALL,
    EDGES,
    LOW,
    ONE_GROUP,
    STAGES,
    Groups,
    Layout,
    Ranges,
    exponent_in,
)
from patchc.formats.codecs.protocol import Positions
from patchc.jit import Integer, compiled, kernel, kernel_helper
from patchc.simd import BLOCK, lowest, popcount, within

_DENSE = 8  # one word in so many is worth going through all of them

_ONE = np.uint64(1)


class Field(NamedTuple):
    """The words among which changes are ranked.

    Attributes:
        words, groups: see :data:`Words` and :data:`Groups`.
        places: of the changes, among these words.
    """

    words: Words
    groups: Groups
    places: Positions


def sift(
    words: Words, groups: Groups | None, positions: Positions, held: NDArray[np.int64],
    mantissa: int, exponent: int,
) -> Field:  # fmt: skip
    """Leave out the words that no population but that of all words can hold, if they are many.

    Args:
        words, groups: of the chunk.
        positions: of the changes.
        held: words by group and exponent.
        mantissa, exponent: bits of a word.
    """
    members = ONE_GROUP if groups is None else groups
    whole = Field(words, members, positions)
    if not exponent or len(positions) * _DENSE > len(words):
        return whole
    exponents = words[positions] >> mantissa & (1 << exponent) - 1
    highest = int(exponents.max())
    most = int(held[:, : highest + 2].sum())  # an edge has a magnitude of the next exponent
    if most * _DENSE > len(words):
        return whole
    kept = Field(
        np.empty(most, words.dtype), np.empty(most, np.uint8), np.empty(len(positions), np.uint32)
    )
    last = np.uint64(highest + 1) << np.uint64(mantissa)
    count = _sift(words, members, positions, groups is not None, last, kept)
    return kept._replace(words=kept.words[:count], groups=kept.groups[:count])


@compiled
def _sift(
    words: Words, groups: Groups, positions: Positions, grouped: bool, last: Integer, kept: Field
) -> Integer:
    """Keep the words of magnitudes up to ``last``; return their number."""
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
            kept.words[count] = words[i]
            if grouped:
                kept.groups[count] = groups[i]
            if change < positions.size and positions[change] == i:
                kept.places[change] = count
                change += _ONE
            count += _ONE
            found &= found - _ONE
    return np.int64(count)


@compiled
def find_populations(
    words: Words, changes: Changes, layout: Layout, kinds: Integer, model: Model,
    usual: NDArray[np.int16], populations: NDArray[np.int16], sources: NDArray[np.uint32],
) -> None:  # fmt: skip
    """Find each change's population, and list the changes by it; fills ``model.hits``.

    Args:
        words: of the base.
        changes: of the chunk.
        layout: of the words.
        kinds: number of groups.
        model: has classes.
        usual: filled, a cell: the population of the changes that stay in their class.
        populations: filled, one a change.
        sources: filled with the changes, by population and then by position.
    """
    class_of = np.zeros(usual.size, np.int64)
    exponents = usual.size // kinds
    for group in range(kinds):
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
    slots = np.cumsum(model.hits) - model.hits
    for change in range(populations.size):
        slot = slots[populations[change]]
        slots[populations[change]] = slot + 1
        sources[slot] = change


@kernel
def rank_changes(
    field: Field, positions: Positions, flips: Words, words: Integer, layout: Layout,
    ranges: Ranges, scratch: Scratch, sources: NDArray[np.uint32], cursors: NDArray[np.int64],
    ends: NDArray[np.int64], gaps: NDArray[np.uint32], nexts: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:  # fmt: skip
    """Find the gap before each change in its population, and the size of all populations.

    Args:
        field: the words to go through.
        positions: of the changes, in the chunk.
        flips: the bits that each change flips.
        words: of the chunk.
        layout: of the words.
        ranges: the populations.
        scratch: see :class:`Scratch`.
        sources: the changes, by population and then by position.
        cursors, ends: of each range, its changes in ``sources``; the first are moved.
        gaps: filled, in the order of ``sources``.
        nexts: the rank after that of the change before, one a range; must be 0.
        counts: filled, one a range; must be 0.
    """
    places, found, ranks = field.places, scratch.found, scratch.ranks
    parts = np.int64(0)
    for k in range(ranges.numbers.size):
        if not _is_whole(k, layout, ranges):
            parts += 1
            continue
        counts[k] = words
        for cursor in range(cursors[k], ends[k]):
            gaps[cursor] = np.int64(positions[sources[cursor]]) - nexts[k]
            nexts[k] = np.int64(positions[sources[cursor]]) + 1
    if not parts:
        return
    for first in range(np.uint64(0), np.uint64(field.words.size), WINDOW_WORDS):
        load(field.words, field.groups, first, layout, scratch)
        for k in range(ranges.numbers.size):
            whole = _is_whole(k, layout, ranges)
            before = np.uint64(counts[k])
            if not whole:
                counts[k] += find(k, ranges, scratch)
                for each in range(WINDOW):
                    ranks[each] = before
                    before += popcount(found[k, each])
            cursor, end = cursors[k], ends[k]
            while cursor < end:
                change = sources[cursor]
                place = np.uint64(places[change]) - first
                if place >= WINDOW_WORDS:
                    break
                if not whole:
                    block = place >> np.uint64(6)
                    below = (_ONE << (place & np.uint64(BLOCK - 1))) - _ONE
                    rank = ranks[block] + popcount(found[k, block] & below)
                    gaps[cursor] = np.int64(rank) - nexts[k]
                    nexts[k] = np.int64(rank) + 1
                if k < ranges.stages[STAGES - 1]:
                    scratch.words[place] ^= flips[change]
                cursor += 1
            cursors[k] = cursor


@kernel_helper
def _is_whole(k: Integer, layout: Layout, ranges: Ranges) -> Integer:
    """Whether a range has all words of the chunk, so that the rank of a word is its position."""
    of_all = not layout.grouped or ranges.numbers[k] == ALL
    return of_all and ranges.lows[k] == 0 and ranges.spans[k] == layout.word_mask >> _ONE
