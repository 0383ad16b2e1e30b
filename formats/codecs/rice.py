"""Codec 1, "rice": Golomb-Rice codes of gaps and steps, tile by tile (SPEC.md, section 6.1).

Needs no base to decode. A tile is 65536 words. Its changes are one bit stream in which each entry
is the Rice code of the gap to the entry before it, then the Rice code of its step; both Rice
parameters are chosen per tile. Values that would need a long unary part are escaped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError
from patchc.formats.change_bits import ChangeBits
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
    leading_bits,
    least_code_bits,
    put_code,
    put_varint,
)
from patchc.formats.codecs.protocol import Coding, Positions, Steps
from patchc.jit import Integer, always_inline, compiled

Bits = NDArray[np.int64]

_LONGEST_ENTRY = 2 * ESCAPE + GAP_BITS + 64  # bits


@dataclass(frozen=True)
class RiceCodec:
    """See the module; implements :class:`patchc.formats.codecs.protocol.Codec`."""

    id: int = 1
    name: str = "rice"

    def encode(self, positions: Positions, steps: Steps, words: int, word_bits: int) -> Coding:
        """Code a chunk; see :meth:`Codec.encode`."""
        tiles = -(-words // TILE_WORDS)
        room = tiles * LONGEST_TILE_HEADER + (len(positions) * _LONGEST_ENTRY >> 3) + tiles
        out = np.empty(room, np.uint8)
        bits = np.zeros(2, np.int64)
        end = _encode_chunk(positions, steps, tiles, word_bits, out, bits)
        return Coding(out[:end].tobytes(), ChangeBits(*bits.tolist()))

    def decode(
        self, body: bytes, entries: int, words: int, word_bits: int
    ) -> tuple[Positions, Steps]:
        """Decode a chunk; see :meth:`Codec.decode`."""
        if entries > 4 * len(body):
            raise PatchFormatError(f"its body is too short for the {entries} changes of its record")
        positions, steps = np.empty(entries, np.uint32), np.empty(entries, np.int64)
        data = np.frombuffer(body, np.uint8)
        count = _decode_chunk(data, words, word_bits, positions, steps)
        if count < 0:
            raise PatchFormatError(f"its body is corrupt: {FAULTS[count]}")
        if count != entries:
            raise PatchFormatError(f"its body codes {count} changes and its record says {entries}")
        return positions, steps


RICE = RiceCodec()


@compiled
def _encode_chunk(
    positions: Positions, steps: Steps, tiles: Integer, word_bits: Integer, out: Bytes, bits: Bits
) -> Integer:
    """Code a chunk and add the bits of gaps and of steps to ``bits``; return the body's length."""
    at = 0
    first = 0
    for tile in range(tiles):
        last = first
        end = (tile + 1) * TILE_WORDS
        while last < positions.size and positions[last] < end:
            last += 1
        at = put_varint(np.uint64(last - first), at, out)
        if last > first:
            at = _encode_tile(
                positions[first:last], steps[first:last], tile, word_bits, at, out, bits
            )
        first = last
    return at


@compiled
def _encode_tile(
    positions: Positions, steps: Steps, tile: Integer, word_bits: Integer, at: Integer, out: Bytes,
    bits: Bits,
) -> Integer:  # fmt: skip
    gaps = np.empty(positions.size, np.uint64)
    values = np.empty(positions.size, np.uint64)
    before = tile * TILE_WORDS - 1
    for i in range(positions.size):
        position = np.int64(positions[i])
        gaps[i] = np.uint64(position - before - 1)
        before = position
        values[i] = _step_to_value(steps[i])
    gap_parameter = best_parameter(gaps, GAP_BITS)
    value_parameter = best_parameter(values, word_bits)
    out[at], out[at + 1] = gap_parameter, value_parameter
    of_gaps, of_values = np.int64(0), np.int64(0)
    for i in range(gaps.size):
        of_gaps += code_length(gaps[i], gap_parameter, GAP_BITS)
        of_values += code_length(values[i], value_parameter, word_bits)
    bits[0] += of_gaps
    bits[1] += of_values
    length = (of_gaps + of_values + 7) >> 3
    at = put_varint(np.uint64(length), at + 2, out)
    out[at : at + length] = 0
    bit = np.int64(at) << 3
    for i in range(gaps.size):
        bit = put_code(gaps[i], gap_parameter, GAP_BITS, bit, out)
        bit = put_code(values[i], value_parameter, word_bits, bit, out)
    return (bit + 7) >> 3


@compiled
def least_bits(positions: Positions, steps: Steps, word_bits: Integer) -> Integer:
    """Bits that no body of these changes goes below, by the leading two bits of gaps and values."""
    gaps, values = np.zeros(2 * 65, np.int64), np.zeros(2 * 65, np.int64)
    bits = np.int64(0)
    before, start = np.int64(-1), np.int64(-1)
    for i in range(positions.size):
        position = np.int64(positions[i])
        if position >= start + 1 + TILE_WORDS:
            bits += least_code_bits(gaps, GAP_BITS) + least_code_bits(values, word_bits)
            gaps[:] = 0
            values[:] = 0
            start = position // TILE_WORDS * TILE_WORDS - 1
            before = start
        gaps[leading_bits(np.uint64(position - before - 1))] += 1
        values[leading_bits(_step_to_value(steps[i]))] += 1
        before = position
    return bits + least_code_bits(gaps, GAP_BITS) + least_code_bits(values, word_bits)


@always_inline
def _step_to_value(step: Integer) -> Integer:
    negative = step >> 63
    return np.uint64((step ^ negative) - (negative + 1)) << np.uint64(1) | np.uint64(-negative)


@compiled
def _decode_chunk(
    body: Bytes, words: Integer, word_bits: Integer, positions: Positions, steps: Steps
) -> Integer:
    at = 0
    done = 0
    for start in range(0, words, TILE_WORDS):
        tile_words = min(TILE_WORDS, words - start)
        count, at = get_varint(body, at)
        if at < 0:
            return TRUNCATED
        if count == 0:
            continue
        if count > tile_words or count > positions.size - done:
            return OUT_OF_RANGE
        if at + 2 > body.size:
            return TRUNCATED
        gap_parameter, value_parameter = np.int64(body[at]), np.int64(body[at + 1])
        if gap_parameter >= GAP_BITS or value_parameter >= word_bits:
            return OUT_OF_RANGE
        length, at = get_varint(body, at + 2)
        if at < 0 or length > body.size - at:
            return TRUNCATED
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
            return fault
        at += length
        done += count
    return done if at == body.size else LEFTOVER


@compiled
def _decode_tile(
    stream: Bytes,
    gap_parameter: Integer,
    value_parameter: Integer,
    word_bits: Integer,
    start: Integer,
    tile_words: Integer,
    positions: Positions,
    steps: Steps,
) -> Integer:
    bit = np.int64(0)
    position = np.int64(-1)
    largest = ~np.uint64(0) >> np.uint64(64 - word_bits)
    for i in range(positions.size):
        gap, bit = get_code(stream, bit, gap_parameter, GAP_BITS)
        if bit < 0:
            return bit
        if gap >= tile_words:
            return OUT_OF_RANGE
        position += np.int64(gap) + 1
        value, bit = get_code(stream, bit, value_parameter, word_bits)
        if bit < 0:
            return bit
        if position >= tile_words or value > largest or value == largest - np.uint64(1):
            return OUT_OF_RANGE
        positions[i] = start + position
        magnitude = np.int64(value >> np.uint64(1))
        steps[i] = -magnitude - 1 if value & np.uint64(1) else magnitude + 1
    if (bit + 7) >> 3 != stream.size:
        return LEFTOVER
    if bit & 7 and stream[bit >> 3] >> (bit & 7):
        return LEFTOVER
    return 0
