"""The encoder's second choice: the levels and the tables of steps that fit each population."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.encode.change_statistics import Changes
from patchc.formats.codecs.conditional.model.chunk_model import ALL, EDGES, LOW, Layout, Model
from patchc.formats.codecs.conditional.model.levels import LEVELS, Costs, best_level, log2
from patchc.formats.codecs.conditional.model.rans import SCALE_BITS
from patchc.formats.codecs.conditional.model.step_tokens import (
    EVEN,
    FARTHEST,
    FLIPS,
    GEOMETRIC,
    HEAVIEST,
    HISTOGRAM,
    RAW,
    SIGNED,
    SYMBOLS,
    WEIGHT,
    Histogram,
    Weights,
    table_freqs,
    token_bits,
    top_flips,
    weight_of,
)
from patchc.jit import Integer, loop


def choose_levels(
    model: Model, layout: Layout, changes: Changes, usual: NDArray[np.int16],
    populations: NDArray[np.int16], sizes: NDArray[np.int64], word_bits: int, costs: Costs,
) -> tuple[float, float]:  # fmt: skip
    """Set levels and tables from the changes of each population and its number of words.

    Args:
        model: its classes and hits are set.
        layout: of the words.
        changes: of the chunk.
        usual: for each cell, the population of its changes that stay in their class.
        populations: of each change.
        sizes: words of each population.
        word_bits: width of a word.
        costs: of levels.

    Returns:
        About the bits of all gaps, and of all tables and steps.
    """
    unused, bits = LOW - model.firsts[layout.group_count], np.int64(word_bits)
    histograms = np.zeros((ALL + 1 - unused, HISTOGRAM), np.int64)
    _count_steps(changes, usual, populations, bits, unused, histograms)
    both, freqs = np.empty(HISTOGRAM, np.int64), np.empty(SYMBOLS, np.int64)
    gap_bits, step_bits = _choose_levels(
        model, layout, histograms, unused, sizes, bits, costs, both, freqs
    )
    return gap_bits, step_bits


@loop
def _choose_levels(
    model: Model, layout: Layout, histograms: NDArray[np.int64], unused: Integer,
    sizes: NDArray[np.int64], word_bits: Integer, costs: Costs, both: Histogram,
    freqs: NDArray[np.int64],
) -> tuple[float, float]:  # fmt: skip
    gap_bits, step_bits = 0.0, 0.0
    tables = 0
    for wide in range(LOW, ALL + 1):  # after the classes of its group; ``ALL`` has none
        group, first, last = wide - LOW, 0, 0
        if group < layout.group_count:
            first, last = model.firsts[group], model.firsts[group + 1] - 1
        start, together = first, 0.0
        for number in range(first, last):
            gap_bits += _set_level(model, number, sizes, costs)
            joint = np.inf
            if number > first:
                both[:] = 0
                add_steps(both, histograms[number])
                add_steps(both, histograms[start])
                joint = _set_table(model, tables, both, word_bits, costs, freqs)
            alone = _set_table(model, tables, histograms[number], word_bits, costs, freqs)
            if joint < together + alone:
                step_bits += joint - together
                add_steps(histograms[start], histograms[number])
                _set_table(model, tables - 1, histograms[start], word_bits, costs, freqs)
                together = joint
            else:
                step_bits += alone
                start, together = number, alone
                tables += 1
            model.table_of[number] = tables - 1
        if model.hits[wide]:
            gap_bits += _set_level(model, wide, sizes, costs)
            step_bits += _set_table(
                model, tables, histograms[wide - unused], word_bits, costs, freqs
            )
            model.table_of[wide] = tables
            tables += 1
        for number in range(EDGES + first, EDGES + last):
            if model.hits[number]:
                gap_bits += _set_level(model, number, sizes, costs)
    return gap_bits, step_bits


@loop
def _count_steps(
    changes: Changes, usual: NDArray[np.int16], populations: NDArray[np.int16],
    word_bits: Integer, unused: Integer, histograms: NDArray[np.int64],
) -> None:  # fmt: skip
    """Add up a histogram of the steps of each population that has a table.

    The populations after the classes follow without the ``unused`` numbers between.
    """
    for cell in range(changes.hits.size):
        if changes.hits[cell]:
            row = usual[cell] if usual[cell] < LOW else usual[cell] - unused
            add_steps(histograms[row], changes.histograms[changes.rows[cell]])
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
                histograms[row, WEIGHT] += one * weight


@loop
def add_steps(histogram: Histogram, other: Histogram) -> None:
    """Add a histogram to another."""
    for i in range(HISTOGRAM):
        histogram[i] += other[i]


@loop
def _set_level(model: Model, population: Integer, sizes: NDArray[np.int64], costs: Costs) -> float:
    """Set the best level of a population's gaps; return their bits."""
    level, bits = best_level(model.hits[population], sizes[population], costs)
    model.levels[population] = level
    return bits


@loop
def _set_table(
    model: Model, table: Integer, histogram: Histogram, word_bits: Integer, costs: Costs,
    freqs: NDArray[np.int64],
) -> float:  # fmt: skip
    """Set a table to the best for a histogram; return the bits of the table and the steps."""
    weights = model.weights[table]
    weights[:] = 0
    kind, level, count, bits = best_table(histogram, word_bits, costs, weights, freqs)
    model.kinds[table] = kind
    model.table_levels[table] = level
    model.counts[table] = count
    return bits


@loop
def estimated_bits(
    counts: Histogram, total: Integer, symbols: Integer, raw: Integer, word_bits: Integer,
    costs: Costs,
) -> float:  # fmt: skip
    """About the bits of the shortest kind of table and of its steps; see :func:`best_table`.

    ``total``, ``symbols`` and ``raw`` are those of :func:`sum_up`.
    """
    if total == 0:
        return 10.0
    tokens = (symbols + 1) >> 1
    signed = raw + 5 + 3.5 * symbols + _entropy(counts, total, symbols, SIGNED, costs)
    even = raw + 5 + 3.5 * tokens + total + _entropy(counts, total, tokens, EVEN, costs)
    best: float = min(signed, even, 5.0 + total * word_bits)
    if counts[WEIGHT] <= FARTHEST:
        best = min(best, best_level(total, total + counts[WEIGHT], costs)[1] + total + 10)
    if _is_wide(raw, total, word_bits):
        flips = 5 + 3.5 * SYMBOLS + total * (word_bits - 8)
        best = min(best, flips + _entropy(counts, total, SYMBOLS, FLIPS, costs))
    return float(best)


@loop
def best_table(
    counts: Histogram, word_bits: Integer, costs: Costs, weights: Weights,
    freqs: NDArray[np.int64],
) -> tuple[Integer, Integer, Integer, float]:  # fmt: skip
    """The shortest kind of table for a histogram.

    Args:
        counts: of the steps.
        word_bits: width of a word.
        costs: of levels.
        weights: filled with the weights of a table with tokens.
        freqs: room for the frequencies of a table.

    Returns:
        Kind, level, number of weights, and bits of table and steps together.
    """
    total, symbols, raw = sum_up(counts)
    if total == 0:
        return GEOMETRIC, LEVELS - 1, 0, 10.0
    best, kind, level, count = 5.0 + total * word_bits, RAW, 0, 0
    if counts[WEIGHT] <= FARTHEST:
        nearest, bits = best_level(total, total + counts[WEIGHT], costs)
        if bits + total + 10 < best:
            best, kind, level = bits + total + 10, GEOMETRIC, nearest
    for other in (EVEN, SIGNED, FLIPS):
        size, raw_bits = symbols, raw
        if other == EVEN:
            size, raw_bits = (symbols + 1) >> 1, raw + total
        elif other == FLIPS:
            if not _is_wide(raw, total, word_bits):
                continue
            size, raw_bits = np.int64(SYMBOLS), total * (word_bits - 8)
        _set_weights(counts, size, other, weights)
        bits = raw_bits + _coded_bits(counts, size, other, weights, freqs, costs)
        if bits < best:
            best, kind, level, count = bits, other, 0, size
    if count:
        _set_weights(counts, count, kind, weights)
    return kind, level, count, best


@loop
def sum_up(counts: Histogram) -> tuple[Integer, Integer, Integer]:
    """Steps, symbols up to the last one that occurs, and raw bits below all tokens."""
    total, raw = np.int64(0), np.int64(0)
    symbols = np.int64(0)
    for symbol in range(SYMBOLS):
        if counts[symbol]:
            total += counts[symbol]
            raw += counts[symbol] * token_bits(symbol >> 1)
            symbols = np.int64(symbol + 1)
    return total, symbols, raw


@loop
def _is_wide(raw: Integer, total: Integer, word_bits: Integer) -> Integer:
    """Whether steps are so wide that the top bits that they flip may take fewer bits."""
    return raw > total * (word_bits - 12)


@loop
def _entropy(
    counts: Histogram, total: Integer, symbols: Integer, kind: Integer, costs: Costs
) -> float:
    """Bits of the symbols of a kind of table by their own frequencies."""
    bits: float = total * log2(total, costs)
    for symbol in range(symbols):
        count = _count_of(counts, symbol, kind)
        if count:
            bits -= count * log2(count, costs)
    return float(bits)


@loop
def _coded_bits(
    counts: Histogram, symbols: Integer, kind: Integer, weights: Weights,
    freqs: NDArray[np.int64], costs: Costs,
) -> float:  # fmt: skip
    """Bits of a table's weights, and of its symbols by the frequencies that these give."""
    table_freqs(weights, symbols, freqs)
    bits: float = 2.0 + _number_bits(symbols if kind == FLIPS else symbols - 1, 2)
    before = np.int64(HEAVIEST)
    for symbol in range(symbols):
        less = before - np.int64(weights[symbol])
        bits += _number_bits(2 * less - 1 if less > 0 else -2 * less, 1)
        before = np.int64(weights[symbol])
        count = _count_of(counts, symbol, kind)
        if count:
            bits += count * (SCALE_BITS - log2(freqs[symbol], costs))
    return float(bits)


@loop
def _number_bits(value: Integer, order: Integer) -> Integer:
    """Bits of a number in a header."""
    bits = 1
    while value >> order:
        value -= 1 << order
        order += 1
        bits += 1
    return bits + order


@loop
def _set_weights(counts: Histogram, symbols: Integer, kind: Integer, weights: Weights) -> None:
    most = np.int64(0)
    for symbol in range(symbols):
        most = max(most, _count_of(counts, symbol, kind))
    for symbol in range(symbols):
        count = _count_of(counts, symbol, kind)
        weights[symbol] = 0
        if count:
            weight = np.int64(np.rint(HEAVIEST + 2.0 * np.log2(count / most)))
            weights[symbol] = weight if weight > 1 else 1


@loop
def _count_of(counts: Histogram, symbol: Integer, kind: Integer) -> Integer:
    """Steps of a symbol of a kind of table."""
    if kind == EVEN:
        return counts[2 * symbol] + counts[2 * symbol + 1]
    return counts[symbol] if kind == SIGNED else counts[SYMBOLS + symbol]
