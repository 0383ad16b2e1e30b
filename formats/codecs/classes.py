"""Classes of words, and the populations in which changes are counted.

SPEC.md, section 6.4.1. A word's class follows from its exponent (and from the retention masks that
it lies in). Most changes stay within their class, and then base and result lie in the same one, so
that either of them tells the decoder the class. For those that do not there are wider populations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, part, spliced
from patchc.dtypes import DType

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

EDGES = 264
"""Population of the two words on either side of a class's upper edge: EDGES + class."""

POPULATIONS = EDGES + LOW
IDLE = POPULATIONS
LANES = 4
COUNTERS = IDLE + LANES
"""Counters of all populations, then of the words that do not change."""
NONE = -1
LOW_FLAG = 1024
"""Added to a class in :attr:`ClassMap.entries` where its group counts it among the lowest."""

BLOCK = 16
"""Words that are looked at together for whether any may change."""

Words = NDArray[np.unsignedinteger]

Groups = NDArray[np.uint8]
"""Group of each word of a chunk; of any length where all are in one."""

NEVER = np.int64(1) << 62


class ClassMap(NamedTuple):
    """How to find a word's class.

    Attributes:
        grouped: whether each word has a group; otherwise all are in group 0.
        entries: class of group g and exponent e at g << exponent_bits | e, plus ``LOW_FLAG``.
        lanes: the entries four times over for words 0, 1, 2, 3, 4, … of a chunk in turn, where
            words that do not change take turns among the counters from ``IDLE`` on: a loop that
            counted them all in one place would wait for its own store at every word.
        mantissa: bits below the exponent.
        exponent_mask: 2^exponent_bits − 1.
        exponent_bits: 0 where there is no exponent.
        edge_limit: 2 where words at an edge of an exponent may count apart, else 0.
        quiet: magnitudes above this one change in no group; all bits but the sign where some do.
        sign: the sign bit; 0 where words are raw integers.
        word_mask: all bits of a word.
    """

    grouped: bool
    entries: NDArray[np.int64]
    lanes: NDArray[np.uint16]
    mantissa: np.uint64
    exponent_mask: np.uint64
    exponent_bits: np.uint64
    edge_limit: np.uint64
    quiet: NDArray[np.uint64]
    sign: np.uint64
    word_mask: np.uint64


def exponent_of(dtype: DType) -> tuple[int, int]:
    """Mantissa and exponent bits of a dtype; 0 exponent bits where it has none."""
    return EXPONENTS.get(dtype.name, (0, 0))


def class_map(dtype: DType, groups: int, edges: bool) -> ClassMap:
    """A map for words of this dtype, its entries still to be filled."""
    mantissa, exponent = exponent_of(dtype)
    entries = np.zeros(groups << exponent, np.int64)
    return ClassMap(
        groups > 1,
        entries,
        np.zeros(LANES * len(entries), np.uint16),
        np.uint64(mantissa),
        np.uint64((1 << exponent) - 1),
        np.uint64(exponent),
        np.uint64(2 if edges and exponent else 0),
        np.array([(1 << (dtype.word_bits - 1)) - 1], np.uint64),
        np.uint64(1 << (dtype.word_bits - 1) if dtype.total_order else 0),
        np.uint64((1 << dtype.word_bits) - 1),
    )


@spliced
def entry_of(word: Integer, group: Integer, classes: ClassMap) -> Integer:
    """The class of a word, with its flag."""
    exponent = (word >> classes.mantissa) & classes.exponent_mask
    return classes.entries[(group << classes.exponent_bits) | exponent]


@spliced
def at_edge(word: Integer, classes: ClassMap) -> Integer:
    """Whether the word is the first or last of its exponent."""
    low = (np.uint64(1) << classes.mantissa) - np.uint64(1)
    return ((word + np.uint64(1)) & low) < classes.edge_limit


@part
def edge_of(word: Integer, group: Integer, classes: ClassMap) -> tuple[Integer, Integer]:
    """For a word at an edge of its exponent: the class below the edge, and the word across it.

    ``NONE`` where the same class lies on both sides.
    """
    low = (np.uint64(1) << classes.mantissa) - np.uint64(1)
    exponent = (word >> classes.mantissa) & classes.exponent_mask
    if word & low:
        if exponent == classes.exponent_mask:
            return np.int64(NONE), word
        other = word + np.uint64(1)
        below, above = entry_of(word, group, classes), entry_of(other, group, classes)
    else:
        if exponent == np.uint64(0):
            return np.int64(NONE), word
        other = word - np.uint64(1)
        below, above = entry_of(other, group, classes), entry_of(word, group, classes)
    if below == above:
        return np.int64(NONE), word
    return below & (LOW_FLAG - 1), other


@part
def moved(word: Integer, step: Integer, classes: ClassMap) -> Integer:
    """The word ``step`` steps from ``word`` (SPEC.md, section 3.3)."""
    return _ordered((_ordered(word, classes) + np.uint64(step)) & classes.word_mask, classes)


@part
def step_between(base: Integer, result: Integer, classes: ClassMap) -> Integer:
    """The step from one word to another, signed."""
    step = (_ordered(result, classes) - _ordered(base, classes)) & classes.word_mask
    half = (classes.word_mask >> np.uint64(1)) + np.uint64(1)
    return np.int64((step ^ half) - half)


@part
def _ordered(word: Integer, classes: ClassMap) -> Integer:
    return word ^ (classes.sign - np.uint64(1)) if word & classes.sign else word


@spliced
def all_quiet(words: Words, first: Integer, quiet: Integer) -> Integer:
    """Whether a block of words has only magnitudes above ``quiet``."""
    kind = words.dtype.type
    magnitude = kind(~np.uint64(0)) >> kind(1)
    limit = kind(quiet)
    busy = False
    for i in range(BLOCK):
        busy |= (words[first + np.uint64(i)] & magnitude) <= limit
    return not busy
