"""What the encoder knows of the changes of a chunk before it chooses how to code them.

A *cell* is a group and an exponent, group · 2^exponent bits + exponent: that of a word before its
change. Most changes keep the exponent; the others, the *crossers*, may leave their class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.model.classes import Groups, Layout, exponent_in, moved
from patchc.formats.codecs.conditional.model.step_tokens import (
    SYMBOLS,
    symbol_of,
    top_flips,
    weight_of,
)
from patchc.formats.codecs.protocol import Positions, Steps
from patchc.jit import Integer, kernel


class Changes(NamedTuple):
    """The changes of a chunk, one an entry, and their statistics.

    Attributes:
        positions, steps: as the caller gave them.
        cells: of each change.
        symbols: of each step (:func:`symbol_of`).
        flips: the bits in which base and result differ.
        crossers: the changes that alter the exponent.
        rows: of each cell that has changes, its row below.
        hits: changes of each cell.
        sizes: sum over the steps (:func:`weight_of`), a row.
        counts: histogram of the steps (:data:`Histogram`), a row.
    """

    positions: Positions
    steps: Steps
    cells: NDArray[np.uint16]
    symbols: NDArray[np.uint8]
    flips: Words
    crossers: NDArray[np.uint32]
    rows: NDArray[np.int64]
    hits: NDArray[np.int64]
    sizes: NDArray[np.int64]
    counts: NDArray[np.uint32]


def trace_changes(
    words: Words, groups: Groups, positions: Positions, steps: Steps, layout: Layout, kinds: int
) -> Changes:
    """Find out about each change of a chunk, whose words may be of ``kinds`` groups."""
    count = len(positions)
    cells, symbols = np.empty(count, np.uint16), np.empty(count, np.uint8)
    flips, crossers = np.empty(count, words.dtype), np.empty(count, np.uint32)
    hits = np.zeros(kinds << int(layout.exponent_bits), np.int64)
    crossing = _trace(
        words, groups, positions, steps, layout, cells, symbols, flips, crossers, hits
    )
    rows = np.cumsum(hits > 0) - 1
    sizes = np.zeros(rows[-1] + 1, np.int64)
    counts = np.zeros((rows[-1] + 1, 2 * SYMBOLS), np.uint32)
    _count(cells, symbols, flips, steps, rows, np.int64(8 * words.itemsize), sizes, counts)
    return Changes(
        positions, steps, cells, symbols, flips, crossers[:crossing], rows, hits, sizes, counts
    )


@kernel
def _trace(
    words: Words, groups: Groups, positions: Positions, steps: Steps, layout: Layout,
    cells: NDArray[np.uint16], symbols: NDArray[np.uint8], flips: Words,
    crossers: NDArray[np.uint32], hits: NDArray[np.int64],
) -> Integer:  # fmt: skip
    """Fill the arrays of single changes, and ``hits``; return the number of crossers.

    One array after the other: the loops are then simple enough to become vectors.
    """
    for change in range(positions.size):
        cells[change] = exponent_in(np.uint64(words[positions[change]]), layout)
    if layout.grouped:
        for change in range(positions.size):
            own = np.uint64(groups[positions[change]])
            cells[change] |= own << layout.exponent_bits
    for change in range(positions.size):
        hits[cells[change]] += 1
    for change in range(positions.size):
        symbols[change] = symbol_of(steps[change])
    for change in range(positions.size):
        word = np.uint64(words[positions[change]])
        flips[change] = word ^ moved(word, steps[change], layout)
    crossing = np.int64(0)
    for change in range(positions.size):
        crossers[crossing] = change
        crossing += exponent_in(np.uint64(flips[change]), layout) != 0
    return crossing


@kernel
def _count(
    cells: NDArray[np.uint16], symbols: NDArray[np.uint8], flips: Words, steps: Steps,
    rows: NDArray[np.int64], word_bits: Integer, sizes: NDArray[np.int64],
    counts: NDArray[np.uint32],
) -> None:  # fmt: skip
    for change in range(cells.size):
        row = rows[cells[change]]
        counts[row, symbols[change]] += np.uint32(1)
        counts[row, SYMBOLS + top_flips(flips[change], word_bits)] += np.uint32(1)
        sizes[row] += weight_of(steps[change])
