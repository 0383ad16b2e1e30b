"""Statistics of a chunk's changes, from which the encoder chooses how to code them.

A *cell* is a group and an exponent of a word before its change, as one number: group · 2^exponent
bits + exponent. Most changes keep the exponent; the others, the *crossers*, may leave their class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.model.chunk_model import Layout, exponent_in, moved
from patchc.formats.codecs.conditional.model.step_tokens import (
    HISTOGRAM,
    SYMBOLS,
    WEIGHT,
    symbol_of,
    top_flips,
    weight_of,
)
from patchc.formats.codecs.protocol import Groups, Positions, Steps
from patchc.jit import Integer, loop


class Changes(NamedTuple):
    """The changes of a chunk and their statistics.

    Attributes:
        positions, steps: of each change, as the caller gave them.
        cells: the cell of each change.
        symbols: the symbol of each step (:func:`symbol_of`).
        flips: the bits in which base and result differ, for each change.
        crossers: the changes that alter the exponent.
        rows: for each cell with changes, its row in ``histograms``.
        hits: changes of each cell.
        histograms: per row, the histogram of the steps (:data:`Histogram`).
    """

    positions: Positions
    steps: Steps
    cells: NDArray[np.uint16]
    symbols: NDArray[np.uint8]
    flips: Words
    crossers: NDArray[np.uint32]
    rows: NDArray[np.int64]
    hits: NDArray[np.int64]
    histograms: NDArray[np.int64]


def trace_changes(
    words: Words, groups: Groups, positions: Positions, steps: Steps, layout: Layout
) -> Changes:
    """Gather the statistics of a chunk's changes."""
    count = len(positions)
    cells, symbols = np.empty(count, np.uint16), np.empty(count, np.uint8)
    flips, crossers = np.empty(count, words.dtype), np.empty(count, np.uint32)
    hits = np.zeros(int(layout.group_count) << int(layout.exponent_bits), np.int64)
    crossing = _trace(
        words, groups, positions, steps, layout, cells, symbols, flips, crossers, hits
    )
    rows = np.cumsum(hits > 0) - 1
    histograms = np.zeros((rows[-1] + 1, HISTOGRAM), np.int64)
    _count(cells, symbols, flips, steps, rows, np.int64(8 * words.itemsize), histograms)
    crossers = crossers[:crossing]
    return Changes(positions, steps, cells, symbols, flips, crossers, rows, hits, histograms)


@loop
def _trace(
    words: Words, groups: Groups, positions: Positions, steps: Steps, layout: Layout,
    cells: NDArray[np.uint16], symbols: NDArray[np.uint8], flips: Words,
    crossers: NDArray[np.uint32], hits: NDArray[np.int64],
) -> Integer:  # fmt: skip
    """Fill the arrays of single changes, and ``hits``; return the number of crossers.

    One array after the other, so that the loops are simple enough to be vectorised.
    """
    for change in range(positions.size):
        cells[change] = exponent_in(np.uint64(words[positions[change]]), layout)
    if layout.group_count > 1:
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


@loop
def _count(
    cells: NDArray[np.uint16], symbols: NDArray[np.uint8], flips: Words, steps: Steps,
    rows: NDArray[np.int64], word_bits: Integer, histograms: NDArray[np.int64],
) -> None:  # fmt: skip
    for change in range(cells.size):
        row = rows[cells[change]]
        histograms[row, symbols[change]] += 1
        histograms[row, SYMBOLS + top_flips(flips[change], word_bits)] += 1
        histograms[row, WEIGHT] += weight_of(steps[change])
