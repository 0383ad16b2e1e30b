"""Steps as symbols, and tables of their frequencies that take few bits to state.

SPEC.md, section 6.4.3. A step is a sign and a magnitude of at least 1. Magnitudes below 8 have
tokens of their own; above, there are two tokens per octave, with raw low bits. A table belongs to
one or more classes and is of one of four kinds; the encoder takes the shortest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.model.levels import (
    LevelTables,
    geometric_bits,
    pop_geometric,
    push_geometric,
)
from patchc.formats.codecs.conditional.model.rans import (
    SCALE,
    Pushes,
    Stack,
    Symbols,
    pop,
    pop_bits,
    push,
    push_bits,
)
from patchc.jit import Integer, inlined, loop
from patchc.simd import bit_length

GEOMETRIC, EVEN, SIGNED, FLIPS, RAW = 0, 1, 2, 3, 4
"""Kinds of table: magnitude − 1 by a level; tokens and a raw sign; tokens with their sign; the bits
that flip, the top 8 by a table and the others raw; these bits all raw, also kind 3 in a file."""

TOKENS = 128
SYMBOLS = 2 * TOKENS
HEAVIEST = 31
_EXACT = 8  # magnitudes below it have a token each
FARTHEST = 1 << 36
"""The sum of all magnitudes − 1 up to which steps may be coded by a level."""

Weights = NDArray[np.uint8]
Histogram = NDArray[np.int64]
"""Counts of steps by symbol (:func:`symbol_of`), then by the top 8 bits that they flip; at the end
the sum of their weights (:func:`weight_of`)."""

WEIGHT = 2 * SYMBOLS
HISTOGRAM = WEIGHT + 1
"""Where the sum of weights is in a histogram, and its size."""


@inlined
def magnitude(step: Integer) -> Integer:
    """|step| as an unsigned number, so that −2^63 has one."""
    sign = np.uint64(step >> 63)
    return (np.uint64(step) ^ sign) - sign


@inlined
def token_of(size: Integer) -> Integer:
    """The token of a magnitude; without a branch, as sizes cannot be predicted."""
    top = bit_length(size) - 1
    half = np.int64((size >> np.uint64(max(top - 1, 0))) & np.uint64(1))
    above = _EXACT - 1 + 2 * (top - 3) + half
    return np.int64(size) - 1 if size < np.uint64(_EXACT) else above


@inlined
def token_bits(token: Integer) -> Integer:
    """Raw bits below a token."""
    return max(token - (_EXACT - 5), 0) >> 1 if token >= _EXACT - 1 else 0


@inlined
def token_start(token: Integer) -> Integer:
    """The least magnitude of a token."""
    above = max(token - (_EXACT - 1), 0)
    half = np.uint64(2 + (above & 1)) << np.uint64(2 + (above >> 1))
    return np.uint64(token + 1) if token < _EXACT - 1 else half


@inlined
def symbol_of(step: Integer) -> Integer:
    """The symbol of a step: 2 · token + (1 where negative)."""
    return 2 * token_of(magnitude(step)) - (step >> 63)


@inlined
def top_flips(flips: Integer, word_bits: Integer) -> Integer:
    """The top 8 of the bits that a change flips."""
    return np.int64(np.uint64(flips) >> np.uint64(word_bits - 8))


@inlined
def weight_of(step: Integer) -> Integer:
    """Magnitude − 1 of a step, capped so that sums stay exact."""
    return np.int64(min(magnitude(step) - np.uint64(1), np.uint64(2 * FARTHEST)))


@loop
def table_freqs(weights: Weights, count: Integer, freqs: NDArray[np.int64]) -> None:
    """Set frequencies that add up to ``SCALE`` from weights in half octaves; 0 means absent.

    At least one of the ``count`` weights is not 0. The heaviest gets what rounding leaves.
    """
    total = np.int64(0)
    present = 0
    heaviest = 0
    for symbol in range(count):
        total += _share(np.int64(weights[symbol]))
        present += weights[symbol] > 0
        if weights[symbol] > weights[heaviest]:
            heaviest = symbol
    left = np.int64(SCALE)
    for symbol in range(count):
        freqs[symbol] = 0
        if weights[symbol] > 0:
            freqs[symbol] = 1 + _share(np.int64(weights[symbol])) * (SCALE - present) // total
            left -= freqs[symbol]
    freqs[heaviest] += left


@loop
def _share(weight: Integer) -> Integer:
    if weight == 0:
        return np.int64(0)
    return np.int64(181 if weight & 1 else 128) << (weight >> 1)


@inlined
def push_step(
    x: Integer, at: Integer, out: Stack, step: Integer, symbol: Integer, table: Integer,
    kind: Integer, level: Integer, pushes: Pushes, levels: LevelTables,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push a step, whose symbol is ``symbol``, by a table that is not of flips."""
    size = magnitude(step)
    negative = symbol & 1
    if kind == GEOMETRIC:
        x, at = push_bits(x, at, out, negative, 1)
        return push_geometric(x, at, out, np.int64(size) - 1, level, levels)
    token = symbol >> 1
    x, at = _push_long(x, at, out, size - token_start(token), token_bits(token))
    if kind == EVEN:
        x, at = push_bits(x, at, out, negative, 1)
        return push(x, at, out, pushes, table, token)
    return push(x, at, out, pushes, table, symbol)


@inlined
def pop_step(
    x: Integer, at: Integer, stream: Stack, table: Integer, kind: Integer, level: Integer,
    slots: Symbols, word_bits: Integer, levels: LevelTables,
) -> tuple[Integer, Integer, Integer]:  # fmt: skip
    """Pop a step; 0 where it does not fit ``word_bits`` bits."""
    if kind == GEOMETRIC:
        limit = (np.int64(1) << min(word_bits - 1, 40)) - 1
        less, x, at = pop_geometric(x, at, stream, level, levels, limit)
        size = np.uint64(less + 1)
        sign, x, at = pop_bits(x, at, stream, 1)
        negative = np.int64(sign)
    else:
        token, x, at = pop(x, at, stream, slots, table)
        if kind == SIGNED:
            negative = token & 1
            token >>= 1
        else:
            sign, x, at = pop_bits(x, at, stream, 1)
            negative = np.int64(sign)
        size = np.uint64(token + 1)
        if size >= np.uint64(_EXACT):
            low, x, at = _pop_long(x, at, stream, token_bits(token))
            size = token_start(token) + low
    if size - np.uint64(1) + np.uint64(1 - negative) >> np.uint64(word_bits - 1):
        return np.int64(0), x, at
    return (-np.int64(size - np.uint64(1)) - 1 if negative else np.int64(size)), x, at


@loop
def push_flips(
    x: Integer, at: Integer, out: Stack, flips: Integer, table: Integer, kind: Integer,
    pushes: Pushes, word_bits: Integer,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push the bits that differ between base and result."""
    if kind == RAW:
        return _push_long(x, at, out, flips, word_bits)
    low = flips & ((np.uint64(1) << np.uint64(word_bits - 8)) - np.uint64(1))
    x, at = _push_long(x, at, out, low, word_bits - 8)
    return push(x, at, out, pushes, table, flips >> np.uint64(word_bits - 8))


@inlined
def step_bits(
    step: Integer, symbol: Integer, flips: Integer, table: Integer, kind: Integer, level: Integer,
    word_bits: Integer, table_bits: NDArray[np.float64], levels: LevelTables,
) -> float:  # fmt: skip
    """Ideal length of a step; ``table_bits`` are those of the symbols of all tables."""
    if kind == GEOMETRIC:
        return 1.0 + geometric_bits(np.int64(magnitude(step)) - 1, level, levels)
    if kind == RAW:
        return float(word_bits)
    if kind == FLIPS:
        return float(word_bits - 8 + table_bits[table, top_flips(flips, word_bits)])
    raw = token_bits(symbol >> 1)
    if kind == EVEN:
        return float(raw + 1 + table_bits[table, symbol >> 1])
    return float(raw + table_bits[table, symbol])


@inlined
def raw_run(
    symbol: Integer, kind: Integer, level: Integer, word_bits: Integer, levels: LevelTables
) -> Integer:
    """The most raw bits of a step that are pushed at once."""
    if kind == GEOMETRIC:
        return levels.low_bits[level]
    if kind >= FLIPS:
        return min(np.int64(word_bits) - (8 if kind == FLIPS else 0), np.int64(32))
    return min(np.int64(token_bits(symbol >> 1)), np.int64(32))


@loop
def pop_flips(
    x: Integer, at: Integer, stream: Stack, table: Integer, kind: Integer, slots: Symbols,
    word_bits: Integer,
) -> tuple[Integer, Integer, Integer]:  # fmt: skip
    """Pop the bits that differ between base and result."""
    if kind == RAW:
        return _pop_long(x, at, stream, word_bits)
    top, x, at = pop(x, at, stream, slots, table)
    low, x, at = _pop_long(x, at, stream, word_bits - 8)
    return np.uint64(top) << np.uint64(word_bits - 8) | low, x, at


@inlined
def _push_long(
    x: Integer, at: Integer, out: Stack, value: Integer, count: Integer
) -> tuple[Integer, Integer]:
    if count > 32:
        x, at = push_bits(x, at, out, value >> np.uint64(32), count - 32)
        value, count = value & np.uint64(0xFFFFFFFF), 32
    return push_bits(x, at, out, value, count)


@loop
def _pop_long(
    x: Integer, at: Integer, stream: Stack, count: Integer
) -> tuple[Integer, Integer, Integer]:
    low, x, at = pop_bits(x, at, stream, min(count, 32))
    if count > 32:
        high, x, at = pop_bits(x, at, stream, count - 32)
        low |= high << np.uint64(32)
    return low, x, at
