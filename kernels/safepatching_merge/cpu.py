"""The merge of components where they are selected, in one pass over the weights.

The arithmetic is that of ``reference.py``, which is also its oracle: fp32, each product and sum
rounded on its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import kernel, kernel_helper
from patchc.kernels.bitmask import Bitmask
from patchc.kernels.tiles import (
    TILE,
    Bits,
    Floats,
    Rows,
    convert,
    convert_row,
    expand,
    new_tiles,
    round_chosen,
)

_TILES = 5


def merge_components(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    marks: Bitmask,
    scales: Floats,
    result: Words,
) -> bool:
    """Write base + scale · (tuned − base) + …, rounded to the base's dtype, where it is selected.

    Args:
        base: the base's words; they stay where no component is selected.
        code: the base's dtype.
        tuned, codes: the words of each component, one row of bytes each, and their dtypes.
        marks: where each is selected, one row each.
        scales: the factor of each.
        result: as long as ``base``; overwritten.

    Returns:
        Whether a selected value of the base, of a component or of the result is not finite, or
        overflows the dtype; the result is of no use then.
    """
    return _merge_selected(base, code, tuned, codes, marks, scales, result, new_tiles(_TILES))


@kernel
def _merge_selected(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    marks: Bitmask,
    scales: Floats,
    result: Words,
    tiles: Floats,
) -> bool:
    faulty = False
    for start in range(0, base.size, TILE):
        end = min(start + TILE, base.size)
        count, words = end - start, base[start:end]
        origin, values, merged = tiles[0, :count], tiles[1, :count], tiles[2, :count]
        chosen, either = tiles[3].view(np.uint32), tiles[4, :count].view(np.uint32)
        convert(words, code, origin)
        convert(words, code, merged)
        either[:] = 0
        for number in range(codes.size):
            convert_row(tuned[number], codes[number], start, values)
            expand(marks[number, start >> 5 : (end + 31) >> 5], chosen)
            _add(origin, values, chosen, scales[number], merged)
            _unite(either, chosen)
        faulty |= round_chosen(words, code, merged, either, result[start:end])
    return faulty


@kernel_helper
def _add(origin: Floats, values: Floats, chosen: Bits, scale: np.float32, merged: Floats) -> None:
    for i in range(origin.size):
        product = np.float32(scale * np.float32(values[i] - origin[i]))
        total = np.float32(merged[i] + product)
        merged[i] = total if chosen[i] else merged[i]


@kernel_helper
def _unite(either: Bits, chosen: Bits) -> None:
    for i in range(either.size):
        either[i] |= chosen[i]
