"""Tiles of words as merges compute on them: small enough to stay in a core's first-level cache.

Within a tile everything is fp32, and every entry is computed: a mask chooses among the entries
afterwards. That is quicker than a branch per entry, since a processor computes sixteen at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import BY_NAME, Words
from patchc.jit import Integer, loop
from patchc.kernels.bitmask import Bitmask
from patchc.kernels.rounding.cpu import from_fp32, to_fp32
from patchc.simd import widen

Floats = NDArray[np.float32]
Bits = NDArray[np.uint32]
Rows = NDArray[np.uint8]
"""Words of several models, of any dtypes: one row of bytes each, and room behind the shorter."""

TILE = 1024
MAGNITUDE = np.uint32(0x7FFFFFFF)
INFINITY = np.uint32(0x7F800000)
_BF16 = BY_NAME["BF16"].code
_F32 = BY_NAME["F32"].code
_F16 = BY_NAME["F16"].code


def new_tiles() -> Floats:
    """As many tiles as any merge computes in."""
    return np.empty((8, TILE), np.float32)


@loop
def convert(words: NDArray[np.integer], code: int, out: Floats) -> None:
    """The fp32 value of every word; exact. What is not finite stays so."""
    bits = out.view(np.uint32)
    if code == _BF16:
        for i in range(words.size):
            bits[i] = np.uint32(words[i]) << np.uint32(16)
    elif code == _F32:
        for i in range(words.size):
            bits[i] = np.uint32(words[i])
    else:
        for i in range(words.size):
            out[i] = to_fp32(np.int64(words[i]), code)


@loop
def convert_row(row: Rows, code: int, start: int, out: Floats) -> None:
    """The fp32 values of as many words as ``out`` holds, of any dtype, from word ``start`` on."""
    end = start + out.size
    if code == _F32:
        convert(row[4 * start : 4 * end].view(np.uint32), code, out)
    elif code in (_BF16, _F16):
        convert(row[2 * start : 2 * end].view(np.uint16), code, out)
    else:
        convert(row[start:end], code, out)


@loop
def expand(mask: Bitmask, chosen: Bits) -> None:
    """Write a word for each entry: not 0 where its bit is set."""
    for i in range(mask.size):
        widen(mask[i], chosen, np.uint64(i) << np.uint64(5))


@loop
def round_chosen(words: Words, code: int, merged: Floats, chosen: Bits, out: Words) -> Integer:
    """Round to the words' dtype where ``chosen`` is not 0; elsewhere the words stay.

    Returns:
        Whether a chosen value is not finite or overflows the dtype.
    """
    if code == _BF16:
        return _round_bf16(words, merged, chosen, out)
    faulty = False
    for i in range(words.size):
        out[i] = words[i]
        if chosen[i]:
            word = from_fp32(merged[i], code)
            faulty |= word < 0
            out[i] = max(word, np.int64(0))
    return faulty


@loop
def _round_bf16(words: Words, merged: Floats, chosen: Bits, out: Words) -> Integer:
    bits = merged.view(np.uint32)
    largest = np.uint32(0)
    half, one = np.uint32(0x7FFF), np.uint32(1)
    for i in range(words.size):
        value = bits[i] if chosen[i] else np.uint32(0)
        # A value that is not finite stays above every finite one, whatever is added below.
        rounded = (value + half + ((value >> np.uint32(16)) & one)) >> np.uint32(16)
        largest = max(largest, value & MAGNITUDE, (rounded & half) << np.uint32(16))
        out[i] = rounded if chosen[i] else words[i]
    return largest >= INFINITY
