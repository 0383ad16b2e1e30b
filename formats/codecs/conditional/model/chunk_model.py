"""What a chunk's header states: classes, levels and tables of steps, and what follows from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.model.classes import (
    ALL,
    EDGES,
    LOW,
    MOST_GROUPS,
    NONE,
    POPULATIONS,
    STAGES,
    Layout,
    Ranges,
)
from patchc.formats.codecs.conditional.model.levels import EVEN_LEVEL
from patchc.formats.codecs.conditional.model.step_tokens import (
    GEOMETRIC,
    RAW,
    SYMBOLS,
    table_freqs,
)
from patchc.jit import Integer, compiled, inlined

MOST_TABLES = LOW + MOST_GROUPS + 1


class Model(NamedTuple):
    """The header of one chunk.

    Attributes:
        tops: highest exponent of each class; classes of group g are ``firsts[g]`` and on, and
            one after its last stands for the words that do not change.
        firsts: first class of each group; one more bounds the last group.
        lows: number of lowest classes of each group that are a population of their own.
        levels: level of each population, ``NONE`` where nothing changes in it.
        hits: changes of each population.
        table_of: table of the steps of each class, then of each low population, then of all words.
        kinds, table_levels, counts, weights: of each table.
    """

    tops: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lows: NDArray[np.int64]
    levels: NDArray[np.int64]
    hits: NDArray[np.int64]
    table_of: NDArray[np.int64]
    kinds: NDArray[np.int64]
    table_levels: NDArray[np.int64]
    counts: NDArray[np.int64]
    weights: NDArray[np.uint8]


def empty_model() -> Model:
    """A model to be filled."""
    return Model(
        tops=np.zeros(LOW, np.int64),
        firsts=np.zeros(MOST_GROUPS + 1, np.int64),
        lows=np.zeros(MOST_GROUPS, np.int64),
        levels=np.full(POPULATIONS, NONE, np.int64),
        hits=np.zeros(POPULATIONS, np.int64),
        table_of=np.zeros(ALL + 1, np.int64),
        kinds=np.zeros(MOST_TABLES, np.int64),
        table_levels=np.zeros(MOST_TABLES, np.int64),
        counts=np.zeros(MOST_TABLES, np.int64),
        weights=np.zeros((MOST_TABLES, SYMBOLS), np.uint8),
    )


@compiled
def ranges_of(model: Model, groups: Integer, layout: Layout) -> Ranges:
    """The populations of a model that have changes, in the order of their stages."""
    numbers, owners = np.zeros(POPULATIONS, np.int64), np.zeros(POPULATIONS, np.int64)
    lows, spans = np.zeros(POPULATIONS, np.uint64), np.zeros(POPULATIONS, np.uint64)
    stages = np.zeros(STAGES + 1, np.int64)
    count = 0
    if model.hits[ALL]:
        numbers[0], spans[0] = ALL, layout.word_mask >> np.uint64(1)
        count = 1
    stages[1] = count
    for group in range(groups):
        if model.hits[LOW + group]:
            numbers[count], owners[count] = LOW + group, group
            spans[count] = last_magnitude(
                model, model.firsts[group] + model.lows[group] - 1, layout
            )
            count += 1
    stages[2] = count
    for group in range(groups):
        for number in range(model.firsts[group], model.firsts[group + 1] - 1):
            if model.hits[EDGES + number]:
                numbers[count], owners[count] = EDGES + number, group
                lows[count], spans[count] = last_magnitude(model, number, layout), 1
                count += 1
    stages[3] = count
    for group in range(groups):
        for number in range(model.firsts[group], model.firsts[group + 1] - 1):
            if model.hits[number]:
                numbers[count], owners[count] = number, group
                if number > model.firsts[group]:
                    lows[count] = last_magnitude(model, number - 1, layout) + np.uint64(1)
                spans[count] = last_magnitude(model, number, layout) - lows[count]
                count += 1
    stages[4] = count
    return Ranges(numbers[:count], owners[:count], lows[:count], spans[:count], stages)


@inlined
def last_magnitude(model: Model, number: Integer, layout: Layout) -> Integer:
    """The greatest magnitude in a class."""
    if layout.exponent_bits == 0:
        return layout.word_mask >> np.uint64(1)
    return (np.uint64(model.tops[number] + 1) << layout.mantissa) - np.uint64(1)


@inlined
def edge_level(model: Model, number: Integer) -> Integer:
    """The level from which that of the upper edge of class ``number`` is counted."""
    return max(0, min(max(model.levels[number], model.levels[number + 1]), EVEN_LEVEL) - 8)


def model_starts(model: Model) -> NDArray[np.int64]:
    """First slots of the symbols of the model's tables, and where the last ends; a row a table."""
    starts = np.zeros((int(model.table_of.max()) + 1, SYMBOLS + 1), np.int64)
    _fill_starts(model, starts)
    return starts


@compiled
def _fill_starts(model: Model, starts: NDArray[np.int64]) -> None:
    """Fill the rows of the tables that have tokens, from their weights."""
    freqs = np.zeros(SYMBOLS, np.int64)
    for table in range(starts.shape[0]):
        kind = model.kinds[table]
        if kind in (GEOMETRIC, RAW):
            continue
        table_freqs(model.weights[table], model.counts[table], freqs)
        starts[table, 0] = 0
        for symbol in range(SYMBOLS):
            here = freqs[symbol] if symbol < model.counts[table] else 0
            starts[table, symbol + 1] = starts[table, symbol] + here
