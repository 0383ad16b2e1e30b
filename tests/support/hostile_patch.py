"""The golden patch with some of its parts replaced, and the check that readers refuse it."""

from __future__ import annotations

import struct

from forged_patch import Parts, golden_parts
from second_reader import read_index

GOLDEN = golden_parts()

INDEX = read_index(GOLDEN.index)

# Offsets in the expanded index of the worked example (formats/SPEC.md, section 8.2).
TENSORS, CHUNKS, MASKS, THRESHOLD, SHARED, RESTS = 0, 4, 8, 20, 28, 33
DTYPES, RANKS, DIMENSIONS, COUNTS, SKIPS, CODECS = 42, 46, 50, 56, 61, 64


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def with_body(body: bytes, entries: int = 3, words: int = 4) -> Parts:
    """The worked example with another body for the chunk of `a`, its digests made to fit."""
    return GOLDEN.with_first_body(body, entries, words)


def bits(text: str) -> bytes:
    """A stream of section 6.1 from its bits in order."""
    text = text.replace(" ", "")
    padded = text + "0" * (-len(text) % 8)
    return bytes(int(padded[i : i + 8][::-1], 2) for i in range(0, len(padded), 8))
