"""Exact top-k of non-negative scores among the retained entries, by radix select.

A non-negative fp32 score orders as its bits do. Two histogram passes, over the upper 16 and the
lower 15 bits, find the k-th largest key exactly; a third pass marks the entries. No sort; constant
memory; any tile size. Of equal scores, those of lower flat index are taken.

In every loop, ``bits`` are fp32 scores as uint32, of flat indices ``first`` on, a multiple of 4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, allocating_loop, loop
from patchc.kernels.philox import Retention
from patchc.kernels.philox.cpu import draw_tile
from patchc.simd import bit_length

HIGH_BINS = 1 << 16
LOW_BINS = 1 << 15
_LOW_BITS = np.uint32(15)
LARGEST_FINITE = np.uint32(0x7F7FFFFF)
NEGATIVE_ZERO = np.uint32(0x80000000)
MAGNITUDE = np.uint32(0x7FFFFFFF)
_TILE = 4096
_KEY_BITS = 31
_ROW_BINS = 1 << 8

Bits = NDArray[np.uint32]
Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]


class TopThreshold(NamedTuple):
    """The cut of an exact top-k: keys above ``key`` are in, and the first ``ties`` equal to it."""

    key: int
    ties: int
    available_ties: int


NOTHING = TopThreshold(key=1 << 31, ties=0, available_ties=0)
"""The threshold of an empty selection: above every key."""


@allocating_loop
def count_high(bits: Bits, first: int, retention: Retention, bins: Counts) -> int:
    """Add the upper key halves of retained entries to ``bins`` (65536).

    Returns:
        The position in ``bits`` of the first score that is negative or not finite, or −1.
    """
    draws = np.empty(_TILE, np.uint32)
    for start in range(0, bits.size, _TILE):
        count = min(_TILE, bits.size - start)
        fault = find_fault(bits[start : start + count])
        if fault >= 0:
            return start + fault
        limit = draw_tile(retention, first + start, draws)
        for i in range(count):
            key = bits[start + i] & MAGNITUDE
            bins[key >> _LOW_BITS] += draws[i] < limit
    return -1


@loop
def find_fault(bits: Bits) -> int:
    """The position of the first score that is negative or not finite, or −1."""
    faulty = False
    for i in range(bits.size):
        faulty |= (bits[i] > LARGEST_FINITE) & (bits[i] != NEGATIVE_ZERO)
    if faulty:
        for i in range(bits.size):
            if bits[i] > LARGEST_FINITE and bits[i] != NEGATIVE_ZERO:
                return i
    return -1


@allocating_loop
def count_low(bits: Bits, first: int, retention: Retention, high: int, bins: Counts) -> None:
    """Add the lower key halves of retained entries whose upper half is ``high`` to ``bins``."""
    draws, upper = np.empty(_TILE, np.uint32), np.uint32(high)
    for start in range(0, bits.size, _TILE):
        limit = draw_tile(retention, first + start, draws)
        for i in range(min(_TILE, bits.size - start)):
            key = bits[start + i] & MAGNITUDE
            if key >> _LOW_BITS == upper and draws[i] < limit:
                bins[key & np.uint32(LOW_BINS - 1)] += 1


def find_bin(bins: Counts, count: int) -> tuple[int, int]:
    """The bin that holds the ``count``-th largest key, and how many keys lie in the bins above.

    ``count`` is at least 1 and at most the sum of ``bins``.
    """
    from_top = np.cumsum(bins[::-1])
    steps = int(np.searchsorted(from_top, count))
    above = int(from_top[steps - 1]) if steps else 0
    return len(bins) - 1 - steps, above


@allocating_loop
def count_ties(bits: Bits, first: int, retention: Retention, top: TopThreshold) -> int:
    """How many retained entries equal the threshold's key."""
    draws, top_key = np.empty(_TILE, np.uint32), np.uint32(top.key)
    ties = 0
    for start in range(0, bits.size, _TILE):
        limit = draw_tile(retention, first + start, draws)
        for i in range(min(_TILE, bits.size - start)):
            ties += (bits[start + i] & MAGNITUDE == top_key) & (draws[i] < limit)
    return ties


@allocating_loop
def mark_top(
    bits: Bits, first: int, retention: Retention, top: TopThreshold, ties: int, mask: Mask
) -> None:
    """Write into ``mask`` which entries are in the top set.

    Of the entries equal to the key, the first ``ties`` are: what earlier chunks have left of
    ``top.ties``.
    """
    draws, top_key = np.empty(_TILE, np.uint32), np.uint32(top.key)
    for start in range(0, bits.size, _TILE):
        limit = draw_tile(retention, first + start, draws)
        count = min(_TILE, bits.size - start)
        equal = 0
        for i in range(count):
            key = bits[start + i] & MAGNITUDE
            mask[start + i] = (key > top_key) & (draws[i] < limit)
            equal += key == top_key
        if not equal or not ties:
            continue
        for i in range(count):
            if ties and bits[start + i] & MAGNITUDE == top_key and draws[i] < limit:
                mask[start + i] = True
                ties -= 1


@allocating_loop
def mark_top_rows(
    bits: Bits, first: int, row_length: int, count: int, retention: Retention, mask: Mask
) -> None:
    """Write into ``mask`` the top ``count`` retained entries of every row.

    Args:
        bits: whole rows of scores, one after another; all finite, none negative.
        first: flat index of the first score; a multiple of ``row_length``.
        row_length: entries in a row.
        count: most entries taken from a row.
        retention: which entries may be taken.
        mask: as long as ``bits``.
    """
    draws = np.empty((row_length + 6) // 4 * 4, np.uint32)
    keys = np.empty(row_length, np.uint32)
    bins = np.empty(_ROW_BINS, np.int64)
    mask[:] = False
    for start in range(0, bits.size, row_length):
        lead = (first + start) & 3
        limit = draw_tile(retention, first + start, draws)
        ranked = 0
        for i in range(row_length):
            keys[ranked] = bits[start + i] & MAGNITUDE
            ranked += draws[lead + i] < limit
        left = min(count, ranked)
        if not left:
            continue
        cut, ties, _ = kth_largest(keys[:ranked], 0, _KEY_BITS, left, bins)
        for i in range(row_length):
            key = bits[start + i] & MAGNITUDE
            if key >= cut and draws[lead + i] < limit and (key > cut or ties):
                mask[start + i] = True
                ties -= key == cut


@loop
def kth_largest(
    keys: Bits, low: int, bits: int, rank: int, bins: Counts
) -> tuple[Integer, Integer, Integer]:
    """The ``rank``-th largest key, how many equal to it are among those ranks, and how many are.

    Args:
        keys: from ``low`` to below ``low + 2**bits``.
        low, bits: where the keys lie.
        rank: at least 1, at most as many as there are keys.
        bins: scratch; of a power of two, whose logarithm is how many bits a pass settles.
    """
    digit_bits = bit_length(np.uint64(bins.size - 1))
    left, start = rank, np.uint64(low)
    while True:
        low_bits = max(bits - digit_bits, 0)
        digit = (1 << (bits - low_bits)) - 1
        bins[:] = 0
        for i in range(keys.size):
            at = (np.uint64(keys[i]) - start) >> np.uint64(low_bits)
            if at <= np.uint64(digit):
                bins[at] += 1
        while bins[digit] < left:
            left -= bins[digit]
            digit -= 1
        start += np.uint64(digit) << np.uint64(low_bits)
        if not low_bits:
            return np.int64(start), left, bins[digit]
        bits = low_bits
