"""Steps as symbols, and tables of their frequencies that take few bits to state.

SPEC.md, section 6.4.3. A step is a sign and a magnitude of at least 1. Magnitudes below 8 have
tokens of their own; above, two tokens an octave, with raw low bits. A table belongs to one or more
classes and is of one of four kinds; the encoder takes the shortest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.model.levels import (
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
from patchc.jit import Integer, always_inline, inlined, kernel_helper
from patchc.simd import bit_length

GEOMETRIC, EVEN, SIGNED, FLIPS, RAW = 0, 1, 2, 3, 4
"""Kinds of table: magnitude − 1 by a level; tokens and a raw sign; tokens with their sign; which
bits flip, the top 8 by a table and the others raw; the same all raw, which is kind 3 in a file."""

TOKENS = 128
SYMBOLS = 2 * TOKENS
HEAVIEST = 31
_EXACT = 8  # magnitudes below it have a token each
FARTHEST = 1 << 36
"""The sum of all magnitudes − 1 up to which steps may be coded by a level."""

Weights = NDArray[np.uint8]
Histogram = NDArray[np.int64]
"""Steps by symbol (:func:`symbol_of`), and then by the top 8 bits that they flip."""


@always_inline
def magnitude(step: Integer) -> Integer:
    """|step|, of 64 bits, so that −2^63 has one."""
    sign = np.uint64(step >> 63)
    return (np.uint64(step) ^ sign) - sign


@always_inline
def token_of(size: Integer) -> Integer:
    """The token of a magnitude; chosen without a branch, which a random size would mislead."""
    top = bit_length(size) - 1
    half = np.int64((size >> np.uint64(max(top - 1, 0))) & np.uint64(1))
    above = _EXACT - 1 + 2 * (top - 3) + half
    return np.int64(size) - 1 if size < np.uint64(_EXACT) else above


@always_inline
def token_bits(token: Integer) -> Integer:
    """Raw bits below a token."""
    return max(token - (_EXACT - 5), 0) >> 1 if token >= _EXACT - 1 else 0


@always_inline
def token_start(token: Integer) -> Integer:
    """The least magnitude of a token."""
    above = max(token - (_EXACT - 1), 0)
    half = np.uint64(2 + (above & 1)) << np.uint64(2 + (above >> 1))
    return np.uint64(token + 1) if token < _EXACT - 1 else half


@always_inline
def symbol_of(step: Integer) -> Integer:
    """The symbol of a step: 2 · token + (1 where negative)."""
    return 2 * token_of(magnitude(step)) - (step >> 63)


@always_inline
def top_flips(flips: Integer, word_bits: Integer) -> Integer:
    """The top 8 of the bits that a change flips."""
    return np.int64(np.uint64(flips) >> np.uint64(word_bits - 8))


@always_inline
def weight_of(step: Integer) -> Integer:
    """Magnitude − 1 of a step, cut to what leaves a sum of them exact and above ``FARTHEST``."""
    return np.int64(min(magnitude(step) - np.uint64(1), np.uint64(2 * FARTHEST)))


@inlined
def table_freqs(weights: Weights, count: Integer, freqs: NDArray[np.int64]) -> None:
    """Frequencies, adding up to ``SCALE``, from weights in half octaves; weight 0 means absent.

    At least one of the ``count`` weights is not 0. What rounding leaves goes to the heaviest.
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


@inlined
def _share(weight: Integer) -> Integer:
    if weight == 0:
        return np.int64(0)
    return np.int64(181 if weight & 1 else 128) << (weight >> 1)


@always_inline
def push_step(
    x: Integer, at: Integer, out: Stack, step: Integer, symbol: Integer, table: Integer,
    kind: Integer, level: Integer, pushes: Pushes, low_bits: NDArray[np.int64],
    tokens: NDArray[np.int64], level_pushes: Pushes,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push a step, whose symbol is ``symbol``, by a table that is not of flips."""
    size = magnitude(step)
    negative = symbol & 1
    if kind == GEOMETRIC:
        x, at = push_bits(x, at, out, negative, 1)
        return push_geometric(x, at, out, np.int64(size) - 1, level, low_bits, tokens, level_pushes)
    token = symbol >> 1
    low, bits = size - token_start(token), token_bits(token)
    if bits > 32:
        x, at = push_bits(x, at, out, low >> np.uint64(32), bits - 32)
        low, bits = low & np.uint64(0xFFFFFFFF), 32
    x, at = push_bits(x, at, out, low, bits)
    if kind == EVEN:
        x, at = push_bits(x, at, out, negative, 1)
        return push(x, at, out, pushes, table, token)
    return push(x, at, out, pushes, table, symbol)


@always_inline
def pop_step(
    x: Integer, at: Integer, stream: Stack, table: Integer, kind: Integer, level: Integer,
    slots: Symbols, word_bits: Integer, low_bits: NDArray[np.int64], tokens: NDArray[np.int64],
    level_slots: NDArray[np.uint32],
) -> tuple[Integer, Integer, Integer]:  # fmt: skip
    """Pop a step; 0 where it does not fit ``word_bits`` bits."""
    if kind == SIGNED:
        symbol, x, at = pop(x, at, stream, slots, table)
        negative = symbol & 1
        size = np.uint64((symbol >> 1) + 1)
        if size >= np.uint64(_EXACT):
            low, x, at = _pop_long(x, at, stream, token_bits(symbol >> 1))
            size = token_start(symbol >> 1) + low
    else:
        if kind == GEOMETRIC:
            less, x, at = pop_geometric(
                x, at, stream, level, low_bits, tokens, level_slots,
                (np.int64(1) << min(word_bits - 1, 40)) - 1,
            )  # fmt: skip
            size = np.uint64(less + 1)
            sign, x, at = pop_bits(x, at, stream, 1)
        else:
            token, x, at = pop(x, at, stream, slots, table)
            sign, x, at = pop_bits(x, at, stream, 1)
            size = np.uint64(token + 1)
            if size >= np.uint64(_EXACT):
                low, x, at = _pop_long(x, at, stream, token_bits(token))
                size = token_start(token) + low
        negative = np.int64(sign)
    if size - np.uint64(1) + np.uint64(1 - negative) >> np.uint64(word_bits - 1):
        return np.int64(0), x, at
    return (-np.int64(size - np.uint64(1)) - 1 if negative else np.int64(size)), x, at


@kernel_helper
def push_flips(
    x: Integer, at: Integer, out: Stack, flips: Integer, table: Integer, kind: Integer,
    pushes: Pushes, word_bits: Integer,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push the bits that differ between base and result."""
    if kind == RAW:
        return _push_long(x, at, out, flips, word_bits)
    x, at = _push_long(x, at, out, flips, word_bits - 8)
    return push(x, at, out, pushes, table, flips >> np.uint64(word_bits - 8))


@always_inline
def step_bits(
    step: Integer, symbol: Integer, flips: Integer, table: Integer, kind: Integer, level: Integer,
    word_bits: Integer, table_bits: NDArray[np.float64], low_bits: NDArray[np.int64],
    tokens: NDArray[np.int64], level_bits: NDArray[np.float64],
) -> float:  # fmt: skip
    """Ideal length of a step; ``table_bits`` and ``level_bits`` are those of all symbols."""
    if kind == GEOMETRIC:
        value = np.int64(magnitude(step)) - 1
        return 1.0 + geometric_bits(value, level, low_bits, tokens, level_bits)
    if kind == RAW:
        return float(word_bits)
    if kind == FLIPS:
        return float(word_bits - 8 + table_bits[table, top_flips(flips, word_bits)])
    raw = token_bits(symbol >> 1)
    if kind == EVEN:
        return float(raw + 1 + table_bits[table, symbol >> 1])
    return float(raw + table_bits[table, symbol])


@always_inline
def raw_run(
    symbol: Integer, kind: Integer, level: Integer, word_bits: Integer,
    low_bits: NDArray[np.int64],
) -> Integer:  # fmt: skip
    """The most raw bits of a step that are pushed at once."""
    if kind == GEOMETRIC:
        return low_bits[level]
    if kind >= FLIPS:
        return min(np.int64(word_bits) - (8 if kind == FLIPS else 0), np.int64(32))
    return min(np.int64(token_bits(symbol >> 1)), np.int64(32))


@kernel_helper
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


@kernel_helper
def _push_long(
    x: Integer, at: Integer, out: Stack, value: Integer, count: Integer
) -> tuple[Integer, Integer]:
    if count > 32:
        high = (value >> np.uint64(32)) & ((np.uint64(1) << np.uint64(count - 32)) - np.uint64(1))
        x, at = push_bits(x, at, out, high, count - 32)
        count = 32
    return push_bits(x, at, out, value & ((np.uint64(1) << np.uint64(count)) - np.uint64(1)), count)


@kernel_helper
def _pop_long(x: Integer, at: Integer, stream: Stack, count: Integer) -> tuple[
    Integer, Integer, Integer
]:  # fmt: skip
    low, x, at = pop_bits(x, at, stream, min(count, 32))
    if count > 32:
        high, x, at = pop_bits(x, at, stream, count - 32)
        low |= high << np.uint64(32)
    return low, x, at
