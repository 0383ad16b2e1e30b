"""The decoder's pass over a chunk's words: finds those that change, and changes them.

SPEC.md, section 6.4.5. At most one population changes a word, and no population gains or loses a
word by its own changes. So the pass takes each window forward from the base through the
populations, or backward from the result, and counts the same words.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.model.chunk_model import (
    EDGES,
    NEVER,
    Layout,
    Ranges,
    absolute,
    moved,
    step_between,
)
from patchc.formats.codecs.conditional.model.window import (
    WINDOW,
    WINDOW_WORDS,
    Window,
    find_range,
    is_above,
    load_window,
)
from patchc.formats.codecs.protocol import Groups, Positions, Steps
from patchc.jit import Integer, inlined, loop
from patchc.simd import BLOCK, lowest, nth, popcount

_TWICE = -2
_MISFIT = -3
_ONE = np.uint64(1)


class ChangeQueues(NamedTuple):
    """The changes of each range, yet to be placed.

    Attributes:
        gaps, values: of all changes, by range.
        flipped: for each range, whether its values are flipped bits and not steps.
        cursors, ends: for each range, its next change in ``gaps`` and ``values``, and their end.
        left: for each range, how many of its words come before the next that changes.
    """

    gaps: NDArray[np.uint32]
    values: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    cursors: NDArray[np.int64]
    ends: NDArray[np.int64]
    left: NDArray[np.int64]


@loop
def place_changes(
    words: Words, groups: Groups, revert: bool, layout: Layout, ranges: Ranges, window: Window,
    queues: ChangeQueues, positions: Positions, steps: Steps, results: Words, before: Words,
) -> Integer:  # fmt: skip
    """Find the words that change.

    Args:
        words: base words, or the result's with ``revert``.
        groups: of the words.
        revert: whether to go from the result to the base.
        layout: of the words.
        ranges: the populations; each has changes.
        window: for this chunk.
        queues: the changes.
        positions, steps: filled, in the order of the words, where ``results`` is empty.
        results: ``words`` themselves, to be changed; or empty.
        before: filled with the words that change, and ``positions`` with theirs; or empty.

    Returns:
        The number of changes, or a fault.
    """
    quiet = np.uint64(0)  # the greatest magnitude in any range but that of all words
    for i in range(ranges.stages[1], ranges.numbers.size):
        quiet = max(quiet, ranges.lows[i] + ranges.spans[i])
    count = np.uint64(ranges.numbers.size)
    left = queues.left
    for each in range(count):
        left[each] = queues.gaps[queues.cursors[each]]
    with_all = ranges.stages[1] > 0
    done = np.uint64(0)
    for first in range(np.uint64(0), np.uint64(words.size), WINDOW_WORDS):
        load_window(words, groups, first, layout, window)
        if is_above(window, quiet):
            if not with_all:
                continue
            if left[0] >= WINDOW * BLOCK:
                left[0] -= WINDOW * BLOCK
                continue
        for turn in range(count):
            k: Integer = count - _ONE - turn if revert else turn
            total = find_range(k, ranges, window)
            if left[k] >= total:
                left[k] -= total
                continue
            fault = _change_range(k, np.uint64(total), revert, layout, ranges, window, queues)
            if fault:
                return fault
        if results.size:
            if before.size:
                _keep(first, done, window, positions, results, before)
            done += _store(first, window, results)
        else:
            done = _list(first, done, window, positions, steps)
    return np.int64(done)


@inlined
def _store(first: Integer, window: Window, results: Words) -> Integer:
    """Write back the window from word ``first`` on; return how many words have changed."""
    count = np.uint64(0)
    for block in range(np.uint64(WINDOW)):
        count += popcount(window.changed[block])
        window.changed[block] = 0
    if count:
        for i in range(min(WINDOW_WORDS, np.uint64(results.size) - first)):
            results[first + i] = window.words[i]
    return count


@inlined
def _keep(
    first: Integer, done: Integer, window: Window, positions: Positions, words: Words, before: Words
) -> None:
    """Keep the words that the window is about to change, from word ``first`` on."""
    for block in range(np.uint64(WINDOW)):
        changed = window.changed[block]
        while changed:
            place = first + ((block << np.uint64(6)) | lowest(changed))
            positions[done] = place
            before[done] = words[place]
            done += _ONE
            changed &= changed - _ONE


@inlined
def _list(
    first: Integer, done: Integer, window: Window, positions: Positions, steps: Steps
) -> Integer:
    """Add the changes of the window from word ``first`` on; return how many there are now."""
    for block in range(np.uint64(WINDOW)):
        changed = window.changed[block]
        window.changed[block] = 0
        while changed:
            place = (block << np.uint64(6)) | lowest(changed)
            positions[done] = first + place
            steps[done] = window.steps[place]
            done += _ONE
            changed &= changed - _ONE
    return done


@inlined
def _change_range(
    k: Integer, total: Integer, revert: bool, layout: Layout, ranges: Ranges, window: Window,
    queues: ChangeQueues,
) -> Integer:  # fmt: skip
    """Change the words of a range in a window, which holds ``total`` of them; return a fault or 0.

    Faults are gathered and reported at the end: a way out of the loop would keep the compiler from
    computing without branches, which takes twice as long.
    """
    kind = window.words.dtype.type
    low, span = ranges.lows[k], ranges.spans[k]
    is_edge, is_flipped = ranges.numbers[k] >= EDGES, queues.flipped[k]
    cursor, end = np.uint64(queues.cursors[k]), np.uint64(queues.ends[k])
    rank: Integer = np.uint64(queues.left[k])
    misfit, twice = np.uint64(0), np.uint64(0)
    while rank < total:
        block = np.uint64(0)
        for each in range(np.uint64(1), np.uint64(WINDOW)):
            block += np.uint64(window.ranks[each] <= rank)
        bit = nth(window.found[k, block], rank - window.ranks[block])
        place = (block << np.uint64(6)) | bit
        word = np.uint64(window.words[place])
        step: Integer = queues.values[cursor]
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
        twice |= window.changed[block] >> bit & _ONE
        window.changed[block] |= _ONE << bit
        window.words[place] = kind(other)
        window.steps[place] = step
        cursor += _ONE
        rank = rank + _ONE + np.uint64(queues.gaps[cursor]) if cursor < end else np.uint64(NEVER)
    queues.left[k] = rank - total
    queues.cursors[k] = cursor
    if misfit:
        return _MISFIT
    return _TWICE if twice else 0
