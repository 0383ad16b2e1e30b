"""The encoder's choice of a table of steps: the kind of table that takes the fewest bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.model.levels import LEVELS, Costs, best_level, log2
from patchc.formats.codecs.conditional.model.rans import SCALE_BITS
from patchc.formats.codecs.conditional.model.step_tokens import (
    EVEN,
    FARTHEST,
    FLIPS,
    GEOMETRIC,
    HEAVIEST,
    RAW,
    SIGNED,
    SYMBOLS,
    Histogram,
    Weights,
    table_freqs,
    token_bits,
)
from patchc.jit import Integer, inlined


@inlined
def estimated_bits(
    counts: Histogram, total: Integer, symbols: Integer, raw: Integer, sizes: Integer,
    word_bits: Integer, costs: Costs,
) -> float:  # fmt: skip
    """About the bits of the shortest kind of table and of its steps; see :func:`best_table`.

    ``total``, ``symbols`` and ``raw`` are what :func:`sum_up` finds.
    """
    if total == 0:
        return 10.0
    tokens = (symbols + 1) >> 1
    signed = raw + 5 + 3.5 * symbols + _entropy(counts, total, symbols, SIGNED, costs)
    even = raw + 5 + 3.5 * tokens + total + _entropy(counts, total, tokens, EVEN, costs)
    best: float = min(signed, even, 5.0 + total * word_bits)
    if sizes <= FARTHEST:
        best = min(best, best_level(total, total + sizes, costs)[1] + total + 10)
    if _is_wide(raw, total, word_bits):
        flips = 5 + 3.5 * SYMBOLS + total * (word_bits - 8)
        best = min(best, flips + _entropy(counts, total, SYMBOLS, FLIPS, costs))
    return float(best)


@inlined
def best_table(
    counts: Histogram, sizes: Integer, word_bits: Integer, costs: Costs, weights: Weights,
) -> tuple[Integer, Integer, Integer, float]:  # fmt: skip
    """The shortest kind of table for a histogram.

    Args:
        counts: steps by symbol.
        sizes: sum over the steps (:func:`weight_of`).
        word_bits: width of a word.
        costs: of levels.
        weights: filled with the weights of a table with tokens.

    Returns:
        Kind, level, number of weights, and bits of table and steps together.
    """
    total, symbols, raw = sum_up(counts)
    if total == 0:
        return GEOMETRIC, LEVELS - 1, 0, 10.0
    best, kind, level, count = 5.0 + total * word_bits, RAW, 0, 0
    if sizes <= FARTHEST:
        nearest, bits = best_level(total, total + sizes, costs)
        if bits + total + 10 < best:
            best, kind, level = bits + total + 10, GEOMETRIC, nearest
    freqs = np.zeros(SYMBOLS, np.int64)
    for other in (EVEN, SIGNED, FLIPS):
        size = symbols
        beside = raw
        if other == EVEN:
            size = (symbols + 1) >> 1
            beside = raw + total
        elif other == FLIPS:
            if not _is_wide(raw, total, word_bits):
                continue
            size = SYMBOLS
            beside = total * (word_bits - 8)
        _set_weights(counts, size, other, weights)
        bits = beside + _coded_bits(counts, size, other, weights, freqs, costs)
        if bits < best:
            best, kind, level, count = bits, other, 0, size
    if count:
        _set_weights(counts, count, kind, weights)
    return kind, level, count, best


@inlined
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


@inlined
def _is_wide(raw: Integer, total: Integer, word_bits: Integer) -> Integer:
    """Whether steps are so wide that the top bits which they flip may tell more."""
    return raw > total * (word_bits - 12)


@inlined
def _entropy(
    counts: Histogram, total: Integer, symbols: Integer, kind: Integer, costs: Costs
) -> float:
    """Bits of the symbols of a kind of table by their own frequencies."""
    bits: float = total * log2(total, costs)
    for symbol in range(symbols):
        held = _held(counts, symbol, kind)
        if held:
            bits -= held * log2(held, costs)
    return float(bits)


@inlined
def _coded_bits(
    counts: Histogram, symbols: Integer, kind: Integer, weights: Weights,
    freqs: NDArray[np.int64], costs: Costs,
) -> float:  # fmt: skip
    """Bits of a table's weights, and of its symbols by the frequencies that follow from them."""
    table_freqs(weights, symbols, freqs)
    bits: float = 2.0 + _number_bits(symbols if kind == FLIPS else symbols - 1, 2)
    before = np.int64(HEAVIEST)
    for symbol in range(symbols):
        less = before - np.int64(weights[symbol])
        bits += _number_bits(2 * less - 1 if less > 0 else -2 * less, 1)
        before = np.int64(weights[symbol])
        held = _held(counts, symbol, kind)
        if held:
            bits += held * (SCALE_BITS - log2(freqs[symbol], costs))
    return float(bits)


@inlined
def _number_bits(value: Integer, order: Integer) -> Integer:
    """Bits of a number in a header."""
    bits = 1
    while value >> order:
        value -= 1 << order
        order += 1
        bits += 1
    return bits + order


@inlined
def _set_weights(counts: Histogram, symbols: Integer, kind: Integer, weights: Weights) -> None:
    """Weights of a table with this many symbols."""
    most = np.int64(0)
    for symbol in range(symbols):
        most = max(most, _held(counts, symbol, kind))
    for symbol in range(symbols):
        held = _held(counts, symbol, kind)
        weights[symbol] = 0
        if held:
            weight = np.int64(np.rint(HEAVIEST + 2.0 * np.log2(held / most)))
            weights[symbol] = weight if weight > 1 else 1


@inlined
def _held(counts: Histogram, symbol: Integer, kind: Integer) -> Integer:
    """Steps of a symbol of a kind of table."""
    if kind == EVEN:
        return counts[2 * symbol] + counts[2 * symbol + 1]
    return counts[symbol] if kind == SIGNED else counts[SYMBOLS + symbol]
