"""Positions alone: the gaps of codec 1 without its steps, tile by tile (SPEC.md, section 6.2)."""

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
from patchc.formats.codecs.protocol import Positions
from patchc.jit import Integer, compiled


def encode_positions(positions: Positions, words: int) -> bytes:
    """Code positions: strictly increasing and below ``words``."""
    tiles = -(-words // TILE_WORDS)
    room = tiles * (LONGEST_TILE_HEADER + 1) + (len(positions) * (ESCAPE + GAP_BITS) >> 3)
    out = np.empty(room, np.uint8)
    return out[: _encode(positions, tiles, out)].tobytes()


def decode_positions(body: bytes, at: int, words: int, most: int) -> tuple[Positions, int]:
    """Invert :func:`encode_positions` from byte ``at`` of a hostile body on.

    Args:
        body: a chunk's body.
        at: where the positions start.
        words: words in the chunk.
        most: how many positions there may be; no more are allocated.

    Returns:
        The positions, strictly increasing and below ``words``, and the byte after their coding.

    Raises:
        PatchFormatError: there is no such coding at ``at``.
    """
    positions = np.empty(most, np.uint32)
    count, end = _decode(np.frombuffer(body, np.uint8), at, words, positions)
    if count < 0:
        raise PatchFormatError(f"its body is corrupt: {FAULTS[int(count)]}")
    return positions[:count], int(end)


@compiled
def _encode(positions: Positions, tiles: Integer, out: Bytes) -> Integer:
    at = 0
    first = 0
    gaps = np.empty(TILE_WORDS, np.uint64)
    for tile in range(tiles):
        before = np.int64(tile * TILE_WORDS - 1)
        end = before + TILE_WORDS
        last = first
        while last < positions.size and positions[last] <= end:
            position = np.int64(positions[last])
            gaps[last - first] = np.uint64(position - before - 1)
            before = position
            last += 1
        count = last - first
        at = put_varint(np.uint64(count), at, out)
        if count:
            at = _encode_tile(gaps[:count], at, out)
        first = last
    return at


@compiled
def _encode_tile(gaps: NDArray[np.uint64], at: Integer, out: Bytes) -> Integer:
    parameter = best_parameter(gaps, GAP_BITS)
    bits = np.int64(0)
    for i in range(gaps.size):
        bits += code_length(gaps[i], parameter, GAP_BITS)
    out[at] = parameter
    at = put_varint(np.uint64((bits + 7) >> 3), at + 1, out)
    out[at : at + ((bits + 7) >> 3)] = 0
    bit = np.int64(at) << 3
    for i in range(gaps.size):
        bit = put_code(gaps[i], parameter, GAP_BITS, bit, out)
    return (bit + 7) >> 3


@compiled
def _decode(
    body: Bytes, at: Integer, words: Integer, positions: Positions
) -> tuple[Integer, Integer]:
    done = np.int64(0)
    for start in range(0, words, TILE_WORDS):
        tile_words = min(TILE_WORDS, words - start)
        count, at = get_varint(body, at)
        if at < 0:
            return np.int64(TRUNCATED), at
        if count == 0:
            continue
        if count > tile_words or count > positions.size - done:
            return np.int64(OUT_OF_RANGE), at
        if at >= body.size:
            return np.int64(TRUNCATED), at
        parameter = np.int64(body[at])
        if parameter >= GAP_BITS:
            return np.int64(OUT_OF_RANGE), at
        length, at = get_varint(body, at + 1)
        if at < 0 or length > body.size - at:
            return np.int64(TRUNCATED), at
        fault = _decode_tile(
            body[at : at + length], parameter, start, tile_words, positions[done : done + count]
        )
        if fault < 0:
            return np.int64(fault), at
        at += length
        done += count
    return done, at


@compiled
def _decode_tile(
    stream: Bytes, parameter: Integer, start: Integer, tile_words: Integer, positions: Positions
) -> Integer:
    bit = np.int64(0)
    position = np.int64(-1)
    for i in range(positions.size):
        gap, bit = get_code(stream, bit, parameter, GAP_BITS)
        if bit < 0:
            return bit
        if gap >= tile_words:
            return np.int64(OUT_OF_RANGE)
        position += np.int64(gap) + 1
        if position >= tile_words:
            return np.int64(OUT_OF_RANGE)
        positions[i] = start + position
    if (bit + 7) >> 3 != stream.size:
        return np.int64(LEFTOVER)
    if bit & 7 and stream[bit >> 3] >> (bit & 7):
        return np.int64(LEFTOVER)
    return np.int64(0)
