"""The encoder's second choice: the levels and the tables of steps that fit each population."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.encode.change_statistics import Changes
from patchc.formats.codecs.conditional.model.chunk_model import Model
from patchc.formats.codecs.conditional.model.classes import ALL, EDGES, LOW
from patchc.formats.codecs.conditional.model.levels import Costs, best_level
from patchc.formats.codecs.conditional.model.step_tables import best_table
from patchc.formats.codecs.conditional.model.step_tokens import SYMBOLS, top_flips, weight_of
from patchc.jit import Integer, compiled, inlined


@compiled
def choose_levels(
    model: Model, kinds: Integer, changes: Changes, usual: NDArray[np.int16],
    populations: NDArray[np.int16], counts: NDArray[np.int64], word_bits: Integer,
    costs: Costs,
) -> tuple[float, float]:  # fmt: skip
    """Set levels and tables from the changes of each population and its number of words.

    Args:
        model: its classes and hits are set.
        kinds: number of groups.
        changes: of the chunk.
        usual: of each cell, the population of its changes that stay in their class.
        populations: of each change.
        counts: words of each population.
        word_bits: width of a word.
        costs: of levels.

    Returns:
        About the bits of all gaps, and of all tables and steps.
    """
    gap_bits, step_bits = 0.0, 0.0
    hits = model.hits
    unused = LOW - model.firsts[kinds]
    histograms, sizes = _count_steps(changes, usual, populations, word_bits, unused)
    tables = 0
    for group in range(kinds):
        first, last = model.firsts[group], model.firsts[group + 1] - 1
        start = first
        together = 0.0
        for number in range(first, last):
            model.levels[number], bits = best_level(hits[number], counts[number], costs)
            gap_bits += bits
            alone = _table(model, tables, histograms[number], sizes[number], word_bits, costs)
            if number > first:
                joint = _table(
                    model, tables, histograms[number] + histograms[start],
                    sizes[number] + sizes[start], word_bits, costs,
                )  # fmt: skip
                if joint < together + alone:
                    step_bits += joint - together
                    histograms[start] += histograms[number]
                    sizes[start] += sizes[number]
                    together = joint
                    model.table_of[number] = tables - 1
                    _table(
                        model, tables - 1, histograms[start], sizes[start], word_bits,
                        costs,
                    )  # fmt: skip
                    continue
            _table(model, tables, histograms[number], sizes[number], word_bits, costs)
            start, together = number, alone
            step_bits += alone
            model.table_of[number] = tables
            tables += 1
        tables, bits, own = _wide(
            model, LOW + group, tables, counts, histograms[LOW + group - unused],
            sizes[LOW + group - unused], word_bits, costs,
        )  # fmt: skip
        gap_bits += bits
        step_bits += own
        for number in range(first, last):
            if hits[EDGES + number]:
                model.levels[EDGES + number], bits = best_level(
                    hits[EDGES + number], counts[EDGES + number], costs
                )
                gap_bits += bits
    tables, bits, own = _wide(
        model, ALL, tables, counts, histograms[ALL - unused], sizes[ALL - unused], word_bits,
        costs,
    )  # fmt: skip
    return gap_bits + bits, step_bits + own


@inlined
def _count_steps(
    changes: Changes, usual: NDArray[np.int16], populations: NDArray[np.int16],
    word_bits: Integer, unused: Integer,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Histogram and size of the steps of each population that has a table.

    The populations that follow the classes are told without the ``unused`` numbers between.
    """
    rows = ALL + 1 - unused
    histograms, sizes = np.zeros((rows, 2 * SYMBOLS), np.int64), np.zeros(rows, np.int64)
    for cell in range(changes.hits.size):
        if changes.hits[cell]:
            row = usual[cell] if usual[cell] < LOW else usual[cell] - unused
            histograms[row] += changes.counts[changes.rows[cell]]
            sizes[row] += changes.sizes[changes.rows[cell]]
    for i in range(changes.crossers.size):
        change = changes.crossers[i]
        expected = np.int64(usual[changes.cells[change]])
        if populations[change] == expected:
            continue
        symbol = np.int64(changes.symbols[change])
        flipped = SYMBOLS + top_flips(changes.flips[change], word_bits)
        weight = weight_of(changes.steps[change])
        for population, one in ((expected, -1), (np.int64(populations[change]), 1)):
            if population <= ALL:
                row = population if population < LOW else population - unused
                histograms[row, symbol] += one
                histograms[row, flipped] += one
                sizes[row] += one * weight
    return histograms, sizes


@inlined
def _wide(
    model: Model, population: Integer, tables: Integer, counts: NDArray[np.int64],
    histogram: NDArray[np.int64], size: Integer, word_bits: Integer,
    costs: Costs,
) -> tuple[Integer, float, float]:  # fmt: skip
    """Level and table of a population of several classes, where there is one.

    Returns:
        The number of tables now, and the bits of gaps and of steps.
    """
    hits = model.hits[population]
    if not hits:
        return tables, 0.0, 0.0
    model.levels[population], bits = best_level(hits, counts[population], costs)
    own = _table(model, tables, histogram, size, word_bits, costs)
    model.table_of[population] = tables
    return tables + 1, bits, own


@inlined
def _table(
    model: Model, table: Integer, histogram: NDArray[np.int64], sizes: Integer,
    word_bits: Integer, costs: Costs,
) -> float:  # fmt: skip
    """Put the best table for a histogram into the model; return its bits with the steps."""
    model.weights[table] = 0
    kind, level, count, bits = best_table(histogram, sizes, word_bits, costs, model.weights[table])
    model.kinds[table] = kind
    model.table_levels[table] = level
    model.counts[table] = count
    return bits
