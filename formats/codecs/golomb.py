"""Golomb-Rice codes in a stream of bits, and varints (SPEC.md, section 6.1).

A code of a value v with parameter k is v >> k in unary, then the lower k bits; a value that would
need a long unary part is escaped and written raw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, allocating_loop, inlined, loop
from patchc.simd import bit_length

TILE_WORDS = 1 << 16
GAP_BITS = 16
ESCAPE = 24
LONGEST_TILE_HEADER = 10  # bytes

TRUNCATED = -1
OUT_OF_RANGE = -2
LEFTOVER = -3
FAULTS = {
    TRUNCATED: "it ends early",
    OUT_OF_RANGE: "a position, step or parameter is out of range",
    LEFTOVER: "it holds bytes or bits that belong to nothing",
}

_ONE = np.uint64(1)

Bytes = NDArray[np.uint8]


@allocating_loop
def best_parameter(values: NDArray[np.uint64], raw_bits: Integer) -> Integer:
    """The parameter with the shortest code, to good approximation, from a count by bit length."""
    lengths = np.zeros(65, np.int64)
    for i in range(values.size):
        lengths[bit_length(values[i])] += 1
    best, best_cost = 0, np.int64(1) << 62
    for parameter in range(raw_bits):
        cost = np.int64(0)
        for length in range(65):
            excess = length - 1 - parameter
            quotient = 0 if excess < 0 else (3 << min(excess, 20)) >> 1
            one = quotient + 1 + parameter if quotient < ESCAPE else ESCAPE + raw_bits
            cost += lengths[length] * one
        if cost < best_cost:
            best, best_cost = parameter, cost
    return best


@inlined
def leading_bits(value: Integer) -> Integer:
    """2 · bit length + the bit below the highest; :func:`least_code_bits` counts values by it."""
    length = bit_length(value)
    return 2 * length + np.int64((value << np.uint64(1) >> np.uint64(max(length - 1, 0))) & _ONE)


@loop
def least_code_bits(counts: NDArray[np.int64], raw_bits: Integer) -> Integer:
    """Bits that the codes of values, counted by their leading bits, have at least."""
    best = np.int64(1) << 62
    for parameter in range(raw_bits):
        total = np.int64(0)
        for leading in range(counts.size):
            if counts[leading]:
                length = leading >> 1
                least = np.uint64(2 | (leading & 1)) << np.uint64(max(length - 1, 0)) >> _ONE
                least = least if length else np.uint64(0)
                total += counts[leading] * code_length(least, parameter, raw_bits)
        best = min(best, total)
    return best


@loop
def code_length(value: Integer, parameter: Integer, raw_bits: Integer) -> Integer:
    """Bits of the code of ``value``."""
    quotient = value >> np.uint64(parameter)
    if quotient >= ESCAPE:
        return np.int64(ESCAPE + raw_bits)
    return np.int64(quotient) + 1 + parameter


@loop
def put_code(
    value: Integer, parameter: Integer, raw_bits: Integer, bit: Integer, out: Bytes
) -> Integer:
    """Write the code of ``value`` at ``bit``, over zero bits; return the bit after it."""
    quotient = value >> np.uint64(parameter)
    if quotient >= ESCAPE:
        bit = put_bits(np.uint64((1 << ESCAPE) - 1), ESCAPE, bit, out)
        return put_bits(value, raw_bits, bit, out)
    ones = (np.uint64(1) << quotient) - np.uint64(1)
    bit = put_bits(ones, np.int64(quotient) + 1, bit, out)
    return put_bits(
        value & ((np.uint64(1) << np.uint64(parameter)) - np.uint64(1)), parameter, bit, out
    )


@loop
def put_bits(value: Integer, count: Integer, bit: Integer, out: Bytes) -> Integer:
    """Write the lower ``count`` bits of ``value`` at ``bit``; return the bit after them."""
    while count > 0:
        room = 8 - (bit & 7)
        out[bit >> 3] |= np.uint8((value << np.uint64(bit & 7)) & np.uint64(0xFF))
        taken = min(room, count)
        value >>= np.uint64(taken)
        bit += taken
        count -= taken
    return bit


@loop
def put_varint(value: Integer, at: Integer, out: Bytes) -> Integer:
    """Write a varint at byte ``at``; return the byte after it."""
    while value >= np.uint64(0x80):
        out[at] = np.uint8((value & np.uint64(0x7F)) | np.uint64(0x80))
        value >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@loop
def get_code(
    stream: Bytes, bit: Integer, parameter: Integer, raw_bits: Integer
) -> tuple[Integer, Integer]:
    """The code at ``bit`` and the bit after it, or 0 and a fault."""
    quotient = 0
    while True:
        if bit >> 3 >= stream.size:
            return np.uint64(0), np.int64(TRUNCATED)
        one = (stream[bit >> 3] >> (bit & 7)) & 1
        bit += 1
        if not one:
            break
        quotient += 1
        if quotient == ESCAPE:
            return get_bits(stream, bit, raw_bits)
    low, bit = get_bits(stream, bit, parameter)
    high = np.uint64(quotient) << np.uint64(parameter)
    if high >> np.uint64(parameter) != quotient:
        return np.uint64(0), np.int64(OUT_OF_RANGE)
    return high | low, bit


@loop
def get_bits(stream: Bytes, bit: Integer, count: Integer) -> tuple[Integer, Integer]:
    """``count`` bits at ``bit`` and the bit after them, or 0 and a fault."""
    if bit + count > np.int64(stream.size) << 3:
        return np.uint64(0), np.int64(TRUNCATED)
    value = np.uint64(0)
    got = 0
    while got < count:
        taken = min(8 - (bit & 7), count - got)
        part = (np.uint64(stream[bit >> 3]) >> np.uint64(bit & 7)) & np.uint64((1 << taken) - 1)
        value |= part << np.uint64(got)
        got += taken
        bit += taken
    return value, bit


@loop
def get_varint(body: Bytes, at: Integer) -> tuple[Integer, Integer]:
    """The varint at byte ``at`` and the byte after it; −1 for the latter where it ends early."""
    value = np.int64(0)
    for shift in range(0, 35, 7):
        if at >= body.size:
            return np.int64(0), np.int64(-1)
        byte = np.int64(body[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, np.int64(at)
    return np.int64(0), np.int64(-1)
