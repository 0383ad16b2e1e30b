"""The two loops over a chunk's words: counting for the encoder, and decoding.

SPEC.md, section 6.4.5. Each word passes through the populations that it belongs to: all words,
those of the lowest classes, an edge, its class. At most one of them changes it, and no population
gains or loses a word by its own changes; so the loop runs forward from the base through them, or
backward from the result, and counts the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, kernel, part, spliced
from patchc.formats.codecs.classes import (
    ALL,
    BLOCK,
    EDGES,
    LANES,
    LOW,
    LOW_FLAG,
    NEVER,
    NONE,
    ClassMap,
    Groups,
    Words,
    all_quiet,
    at_edge,
    edge_of,
    entry_of,
    moved,
    step_between,
)
from patchc.formats.codecs.codec import Positions, Steps
from patchc.formats.codecs.levels import pop_geometric
from patchc.formats.codecs.model import Model
from patchc.formats.codecs.rans import Stack
from patchc.formats.codecs.step_tokens import FLIPS, pop_flips, pop_step

STAGES = 4
TWICE = -2
MISFIT = -3


@kernel
def rank_changes(
    words: Words, groups: Groups, positions: Positions, steps: Steps, classes: ClassMap,
    populations: NDArray[np.int32], ranks: NDArray[np.uint32], flips: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> None:  # fmt: skip
    """Find each change's population and its rank there, and the size of all populations.

    Args:
        words: the base.
        groups: see :data:`Groups`.
        positions, steps: the changes.
        classes: the classes.
        populations, ranks: filled, one a change.
        flips: filled with the bits that each change flips.
        counts: filled, one a population.
    """
    grouped = classes.grouped
    first = np.int64(0)
    group = np.uint64(0)
    for change in range(positions.size + 1):
        last = np.int64(positions[change]) if change < positions.size else np.int64(words.size)
        _count(words, groups, first, last, classes, counts)
        if change == positions.size:
            break
        first = last + 1
        if grouped:
            group = np.uint64(groups[last])
        word = np.uint64(words[last])
        result = moved(word, steps[change], classes)
        before, after = entry_of(word, group, classes), entry_of(result, group, classes)
        flips[change] = word ^ result
        population = np.int64(ALL)
        if before == after:
            population = before & (LOW_FLAG - 1)
        elif before >= LOW_FLAG and after >= LOW_FLAG:
            population = LOW + np.int64(group)
        elif at_edge(word, classes):
            edge, other = edge_of(word, group, classes)
            if edge >= 0 and other == result:
                population = EDGES + edge
        if population == ALL:
            ranks[change] = last
            word = result
        low = entry_of(word, group, classes) >= LOW_FLAG
        if population == LOW + np.int64(group):
            ranks[change] = counts[population]
            word = result
        if low:
            counts[LOW + np.int64(group)] += 1
        edge = np.int64(NONE)
        if at_edge(word, classes):
            edge, _ = edge_of(word, group, classes)
        if population >= EDGES:
            ranks[change] = counts[population]
            word = result
        if edge >= 0:
            counts[EDGES + edge] += 1
        entry = entry_of(word, group, classes) & (LOW_FLAG - 1)
        if population < LOW:
            ranks[change] = counts[entry]
        counts[entry] += 1
        populations[change] = population
    counts[ALL] = words.size


@kernel
def scan(
    x: Integer, at: Integer, stream: Stack, words: Words, groups: Groups, revert: bool,
    classes: ClassMap, model: Model, symbol_slots: NDArray[np.uint32], word_bits: Integer,
    low_bits: NDArray[np.int64], tokens: NDArray[np.int64], level_slots: NDArray[np.uint32],
    left: NDArray[np.int64], positions: Positions, steps: Steps,
) -> tuple[Integer, Integer, Integer]:  # fmt: skip
    """Decode the changes of a chunk.

    Args:
        x, at, stream: the coder after the header.
        words: base words, or the result's with ``revert``.
        groups: see :data:`Groups`.
        revert: which of the two.
        classes, model: from the header.
        symbol_slots: decoding tables of the model's tables.
        word_bits: width of a word.
        low_bits, tokens, level_slots: of the levels.
        positions, steps: filled.

    Returns:
        The number of changes or a fault, the state and the next word.
    """
    limit = np.int64(words.size)
    left[:] = NEVER
    for number in range(model.levels.size):
        if model.levels[number] != NONE:
            left[number], x, at = pop_geometric(
                x, at, stream, model.levels[number], low_bits, tokens, level_slots, limit
            )
    done = np.int64(0)
    exception = left[ALL]
    i = np.int64(0)
    while True:
        i = _skip(words, groups, i, min(exception, limit), classes, left)
        if i == limit:
            return done, x, at
        word = np.uint64(words[i])
        group = np.uint64(groups[i] if classes.grouped else groups[0])
        hits = 0
        for turn in range(STAGES):
            stage = STAGES - 1 - turn if revert else turn
            population, other = _population(stage, word, group, i == exception, classes)
            if population == NONE:
                continue
            if stage > 0 and left[population] > 0:
                left[population] -= 1
                continue
            if hits or done == positions.size:
                return TWICE, x, at
            hits = 1
            if population < EDGES:
                table = model.table_of[population]
                if model.kinds[table] >= FLIPS:
                    flips, x, at = pop_flips(
                        x, at, stream, table, model.kinds[table], symbol_slots, word_bits
                    )
                    other = word ^ flips
                else:
                    step, x, at = pop_step(
                        x, at, stream, table, model.kinds[table], model.table_levels[table],
                        symbol_slots, word_bits, low_bits, tokens, level_slots,
                    )  # fmt: skip
                    other = moved(word, -step if revert else step, classes)
                if other == word:
                    return MISFIT, x, at
            positions[done] = i
            steps[done] = step_between(word, other, classes)
            if revert:
                steps[done] = step_between(other, word, classes)
            word = other
            done += 1
            left[population], x, at = pop_geometric(
                x, at, stream, model.levels[population], low_bits, tokens, level_slots, limit
            )
        if i == exception:
            exception = i + 1 + left[ALL]
        i += 1


@part
def _population(
    stage: Integer, word: Integer, group: Integer, excepted: Integer, classes: ClassMap
) -> tuple[Integer, Integer]:
    """The population in which a word counts at a stage or ``NONE``, and the word over its edge."""
    if stage == 0:
        return np.int64(ALL if excepted else NONE), word
    entry = entry_of(word, group, classes)
    if stage == 1:
        return (LOW + np.int64(group) if entry >= LOW_FLAG else np.int64(NONE)), word
    if stage == 3:
        return entry & (LOW_FLAG - 1), word
    if at_edge(word, classes):
        edge, other = edge_of(word, group, classes)
        if edge >= 0:
            return EDGES + edge, other
    return np.int64(NONE), word


@spliced
def _skip(
    words: Words, groups: Groups, first: Integer, last: Integer, classes: ClassMap,
    left: NDArray[np.int64],
) -> Integer:  # fmt: skip
    """Pass over words that do not change; return the first that does, or ``last``."""
    grouped = classes.grouped
    size = np.uint64(classes.entries.size)
    group = np.uint64(0)
    i, end = np.uint64(first), np.uint64(last)
    while i < end:
        stop = min((i | np.uint64(BLOCK - 1)) + np.uint64(1), end)
        if i + np.uint64(BLOCK) == stop and all_quiet(words, i, classes.quiet[0]):
            i = stop
            continue
        while i < stop:
            word = np.uint64(words[i])
            if grouped:
                group = np.uint64(groups[i]) << classes.exponent_bits
            exponent = (word >> classes.mantissa) & classes.exponent_mask
            entry = np.uint64(classes.lanes[(i & np.uint64(LANES - 1)) * size + (group | exponent)])
            if entry >= np.uint64(LOW_FLAG) or at_edge(word, classes):
                if not _pass_rare(word, group >> classes.exponent_bits, entry, classes, left):
                    return np.int64(i)
            else:
                gap = left[entry]
                if gap == 0:
                    return np.int64(i)
                left[entry] = gap - 1
            i += np.uint64(1)
    return last


@part
def _pass_rare(
    word: Integer, group: Integer, entry: Integer, classes: ClassMap,
    left: NDArray[np.int64],
) -> Integer:  # fmt: skip
    """Count a word in several populations, unless it changes in one of them."""
    own = entry & np.uint64(LOW_FLAG - 1)
    low, edge = np.int64(LOW) + np.int64(group), np.int64(NONE)
    if at_edge(word, classes):
        edge, _ = edge_of(word, group, classes)
    if left[own] == 0 or (edge >= 0 and left[EDGES + edge] == 0):
        return False
    if entry != own:
        if left[low] == 0:
            return False
        left[low] -= 1
    if edge >= 0:
        left[EDGES + edge] -= 1
    left[own] -= 1
    return True


@spliced
def _count(
    words: Words, groups: Groups, first: Integer, last: Integer, classes: ClassMap,
    counts: NDArray[np.int64],
) -> None:  # fmt: skip
    """Count words that do not change in all their populations."""
    grouped = classes.grouped
    size = np.uint64(classes.entries.size)
    group = np.uint64(0)
    i, end = np.uint64(first), np.uint64(last)
    while i < end:
        stop = min((i | np.uint64(BLOCK - 1)) + np.uint64(1), end)
        if i + np.uint64(BLOCK) == stop and all_quiet(words, i, classes.quiet[0]):
            i = stop
            continue
        while i < stop:
            word = np.uint64(words[i])
            if grouped:
                group = np.uint64(groups[i]) << classes.exponent_bits
            exponent = (word >> classes.mantissa) & classes.exponent_mask
            entry = np.uint64(classes.lanes[(i & np.uint64(LANES - 1)) * size + (group | exponent)])
            if entry >= np.uint64(LOW_FLAG):
                counts[np.uint64(LOW) + (group >> classes.exponent_bits)] += 1
                entry -= np.uint64(LOW_FLAG)
            if at_edge(word, classes):
                edge, _ = edge_of(word, group >> classes.exponent_bits, classes)
                if edge >= 0:
                    counts[EDGES + edge] += 1
            counts[entry] += 1
            i += np.uint64(1)
