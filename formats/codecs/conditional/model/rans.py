"""A rANS coder: symbols and raw bits are pushed onto one number, and popped from it.

SPEC.md, section 6.4. The state is below 2^64 and moves 32 bits at a time to and from a list of
words. Encoding runs backwards: what is pushed last is popped first. The state starts at 1 and must
come back to it, so a short body has no fixed cost.

Duda, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with
compression rate of arithmetic coding" (2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError
from patchc.jit import Integer, inlined, loop
from patchc.simd import bit_length, multiply_high

SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
"""The frequencies of a table add up to this."""

_LOW = np.uint64(1 << 32)
_WORD = np.uint64(32)
_HALF = np.uint64(0xFFFF)
_START, _ROUND_UP, _SHIFT = np.uint64(16), np.uint64(32), np.uint64(48)

Symbols = NDArray[np.uint32]
"""Tables for decoding: for each of the ``SCALE`` slots, symbol << 24 | offset << 12 | freq − 1."""

Pushes = NDArray[np.uint64]
"""Tables for encoding: for each symbol a reciprocal, and freq | start << 16 | round_up << 32 |
shift << 48, so that ⌊(x + round_up) · reciprocal / 2^(64 + shift)⌋ = ⌊x / freq⌋ for any state x
below 2^64 − 1. States that are divided are below freq · 2^52."""

Stack = NDArray[np.uint32]
"""Words of a stream, in the order of pushing; or of reading, with one more word at the end that is
not part of the stream."""


@inlined
def push(
    x: Integer, at: Integer, out: Stack, tables: Pushes, table: Integer, symbol: Integer
) -> tuple[Integer, Integer]:
    """Push a symbol by a row of ``tables``; return state and end.

    A branch could not be predicted, so a word is always written to ``out`` and only counted if it
    had to move: ``out`` needs a word to spare.
    """
    reciprocal = tables[np.uint64(table), np.uint64(symbol), 0]
    entry = tables[np.uint64(table), np.uint64(symbol), 1]
    freq = entry & _HALF
    if freq == np.uint64(SCALE):
        return x, at
    full = x >> np.uint64(64 - SCALE_BITS) >= freq
    out[at] = np.uint32(x & np.uint64(0xFFFFFFFF))
    at += np.int64(full)
    x = x >> _WORD if full else x
    start, round_up, shift = entry >> _START & _HALF, entry >> _ROUND_UP & _HALF, entry >> _SHIFT
    quotient = multiply_high(x + round_up, reciprocal) >> shift
    return x + start + quotient * (np.uint64(SCALE) - freq), at


@inlined
def push_bits(x: Integer, at: Integer, out: Stack, value: Integer, count: Integer) -> tuple[
    Integer, Integer
]:  # fmt: skip
    """Push ``value`` as ``count`` raw bits, at most 32; return state and end."""
    bits = np.uint64(count)
    if x >> _WORD >> (_WORD - bits):
        out[at] = np.uint32(x & np.uint64(0xFFFFFFFF))
        at += 1
        x >>= _WORD
    return (x << bits) | np.uint64(value), at


@inlined
def pop(
    x: Integer, at: Integer, stream: Stack, tables: Symbols, table: Integer
) -> tuple[Integer, Integer, Integer]:
    """Pop a symbol by a row of ``tables``; return it, the state and the next word."""
    entry = np.uint64(tables[np.uint64(table), x & np.uint64(SCALE - 1)])
    freq = (entry & np.uint64(SCALE - 1)) + np.uint64(1)
    offset = (entry >> np.uint64(SCALE_BITS)) & np.uint64(SCALE - 1)
    x = freq * (x >> np.uint64(SCALE_BITS)) + offset
    if x < _LOW and at < stream.size - 1:
        x = (x << _WORD) | np.uint64(stream[np.uint64(at)])
        at += 1
    return np.int64(entry >> np.uint64(24)), x, at


@inlined
def pop_bits(x: Integer, at: Integer, stream: Stack, count: Integer) -> tuple[
    Integer, Integer, Integer
]:  # fmt: skip
    """Pop ``count`` raw bits, at most 32; return them, the state and the next word."""
    bits = np.uint64(count)
    value = x & ((np.uint64(1) << bits) - np.uint64(1))
    x >>= bits
    if x < _LOW and at < stream.size - 1:
        x = (x << _WORD) | np.uint64(stream[np.uint64(at)])
        at += 1
    return value, x, at


def symbols_of(starts: NDArray[np.int64]) -> Symbols:
    """The tables for decoding, one per row of ``starts``; see :func:`pushes_of`."""
    tables = np.zeros((starts.shape[0], SCALE), np.uint32)
    _fill_symbols(starts, tables)
    return tables


@loop
def _fill_symbols(starts: NDArray[np.int64], tables: Symbols) -> None:
    for table in range(starts.shape[0]):
        for symbol in range(starts.shape[1] - 1):
            first, end = starts[table, symbol], starts[table, symbol + 1]
            for slot in range(first, end):
                tables[table, slot] = symbol << 24 | (slot - first) << 12 | (end - first - 1)


def pushes_of(starts: NDArray[np.int64]) -> Pushes:
    """The tables for encoding, one per row of ``starts``.

    A row has the first slots of the symbols, and where the last ends. What follows may be 0.

    Let 2^s be the greatest power of two up to freq, and 2^(64 + s) = m · freq + r. In units of
    2^(64 + s), (x + 1) · m is below (x + 1) / freq, by 1 / freq at most if r ≤ 2^s; otherwise
    freq − r < 2^s, and x · (m + 1) is above x / freq, by less than 1 / freq. Either has the whole
    part of x / freq. For a power of two, m has 65 bits, and 2^64 − 1 serves as well.
    Robison, "N-bit unsigned division via N-bit multiply-add" (ARITH 2005).
    """
    tables = np.zeros((starts.shape[0], starts.shape[1] - 1, 2), np.uint64)
    _fill_pushes(starts, tables)
    return tables


@loop
def _fill_pushes(starts: NDArray[np.int64], tables: Pushes) -> None:
    for table in range(tables.shape[0]):
        for symbol in range(tables.shape[1]):
            start = np.uint64(starts[table, symbol])
            freq = np.uint64(max(starts[table, symbol + 1] - starts[table, symbol], 0))
            if freq == 0:
                continue
            shift = np.uint64(bit_length(freq) - 1)
            power = np.uint64(1) << shift
            high, rest = (power << _WORD) // freq, (power << _WORD) % freq
            low, rest = (rest << _WORD) // freq, (rest << _WORD) % freq
            round_up = np.uint64(rest <= power)
            reciprocal = (high << _WORD) + low + (np.uint64(1) - round_up)
            if freq == power:
                reciprocal = ~np.uint64(0)
            tables[table, symbol, 0] = reciprocal
            tables[table, symbol, 1] = (
                freq | start << _START | round_up << _ROUND_UP | shift << _SHIFT
            )


def symbol_lengths(tables: Pushes) -> NDArray[np.float64]:
    """Ideal length of each symbol of each table, 0 where it has none."""
    freqs = tables[..., 1] & _HALF
    bits: NDArray[np.float64] = SCALE_BITS - np.log2(np.maximum(freqs, 1))
    return np.where(freqs > 0, bits, 0.0)


def pack(x: int, words: Stack) -> bytes:
    """The body of a finished encoding: the state, least byte first, then the words to read.

    The state takes as few bytes as it needs; the last word pushed is the first to be read.
    """
    return x.to_bytes((x.bit_length() + 7) // 8, "little") + words[::-1].astype("<u4").tobytes()


def unpack(body: bytes) -> tuple[np.uint64, Stack]:
    """Invert :func:`pack`: the state takes 5 to 8 bytes, or is all there is up to 8 bytes.

    Raises:
        PatchFormatError: the state has a leading zero byte, or there is none.
    """
    size = len(body)
    state = size if size <= 8 else 5 + (size - 5) % 4
    if not size or not body[state - 1]:
        raise PatchFormatError("its body is corrupt: it starts with no state")
    words = np.frombuffer(body + bytes(4), "<u4", offset=state)
    return np.uint64(int.from_bytes(body[:state], "little")), words
