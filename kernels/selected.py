"""The merge of one or two components where they are selected, in one pass over the weights.

The arithmetic is that of :mod:`patchc.kernels.merge`, which is also its oracle: fp32, each product
and sum rounded on its own. All entries are computed and the marks choose among them; that is
quicker than a branch an entry, since a processor computes sixteen at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, compiled, inlined
from patchc.dtypes import BY_NAME
from patchc.kernels.marks import Marks
from patchc.kernels.rounding import from_fp32, to_fp32

Words = NDArray[np.unsignedinteger]
Floats = NDArray[np.float32]

_TILE = 2048
_BF16 = BY_NAME["BF16"].code
_F32 = BY_NAME["F32"].code
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)


@compiled
def convert(words: Words, code: int, out: Floats) -> None:
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
            out[i] = to_fp32(words[i], code)


@compiled
def merge_selected(
    base: Words,
    code: int,
    tuned: Floats,
    marks: Marks,
    scale: np.float32,
    other_tuned: Floats,
    other_marks: Marks,
    other_scale: np.float32,
    result: Words,
) -> bool:
    """Write base + scale · (tuned − base) + …, rounded to the base's dtype, where it is selected.

    Args:
        base: the base's words; they stay where no component is selected.
        code: the base's dtype.
        tuned, marks, scale: the first component: its values, where it is selected, its factor.
        other_tuned, other_marks, other_scale: the second component; without one, both are empty.
        result: as long as ``base``; overwritten.

    Returns:
        Whether a selected value of the base, of a component or of the result is not finite, or
        overflows the dtype; the result is of no use then.
    """
    buffers = np.empty((2, _TILE), np.float32)
    chosen = np.empty((2, _TILE // 32, 32), np.uint32)
    faulty = False
    for start in range(0, base.size, _TILE):
        end = min(start + _TILE, base.size)
        words, count = base[start:end], end - start
        own, others = chosen[0].ravel()[:count], chosen[1].ravel()[:count]
        origin, merged = buffers[0, :count], buffers[1, :count]
        convert(words, code, origin)
        merged[:] = origin
        _expand(marks[start >> 5 : (end + 31) >> 5], chosen[0])
        _add(origin, tuned[start:end], own, scale, merged)
        if other_tuned.size:
            _expand(other_marks[start >> 5 : (end + 31) >> 5], chosen[1])
            _add(origin, other_tuned[start:end], others, other_scale, merged)
            own |= others
        if code == _BF16:
            faulty |= _round_bf16(words, merged, own, result[start:end])
        else:
            faulty |= _round(words, code, merged, own, result[start:end])
    return faulty


@inlined
def _expand(marks: Marks, chosen: NDArray[np.uint32]) -> None:
    """One word an entry: not 0 where it is marked; ``chosen`` is 32 a row."""
    for i in range(marks.size):
        word = marks[i]
        for j in range(32):
            chosen[i, j] = word & (np.uint32(1) << np.uint32(j))


@inlined
def _add(
    origin: Floats, tuned: Floats, chosen: NDArray[np.uint32], scale: np.float32, merged: Floats
) -> None:
    for i in range(origin.size):
        product = np.float32(scale * np.float32(tuned[i] - origin[i]))
        total = np.float32(merged[i] + product)
        merged[i] = total if chosen[i] else merged[i]


@inlined
def _round_bf16(words: Words, merged: Floats, chosen: NDArray[np.uint32], out: Words) -> Integer:
    bits = merged.view(np.uint32)
    largest = np.uint32(0)
    half, one = np.uint32(0x7FFF), np.uint32(1)
    for i in range(words.size):
        value = bits[i] if chosen[i] else np.uint32(0)
        # A value that is not finite stays above every finite one, whatever is added below.
        rounded = (value + half + ((value >> np.uint32(16)) & one)) >> np.uint32(16)
        largest = max(largest, value & _MAGNITUDE, (rounded & half) << np.uint32(16))
        out[i] = rounded if chosen[i] else words[i]
    return largest >= _INFINITY


@inlined
def _round(
    words: Words, code: int, merged: Floats, chosen: NDArray[np.uint32], out: Words
) -> Integer:
    faulty = False
    for i in range(words.size):
        out[i] = words[i]
        if chosen[i]:
            word = from_fp32(merged[i], code)
            faulty |= word < 0
            out[i] = max(word, np.int64(0))
    return faulty
