"""Codec 1, "rice": Golomb-Rice codes of gaps and steps, tile by tile (SPEC.md, section 6.1).

Needs no base to decode. A tile is 65536 words. Its changes are one bit stream in which each entry
is the Rice code of the gap to the entry before it, then the Rice code of its step; both Rice
parameters are chosen per tile. Values that would need a long unary part are escaped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, compiled, inlined
from patchc.errors import PatchFormatError
from patchc.formats.codecs.codec import Positions, Steps

TILE_WORDS = 1 << 16
_GAP_BITS = 16
_ESCAPE = 24
_LONGEST_ENTRY = 2 * _ESCAPE + _GAP_BITS + 64  # bits
_LONGEST_TILE_HEADER = 10  # bytes

_TRUNCATED = -1
_OUT_OF_RANGE = -2
_LEFTOVER = -3
_FAULTS = {
    _TRUNCATED: "it ends early",
    _OUT_OF_RANGE: "a position, step or parameter is out of range",
    _LEFTOVER: "it holds bytes or bits that belong to nothing",
}

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class RiceCodec:
    """See the module; implements :class:`patchc.formats.codecs.codec.Codec`."""

    id: int = 1
    name: str = "rice"

    def encode(self, positions: Positions, steps: Steps, words: int, word_bits: int) -> bytes:
        """Code a chunk; see :meth:`Codec.encode`."""
        tiles = -(-words // TILE_WORDS)
        room = tiles * _LONGEST_TILE_HEADER + (len(positions) * _LONGEST_ENTRY >> 3) + tiles
        out = np.empty(room, np.uint8)
        return out[: _encode_chunk(positions, steps, tiles, word_bits, out)].tobytes()

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
            raise PatchFormatError(f"its body is corrupt: {_FAULTS[count]}")
        if count != entries:
            raise PatchFormatError(f"its body codes {count} changes and its record says {entries}")
        return positions, steps


RICE = RiceCodec()


@compiled
def _encode_chunk(
    positions: Positions, steps: Steps, tiles: Integer, word_bits: Integer, out: Bytes
) -> Integer:
    at = 0
    first = 0
    for tile in range(tiles):
        last = first
        end = (tile + 1) * TILE_WORDS
        while last < positions.size and positions[last] < end:
            last += 1
        at = _put_varint(np.uint64(last - first), at, out)
        if last > first:
            at = _encode_tile(positions[first:last], steps[first:last], tile, word_bits, at, out)
        first = last
    return at


@compiled
def _encode_tile(
    positions: Positions, steps: Steps, tile: Integer, word_bits: Integer, at: Integer, out: Bytes
) -> Integer:
    gaps = np.empty(positions.size, np.uint64)
    values = np.empty(positions.size, np.uint64)
    before = tile * TILE_WORDS - 1
    for i in range(positions.size):
        position = np.int64(positions[i])
        gaps[i] = np.uint64(position - before - 1)
        before = position
        values[i] = _step_to_value(steps[i])
    gap_parameter = _best_parameter(gaps, _GAP_BITS)
    value_parameter = _best_parameter(values, word_bits)
    out[at], out[at + 1] = gap_parameter, value_parameter
    bits = np.int64(0)
    for i in range(gaps.size):
        bits += _code_length(gaps[i], gap_parameter, _GAP_BITS)
        bits += _code_length(values[i], value_parameter, word_bits)
    at = _put_varint(np.uint64((bits + 7) >> 3), at + 2, out)
    out[at : at + ((bits + 7) >> 3)] = 0
    bit = np.int64(at) << 3
    for i in range(gaps.size):
        bit = _put_code(gaps[i], gap_parameter, _GAP_BITS, bit, out)
        bit = _put_code(values[i], value_parameter, word_bits, bit, out)
    return (bit + 7) >> 3


@inlined
def _step_to_value(step: Integer) -> Integer:
    if step < 0:
        return (np.uint64(-(step + 1)) << np.uint64(1)) | np.uint64(1)
    return np.uint64(step - 1) << np.uint64(1)


@inlined
def _best_parameter(values: NDArray[np.uint64], raw_bits: Integer) -> Integer:
    """The parameter with the shortest code, to good approximation, from a count by bit length."""
    lengths = np.zeros(65, np.int64)
    for i in range(values.size):
        length = 0
        value = values[i]
        while value:
            value >>= np.uint64(1)
            length += 1
        lengths[length] += 1
    best, best_cost = 0, np.int64(1) << 62
    for parameter in range(raw_bits):
        cost = np.int64(0)
        for length in range(65):
            excess = length - 1 - parameter
            quotient = 0 if excess < 0 else (3 << min(excess, 20)) >> 1
            one = quotient + 1 + parameter if quotient < _ESCAPE else _ESCAPE + raw_bits
            cost += lengths[length] * one
        if cost < best_cost:
            best, best_cost = parameter, cost
    return best


@inlined
def _code_length(value: Integer, parameter: Integer, raw_bits: Integer) -> Integer:
    quotient = value >> np.uint64(parameter)
    if quotient >= _ESCAPE:
        return np.int64(_ESCAPE + raw_bits)
    return np.int64(quotient) + 1 + parameter


@inlined
def _put_code(
    value: Integer, parameter: Integer, raw_bits: Integer, bit: Integer, out: Bytes
) -> Integer:
    quotient = value >> np.uint64(parameter)
    if quotient >= _ESCAPE:
        bit = _put_bits(np.uint64((1 << _ESCAPE) - 1), _ESCAPE, bit, out)
        return _put_bits(value, raw_bits, bit, out)
    ones = (np.uint64(1) << quotient) - np.uint64(1)
    bit = _put_bits(ones, np.int64(quotient) + 1, bit, out)
    return _put_bits(
        value & ((np.uint64(1) << np.uint64(parameter)) - np.uint64(1)), parameter, bit, out
    )


@inlined
def _put_bits(value: Integer, count: Integer, bit: Integer, out: Bytes) -> Integer:
    while count > 0:
        room = 8 - (bit & 7)
        out[bit >> 3] |= np.uint8((value << np.uint64(bit & 7)) & np.uint64(0xFF))
        taken = min(room, count)
        value >>= np.uint64(taken)
        bit += taken
        count -= taken
    return bit


@inlined
def _put_varint(value: Integer, at: Integer, out: Bytes) -> Integer:
    while value >= np.uint64(0x80):
        out[at] = np.uint8((value & np.uint64(0x7F)) | np.uint64(0x80))
        value >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@compiled
def _decode_chunk(
    body: Bytes, words: Integer, word_bits: Integer, positions: Positions, steps: Steps
) -> Integer:
    at = 0
    done = 0
    for start in range(0, words, TILE_WORDS):
        tile_words = min(TILE_WORDS, words - start)
        count, at = _get_varint(body, at)
        if at < 0:
            return _TRUNCATED
        if count == 0:
            continue
        if count > tile_words or count > positions.size - done:
            return _OUT_OF_RANGE
        if at + 2 > body.size:
            return _TRUNCATED
        gap_parameter, value_parameter = np.int64(body[at]), np.int64(body[at + 1])
        if gap_parameter >= _GAP_BITS or value_parameter >= word_bits:
            return _OUT_OF_RANGE
        length, at = _get_varint(body, at + 2)
        if at < 0 or length > body.size - at:
            return _TRUNCATED
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
    return done if at == body.size else _LEFTOVER


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
        gap, bit = _get_code(stream, bit, gap_parameter, _GAP_BITS)
        if bit < 0:
            return bit
        if gap >= tile_words:
            return _OUT_OF_RANGE
        position += np.int64(gap) + 1
        value, bit = _get_code(stream, bit, value_parameter, word_bits)
        if bit < 0:
            return bit
        if position >= tile_words or value > largest or value == largest - np.uint64(1):
            return _OUT_OF_RANGE
        positions[i] = start + position
        magnitude = np.int64(value >> np.uint64(1))
        steps[i] = -magnitude - 1 if value & np.uint64(1) else magnitude + 1
    if (bit + 7) >> 3 != stream.size:
        return _LEFTOVER
    if bit & 7 and stream[bit >> 3] >> (bit & 7):
        return _LEFTOVER
    return 0


@inlined
def _get_code(
    stream: Bytes, bit: Integer, parameter: Integer, raw_bits: Integer
) -> tuple[Integer, Integer]:
    quotient = 0
    while True:
        if bit >> 3 >= stream.size:
            return np.uint64(0), np.int64(_TRUNCATED)
        one = (stream[bit >> 3] >> (bit & 7)) & 1
        bit += 1
        if not one:
            break
        quotient += 1
        if quotient == _ESCAPE:
            return _get_bits(stream, bit, raw_bits)
    low, bit = _get_bits(stream, bit, parameter)
    high = np.uint64(quotient) << np.uint64(parameter)
    if high >> np.uint64(parameter) != quotient:
        return np.uint64(0), np.int64(_OUT_OF_RANGE)
    return high | low, bit


@inlined
def _get_bits(stream: Bytes, bit: Integer, count: Integer) -> tuple[Integer, Integer]:
    if bit + count > np.int64(stream.size) << 3:
        return np.uint64(0), np.int64(_TRUNCATED)
    value = np.uint64(0)
    got = 0
    while got < count:
        taken = min(8 - (bit & 7), count - got)
        part = (np.uint64(stream[bit >> 3]) >> np.uint64(bit & 7)) & np.uint64((1 << taken) - 1)
        value |= part << np.uint64(got)
        got += taken
        bit += taken
    return value, bit


@inlined
def _get_varint(body: Bytes, at: Integer) -> tuple[Integer, Integer]:
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
