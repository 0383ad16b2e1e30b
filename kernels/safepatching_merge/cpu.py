"""The merge of components where they are selected, in one pass over the weights; compiled loops.

The arithmetic is that of ``reference.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import loop
from patchc.kernels.bitmask import Bitmask
from patchc.kernels.rounding.cpu import to_fp32
from patchc.kernels.tiles import (
    TILE,
    Bits,
    Floats,
    Rows,
    convert,
    convert_row,
    expand,
    round_chosen,
)


@loop
def merge_components(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    masks: Bitmask,
    scales: Floats,
    result: Words,
    tiles: Floats,
) -> bool:
    """Write base + scale · (tuned − base) + …, rounded to the base's dtype, where it is selected.

    Args:
        base: the base's words; they stay where no component is selected.
        code: the base's dtype.
        tuned, codes: the words of each component, one row of bytes each, and their dtypes.
        masks: where each is selected, one row each.
        scales: the scale of each.
        result: as long as ``base``; overwritten.
        tiles: to compute in (:func:`patchc.kernels.tiles.new_tiles`).

    Returns:
        Whether a selected value of the base, of a component or of the result is not finite, or
        overflows the dtype; the result is of no use then.
    """
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
            expand(masks[number, start >> 5 : (end + 31) >> 5], chosen)
            _add(origin, values, chosen, scales[number], merged)
            _unite(either, chosen)
        faulty |= round_chosen(words, code, merged, either, result[start:end])
    return faulty


@loop
def _add(origin: Floats, values: Floats, chosen: Bits, scale: np.float32, merged: Floats) -> None:
    for i in range(origin.size):
        product = np.float32(scale * np.float32(values[i] - origin[i]))
        total = np.float32(merged[i] + product)
        merged[i] = total if chosen[i] else merged[i]


@loop
def _unite(either: Bits, chosen: Bits) -> None:
    for i in range(either.size):
        either[i] |= chosen[i]


@loop
def add_scaled_delta(
    base: Words,
    base_code: int,
    tuned: Words,
    tuned_code: int,
    mask: NDArray[np.bool_],
    scale: np.float32,
    merged: Floats,
) -> int:
    """Add ``scale`` · (tuned − base) to ``merged`` where ``mask`` is set; as ``reference.py``."""
    for i in range(base.size):
        if mask[i]:
            origin, target = (
                to_fp32(np.int64(base[i]), base_code),
                to_fp32(np.int64(tuned[i]), tuned_code),
            )
            if not (np.isfinite(origin) and np.isfinite(target)):
                return i
            product = np.float32(scale * np.float32(target - origin))
            merged[i] = np.float32(merged[i] + product)
    return -1
