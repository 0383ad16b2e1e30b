"""Classes of words, and the populations in which changes are counted.

SPEC.md, section 6.4.5. A word's class follows from its exponent (and from the retention masks that
it lies in). Most changes stay within their class, and then base and result lie in the same one, so
that either of them tells the decoder the class. For those that do not there are wider populations.
Each population is a range of magnitudes, a magnitude being a word without its sign.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import DType
from patchc.jit import Integer, always_inline, kernel_helper

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


Groups = NDArray[np.uint8]
"""Group of each word of a chunk; of any length where all are in one."""

ONE_GROUP = np.zeros(1, np.uint8)
"""The groups of words that are all in one."""

NEVER = np.int64(1) << 62


class Layout(NamedTuple):
    """What the bits of a word are.

    Attributes:
        grouped: whether each word has a group; otherwise all are in group 0.
        mantissa: bits below the exponent.
        exponent_mask: 2^exponent_bits − 1.
        exponent_bits: 0 where there is no exponent.
        sign: the sign bit; 0 where words are raw integers.
        word_mask: all bits of a word.
    """

    grouped: bool
    mantissa: np.uint64
    exponent_mask: np.uint64
    exponent_bits: np.uint64
    sign: np.uint64
    word_mask: np.uint64


class Ranges(NamedTuple):
    """The populations in which something changes, in the order of their stages.

    Attributes:
        numbers: of the populations.
        groups: the group that each is of; 0 for all words.
        lows, spans: its magnitudes, from the least one on, and how many follow that.
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


def layout_of(dtype: DType, groups: int) -> Layout:
    """The layout of words of this dtype."""
    mantissa, exponent = exponent_of(dtype)
    return Layout(
        groups > 1,
        np.uint64(mantissa),
        np.uint64((1 << exponent) - 1),
        np.uint64(exponent),
        np.uint64(1 << (dtype.word_bits - 1) if dtype.total_order else 0),
        np.uint64((1 << dtype.word_bits) - 1),
    )


@always_inline
def exponent_in(word: Integer, layout: Layout) -> Integer:
    """The exponent of a word, 0 where there is none."""
    return (word >> layout.mantissa) & layout.exponent_mask


@always_inline
def absolute(word: Integer, layout: Layout) -> Integer:
    """The magnitude of a word."""
    return word & (layout.word_mask >> np.uint64(1))


@always_inline
def moved(word: Integer, step: Integer, layout: Layout) -> Integer:
    """The word ``step`` steps from ``word`` (SPEC.md, section 3.3)."""
    return _ordered((_ordered(word, layout) + np.uint64(step)) & layout.word_mask, layout)


@kernel_helper
def step_between(base: Integer, result: Integer, layout: Layout) -> Integer:
    """The step from one word to another, signed."""
    step = (_ordered(result, layout) - _ordered(base, layout)) & layout.word_mask
    half = (layout.word_mask >> np.uint64(1)) + np.uint64(1)
    return np.int64((step ^ half) - half)


@always_inline
def _ordered(word: Integer, layout: Layout) -> Integer:
    negative = np.uint64((word & layout.sign) != 0)
    return word ^ ((layout.sign - np.uint64(1)) & (np.uint64(0) - negative))
