"""Positions, with steps or alone, as Golomb-Rice codes of gaps and values, tile by tile.

SPEC.md, sections 6.1 and 6.2. A tile is 65536 words. Its changes are one bit stream in which each
entry is the Rice code of the gap to the entry before it, then the Rice code of its step; the Rice
parameters are chosen per tile. Values that would need a long unary part are escaped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError
from patchc.formats.codecs.golomb import (
    ESCAPE,
    FAULTS,
    GAP_BITS,
    LEFTOVER,
    LONGEST_TILE_HEADER,
    OUT_OF_RANGE,
    TILE_WORDS,
    TRUNCATED,
    Bytes,
    best_parameter,
    code_length,
    get_code,
    get_varint,
    put_code,
    put_varint,
)
from patchc.formats.codecs.protocol import Positions, Steps
from patchc.jit import Integer, allocating_loop, inlined, loop

Bits = NDArray[np.int64]

_NO_STEPS = np.empty(0, np.int64)


def encode_changes(
    positions: Positions, steps: Steps, words: int, word_bits: int
) -> tuple[bytes, Bits]:
    """Code positions below ``words`` and their steps.

    Args:
        positions: strictly increasing.
        steps: one per position, not 0, within ``word_bits`` bits; or empty, with ``word_bits`` 0,
            to code positions alone.
        words: words in the chunk.
        word_bits: 8, 16, 32 or 64.

    Returns:
        The code, and the bits of gaps and of steps in it.
    """
    longest = ESCAPE + GAP_BITS + (ESCAPE + word_bits if word_bits else 0)
    tiles = -(-words // TILE_WORDS)
    room = tiles * (LONGEST_TILE_HEADER + 1) + (len(positions) * longest >> 3)
    out, bits = np.empty(room, np.uint8), np.zeros(2, np.int64)
    end = _encode(positions, steps, words, word_bits, out, bits)
    return out[:end].tobytes(), bits


def encode_positions(positions: Positions, words: int) -> bytes:
    """Code positions: strictly increasing and below ``words``."""
    return encode_changes(positions, _NO_STEPS, words, 0)[0]


def decode_changes(
    body: bytes, at: int, words: int, word_bits: int, positions: Positions, steps: Steps
) -> tuple[int, int]:
    """Invert :func:`encode_changes` from byte ``at`` of a hostile body on.

    Args:
        body: a chunk's body.
        at: where the code starts.
        words, word_bits: as for the encoder.
        positions, steps: filled; they have room for as many as there may be.

    Returns:
        How many there are, and the byte after their code.

    Raises:
        PatchFormatError: there is no such code at ``at``.
    """
    count, end = _decode(np.frombuffer(body, np.uint8), at, words, word_bits, positions, steps)
    if count < 0:
        raise PatchFormatError(f"its body is corrupt: {FAULTS[int(count)]}")
    return int(count), int(end)


def decode_positions(body: bytes, at: int, words: int, most: int) -> tuple[Positions, int]:
    """Read positions alone, at most ``most``, and the byte after; see :func:`decode_changes`."""
    positions = np.empty(most, np.uint32)
    count, end = decode_changes(body, at, words, 0, positions, _NO_STEPS)
    return positions[:count], end


@allocating_loop
def _encode(
    positions: Positions, steps: Steps, words: Integer, word_bits: Integer, out: Bytes, bits: Bits
) -> Integer:
    """Code a chunk and add the bits of gaps and of steps to ``bits``; return the body's length."""
    at = 0
    first = 0
    for start in range(0, words, TILE_WORDS):
        last = first
        while last < positions.size and positions[last] < start + TILE_WORDS:
            last += 1
        at = put_varint(np.uint64(last - first), at, out)
        if last > first:
            at = _encode_tile(
                positions[first:last], steps[first:last], start, word_bits, at, out, bits
            )
        first = last
    return at


@allocating_loop
def _encode_tile(
    positions: Positions, steps: Steps, start: Integer, word_bits: Integer, at: Integer,
    out: Bytes, bits: Bits,
) -> Integer:  # fmt: skip
    gaps, values = np.empty(positions.size, np.uint64), np.empty(steps.size, np.uint64)
    before = start - 1
    for i in range(positions.size):
        position = np.int64(positions[i])
        gaps[i] = np.uint64(position - before - 1)
        before = position
    for i in range(steps.size):
        values[i] = step_to_value(steps[i])
    gap_parameter = best_parameter(gaps, GAP_BITS)
    value_parameter = best_parameter(values, word_bits)
    out[at] = gap_parameter
    at += 1
    if values.size:
        out[at] = value_parameter
        at += 1
    gap_bits, value_bits = np.int64(0), np.int64(0)
    for i in range(gaps.size):
        gap_bits += code_length(gaps[i], gap_parameter, GAP_BITS)
    for i in range(values.size):
        value_bits += code_length(values[i], value_parameter, word_bits)
    bits[0] += gap_bits
    bits[1] += value_bits
    length = (gap_bits + value_bits + 7) >> 3
    at = put_varint(np.uint64(length), at, out)
    out[at : at + length] = 0
    bit = np.int64(at) << 3
    for i in range(gaps.size):
        bit = put_code(gaps[i], gap_parameter, GAP_BITS, bit, out)
        if values.size:
            bit = put_code(values[i], value_parameter, word_bits, bit, out)
    return (bit + 7) >> 3


@inlined
def step_to_value(step: Integer) -> Integer:
    """A step as an unsigned number: 2 · (|step| − 1) + (1 where negative)."""
    negative = step >> 63
    return np.uint64((step ^ negative) - (negative + 1)) << np.uint64(1) | np.uint64(-negative)


@loop
def _decode(
    body: Bytes, at: Integer, words: Integer, word_bits: Integer, positions: Positions, steps: Steps
) -> tuple[Integer, Integer]:
    done = np.int64(0)
    parameters = 2 if word_bits else 1
    for start in range(0, words, TILE_WORDS):
        tile_words = min(TILE_WORDS, words - start)
        count, at = get_varint(body, at)
        if at < 0:
            return np.int64(TRUNCATED), at
        if count == 0:
            continue
        if count > tile_words or count > positions.size - done:
            return np.int64(OUT_OF_RANGE), at
        if at + parameters > body.size:
            return np.int64(TRUNCATED), at
        gap_parameter, value_parameter = np.int64(body[at]), np.int64(0)
        if word_bits:
            value_parameter = np.int64(body[at + 1])
        if gap_parameter >= GAP_BITS or value_parameter > max(word_bits - 1, 0):
            return np.int64(OUT_OF_RANGE), at
        length, at = get_varint(body, at + parameters)
        if at < 0 or length > body.size - at:
            return np.int64(TRUNCATED), at
        fault = _decode_tile(
            body[at : at + length],
            gap_parameter,
            value_parameter,
            word_bits,
            start,
            tile_words,
            positions[done : done + count],
            steps[done : done + count],
        )
        if fault < 0:
            return np.int64(fault), at
        at += length
        done += count
    return done, at


@loop
def _decode_tile(
    stream: Bytes, gap_parameter: Integer, value_parameter: Integer, word_bits: Integer,
    start: Integer, tile_words: Integer, positions: Positions, steps: Steps,
) -> Integer:  # fmt: skip
    bit = np.int64(0)
    position = np.int64(-1)
    largest = ~np.uint64(0) >> np.uint64(64 - max(word_bits, 1))
    for i in range(positions.size):
        gap, bit = get_code(stream, bit, gap_parameter, GAP_BITS)
        if bit < 0:
            return bit
        if gap >= tile_words:
            return np.int64(OUT_OF_RANGE)
        position += np.int64(gap) + 1
        if word_bits:
            value, bit = get_code(stream, bit, value_parameter, word_bits)
            if bit < 0:
                return bit
            if value > largest or value == largest - np.uint64(1):
                return np.int64(OUT_OF_RANGE)
            magnitude = np.int64(value >> np.uint64(1))
            steps[i] = -magnitude - 1 if value & np.uint64(1) else magnitude + 1
        if position >= tile_words:
            return np.int64(OUT_OF_RANGE)
        positions[i] = start + position
    if (bit + 7) >> 3 != stream.size:
        return np.int64(LEFTOVER)
    if bit & 7 and stream[bit >> 3] >> (bit & 7):
        return np.int64(LEFTOVER)
    return np.int64(0)
