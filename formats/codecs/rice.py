"""Codec 1, "rice": Golomb-Rice codes of gaps and steps, tile by tile (SPEC.md, section 6.1)."""

from __future__ import annotations

import numpy as np

from patchc.dtypes import Words
from patchc.errors import PatchFormatError
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs.gap_tiles import decode_changes, encode_changes, step_to_value
from patchc.formats.codecs.golomb import (
    FAULTS,
    GAP_BITS,
    LEFTOVER,
    TILE_WORDS,
    leading_bits,
    least_code_bits,
)
from patchc.formats.codecs.protocol import ChunkBody, Codec, Coding, Positions, Steps
from patchc.jit import Integer, allocating_loop
from patchc.sides import Side


class RiceCodec(Codec):
    """Codes exact steps so that they decode from the body alone."""

    id = 1
    name = "rice"

    def encode(self, positions: Positions, steps: Steps, words: int, word_bits: int) -> Coding:
        """Code a chunk.

        Args:
            positions: strictly increasing, below ``words``; at least one.
            steps: as many; signed, not 0, within ``word_bits`` bits.
            words: words in the chunk.
            word_bits: 8, 16, 32 or 64.
        """
        body, bits = encode_changes(positions, steps, words, word_bits)
        return Coding(body, ChangeBits(*bits.tolist()))

    def decode(
        self, chunk: ChunkBody, words: Words | None = None, target: Side = "result"
    ) -> tuple[Positions, Steps]:
        """Decode a chunk; see :meth:`Codec.decode`."""
        body, entries = chunk.data, chunk.entries
        if entries > 4 * len(body):
            raise PatchFormatError(f"its body is too short for the {entries} changes of its record")
        positions, steps = np.empty(entries, np.uint32), np.empty(entries, np.int64)
        count, end = decode_changes(body, 0, chunk.words, chunk.dtype.word_bits, positions, steps)
        if end != len(body):
            raise PatchFormatError(f"its body is corrupt: {FAULTS[LEFTOVER]}")
        if count != entries:
            raise PatchFormatError(f"its body codes {count} changes and its record says {entries}")
        return positions, steps


@allocating_loop
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
        values[leading_bits(step_to_value(steps[i]))] += 1
        before = position
    return bits + least_code_bits(gaps, GAP_BITS) + least_code_bits(values, word_bits)
