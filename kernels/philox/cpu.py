"""The draws of :mod:`patchc.kernels.philox`, as compiled loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, inlined, loop
from patchc.kernels.philox import KEEP_ALL, Retention

_ROUND_0 = np.uint64(0xD2511F53)
_ROUND_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

NEVER_RETAINED = np.uint32(0xFFFFFFFF)
"""A draw that no threshold retains but the one that retains everything."""


@loop
def add_retained(
    retention: Retention, first: int, weight: np.uint8, sums: NDArray[np.uint8]
) -> None:
    """Add ``weight`` to the sums of the retained entries, four entries at a time.

    Args:
        retention: which entries are retained.
        first: flat index of the first sum; a multiple of 4.
        weight: what to add.
        sums: one for each entry; they stay below 256.
    """
    if retention.threshold == np.uint64(0):
        return
    last = retention.threshold - np.uint64(1)
    quads = sums[: sums.size >> 2 << 2].view(np.uint32)
    block = np.uint64(first >> 2)
    one = np.uint32(weight)
    for i in range(quads.size):
        draws = _four_draws(retention.seed, retention.stream, block + np.uint64(i))
        added = np.uint32(0)
        for lane in range(4):
            if draws[lane] <= last:
                added |= one << np.uint32(8 * lane)
        quads[i] += added
    for i in range(quads.size << 2, sums.size):
        draws = _four_draws(retention.seed, retention.stream, block + np.uint64(quads.size))
        sums[i] += weight if draws[i & 3] <= last else np.uint8(0)


@loop
def draw_tile(retention: Retention, first: int, draws: NDArray[np.uint32]) -> np.uint32:
    """Fill ``draws`` for flat index ``first`` on, from the first of its Philox block.

    Returns:
        What the draw of a retained entry is below. 2³² does not fit 32 bits: where everything is
        retained, the draws are all 0 instead.
    """
    if retention.threshold == np.uint64(KEEP_ALL):
        draws[:] = np.uint32(0)
        return np.uint32(1)
    fill_draws(retention.seed, retention.stream, first >> 2, draws)
    return np.uint32(retention.threshold)


@loop
def fill_draws(
    seed: np.uint64, stream: np.uint64, first_block: int, draws: NDArray[np.uint32]
) -> None:
    """Fill ``draws`` (a multiple of 4 long) with the draws of flat index 4 · ``first_block`` on."""
    for i in range(draws.size >> 2):
        four = _four_draws(seed, stream, np.uint64(first_block + i))
        for lane in range(4):
            draws[4 * i + lane] = np.uint32(four[lane])


@inlined
def _four_draws(
    seed: Integer, stream: Integer, block: Integer
) -> tuple[Integer, Integer, Integer, Integer]:
    """The draws of flat index 4 · ``block`` on, below 2³²."""
    c0, c1, c2, c3 = block & _LOW, block >> _HALF, stream & _LOW, stream >> _HALF
    key_0, key_1 = seed & _LOW, seed >> _HALF
    for _ in range(10):
        low, high = (c0 & _LOW) * _ROUND_0, (c2 & _LOW) * _ROUND_1
        c0, c1 = (high >> _HALF) ^ c1 ^ key_0, high
        c2, c3 = (low >> _HALF) ^ c3 ^ key_1, low
        key_0, key_1 = (key_0 + _WEYL_0) & _LOW, (key_1 + _WEYL_1) & _LOW
    return c0 & _LOW, c1 & _LOW, c2 & _LOW, c3 & _LOW
