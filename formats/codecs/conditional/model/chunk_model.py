"""Classes, populations and tables of a chunk: what its header states, and what follows from it.

SPEC.md, section 6.4.5. A word's class follows from its exponent, and from the retention masks that
it lies in. Most changes stay in their class: base and result both tell the decoder the class. Wider
populations hold the other changes. A population is a range of magnitudes; a magnitude is a word
without its sign.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import DType
from patchc.formats.codecs.conditional.model.levels import EVEN_LEVEL
from patchc.formats.codecs.conditional.model.step_tokens import GEOMETRIC, RAW, SYMBOLS, table_freqs
from patchc.jit import Integer, inlined, loop

EXPONENTS = {
    "F64": (52, 11),
    "F32": (23, 8),
    "F16": (10, 5),
    "BF16": (7, 8),
    "F8_E4M3": (3, 4),
    "F8_E5M2": (2, 5),
}
"""Mantissa bits and exponent bits; words of other dtypes have no exponent."""

MOST_CLASSES = 60
"""Classes of a group of words, one group for each combination of masks."""

MOST_GROUPS = 4
LOW = 256
"""Population of the words of group g in its lowest classes: LOW + g. Classes have 0 … 255."""

ALL = LOW + MOST_GROUPS
"""Population of all words of the chunk."""

EDGES = ALL + 1
"""Population of the two magnitudes on either side of a class's upper edge: EDGES + class."""

POPULATIONS = EDGES + LOW
NONE = -1

STAGES = 4
"""All words, lowest classes, edges, classes: a word passes them in this order, or backwards."""

ONE_GROUP = np.zeros(1, np.uint8)
"""What loops take for groups where all words are in one."""

Codings = NDArray[np.int64]
"""For each population a row: its changes, the level of its gaps, the table of its steps, and that
table's kind and level. Loops that code changes take this alone of a :class:`Model`."""

HITS, LEVEL, TABLE, KIND, STEP_LEVEL = range(5)
"""Columns of :data:`Codings`."""

NEVER = np.int64(1) << 62
MOST_TABLES = LOW + MOST_GROUPS + 1


class Layout(NamedTuple):
    """What the bits of a word mean.

    Attributes:
        group_count: number of groups; 1 where all words are in group 0.
        mantissa: bits below the exponent.
        exponent_mask: 2^exponent_bits − 1.
        exponent_bits: 0 where there is no exponent.
        sign: the sign bit; 0 where words are raw integers.
        word_mask: all bits of a word.
    """

    group_count: np.int64
    mantissa: np.uint64
    exponent_mask: np.uint64
    exponent_bits: np.uint64
    sign: np.uint64
    word_mask: np.uint64


class Ranges(NamedTuple):
    """The populations in which something changes, in the order of their stages.

    Attributes:
        numbers: numbers of the populations.
        groups: the group of each; 0 for all words.
        lows, spans: the least magnitude of each, and how many more it has.
        stages: where each stage starts, and the end of the last.
    """

    numbers: NDArray[np.int64]
    groups: NDArray[np.int64]
    lows: NDArray[np.uint64]
    spans: NDArray[np.uint64]
    stages: NDArray[np.int64]


def exponent_of(dtype: DType) -> tuple[int, int]:
    """Mantissa and exponent bits of a dtype; 0 exponent bits where it has none."""
    return EXPONENTS.get(dtype.name, (0, 0))


def layout_of(dtype: DType, grouped: bool) -> Layout:
    """The layout of words of this dtype."""
    mantissa, exponent = exponent_of(dtype)
    return Layout(
        np.int64(MOST_GROUPS if grouped else 1),
        np.uint64(mantissa),
        np.uint64((1 << exponent) - 1),
        np.uint64(exponent),
        np.uint64(1 << (dtype.word_bits - 1) if dtype.total_order else 0),
        np.uint64((1 << dtype.word_bits) - 1),
    )


@inlined
def exponent_in(word: Integer, layout: Layout) -> Integer:
    """The exponent of a word, 0 where there is none."""
    return (word >> layout.mantissa) & layout.exponent_mask


@inlined
def absolute(word: Integer, layout: Layout) -> Integer:
    """The magnitude of a word."""
    return word & (layout.word_mask >> np.uint64(1))


@inlined
def moved(word: Integer, step: Integer, layout: Layout) -> Integer:
    """The word ``step`` steps from ``word`` (SPEC.md, section 3.3)."""
    return _ordered((_ordered(word, layout) + np.uint64(step)) & layout.word_mask, layout)


@loop
def step_between(base: Integer, result: Integer, layout: Layout) -> Integer:
    """The step from one word to another, signed."""
    step = (_ordered(result, layout) - _ordered(base, layout)) & layout.word_mask
    half = (layout.word_mask >> np.uint64(1)) + np.uint64(1)
    return np.int64((step ^ half) - half)


@inlined
def _ordered(word: Integer, layout: Layout) -> Integer:
    negative = np.uint64((word & layout.sign) != 0)
    return word ^ ((layout.sign - np.uint64(1)) & (np.uint64(0) - negative))


class Model(NamedTuple):
    """The header of one chunk.

    Attributes:
        tops: highest exponent of each class; the classes of group g start at ``firsts[g]``, and
            one after its last class stands for the words that do not change.
        firsts: first class of each group; one more bounds the last group.
        lows: how many of each group's lowest classes together form a population.
        levels: level of each population, ``NONE`` where nothing changes in it.
        hits: changes of each population.
        table_of: table of the steps of each class, then of each low population, then of all words.
        kinds, table_levels, counts, weights: of each table, its kind, its level where that is
            geometric, and otherwise the number of its weights and the weights.
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


def ranges_of(model: Model, layout: Layout) -> Ranges:
    """The populations of a model that have changes, in the order of their stages."""
    ranges = Ranges(
        np.empty(POPULATIONS, np.int64), np.empty(POPULATIONS, np.int64),
        np.empty(POPULATIONS, np.uint64), np.empty(POPULATIONS, np.uint64),
        np.zeros(STAGES + 1, np.int64),
    )  # fmt: skip
    count = _find_ranges(model, layout, ranges)
    numbers, groups, lows, spans, stages = ranges
    return Ranges(numbers[:count], groups[:count], lows[:count], spans[:count], stages)


@loop
def _find_ranges(model: Model, layout: Layout, ranges: Ranges) -> Integer:
    """Fill in the populations that have changes; return their number."""
    count = np.int64(0)
    for stage in range(STAGES):
        for group in range(layout.group_count if stage else 1):
            first, last = model.firsts[group], model.firsts[group + 1] - 1
            if stage == 0:
                first, last = np.int64(ALL), np.int64(ALL + 1)
            elif stage == 1:
                first, last = np.int64(LOW + group), np.int64(LOW + group + 1)
            elif stage == 2:
                first, last = first + EDGES, last + EDGES
            for number in range(first, last):
                if model.hits[number]:
                    low, span = _magnitudes(model, number, group, layout)
                    ranges.numbers[count], ranges.groups[count] = number, group
                    ranges.lows[count], ranges.spans[count] = low, span
                    count += 1
        ranges.stages[stage + 1] = count
    return count


@loop
def _magnitudes(
    model: Model, number: Integer, group: Integer, layout: Layout
) -> tuple[Integer, Integer]:
    """A population's least magnitude, and how many more it has."""
    first = model.firsts[group]
    if number == ALL:
        return np.uint64(0), layout.word_mask >> np.uint64(1)
    if number >= EDGES:
        return last_magnitude(model, number - EDGES, layout), np.uint64(1)
    if number >= LOW:
        return np.uint64(0), last_magnitude(model, first + model.lows[group] - 1, layout)
    low = np.uint64(0)
    if number > first:
        low = last_magnitude(model, number - 1, layout) + np.uint64(1)
    return low, last_magnitude(model, number, layout) - low


@loop
def last_magnitude(model: Model, number: Integer, layout: Layout) -> Integer:
    """The greatest magnitude in a class."""
    if layout.exponent_bits == 0:
        return layout.word_mask >> np.uint64(1)
    return (np.uint64(model.tops[number] + 1) << layout.mantissa) - np.uint64(1)


def codings_of(model: Model) -> Codings:
    """How the changes of each population are coded; an edge's have no steps to code."""
    codings = np.zeros((POPULATIONS, 5), np.int64)
    table = codings[:, TABLE]
    table[:EDGES] = model.table_of
    codings[:, HITS], codings[:, LEVEL] = model.hits, model.levels
    codings[:, KIND], codings[:, STEP_LEVEL] = model.kinds[table], model.table_levels[table]
    return codings


@loop
def edge_level(model: Model, number: Integer) -> Integer:
    """The level from which that of the upper edge of class ``number`` is counted."""
    return max(0, min(max(model.levels[number], model.levels[number + 1]), EVEN_LEVEL) - 8)


def model_starts(model: Model) -> NDArray[np.int64]:
    """For each table, the first slots of its symbols, and where the last ends; 0 without tokens."""
    starts = np.zeros((int(model.table_of.max()) + 1, SYMBOLS + 1), np.int64)
    _fill_starts(model.kinds, model.counts, model.weights, starts)
    return starts


@loop
def _fill_starts(
    kinds: NDArray[np.int64], counts: NDArray[np.int64], weights: NDArray[np.uint8],
    starts: NDArray[np.int64],
) -> None:  # fmt: skip
    for table in range(starts.shape[0]):
        if kinds[table] != GEOMETRIC and kinds[table] != RAW:
            table_freqs(weights[table], counts[table], starts[table, 1:])
            for symbol in range(SYMBOLS):
                starts[table, symbol + 1] += starts[table, symbol]
