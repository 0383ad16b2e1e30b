"""Exact top-k of non-negative scores among the retained entries, by radix select.

A non-negative fp32 score orders as its bits do. Two histogram passes, over the upper 16 and the
lower 15 bits, find the k-th largest key exactly; a third pass marks the entries. No sort; constant
memory; any tile size. Ties go to the lower flat index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, compiled, kernel
from patchc.kernels.philox.cpu import KEEP_ALL, Retention, fill_draws
from patchc.simd import bit_length

HIGH_BINS = 1 << 16
LOW_BINS = 1 << 15
_LOW_BITS = np.uint32(15)
LARGEST_FINITE = np.uint32(0x7F7FFFFF)
NEGATIVE_ZERO = np.uint32(0x80000000)
MAGNITUDE = np.uint32(0x7FFFFFFF)
NEVER_KEPT = np.uint32(0xFFFFFFFF)
"""A draw that no threshold keeps but the one that keeps everything."""
_TILE = 4096
_KEY_BITS = 31
_ROW_BINS = 1 << 8

Bits = NDArray[np.uint32]


@dataclass(frozen=True)
class TopThreshold:
    """The cut of an exact top-k: keys above ``key`` are in, and the first ``ties`` equal to it."""

    key: int
    ties: int
    available_ties: int


NOTHING = TopThreshold(key=1 << 31, ties=0, available_ties=0)
"""The threshold of an empty selection: above every key."""


def top_mask_oracle(
    scores: NDArray[np.float32], retained: NDArray[np.bool_], count: int
) -> NDArray[np.bool_]:
    """The top ``count`` of the retained scores, by a stable sort; defines the selection."""
    candidates = np.flatnonzero(retained)
    order = np.argsort(-scores[candidates], kind="stable")
    mask = np.zeros(scores.shape, np.bool_)
    mask[candidates[order[:count]]] = True
    return mask


def count_high(bits: Bits, first: int, retention: Retention, bins: NDArray[np.int64]) -> int:
    """Add the upper key halves of retained entries to ``bins`` (65536).

    Args:
        bits: fp32 scores of flat indices ``first`` on, as uint32.
        first: flat index of the first score in its tensor; a multiple of 4.

    Returns:
        The position in ``bits`` of the first score that is negative or not finite, or −1.
    """
    return _count_high(bits, first, *draw_arguments(retention), bins)


def count_low(
    bits: Bits, first: int, retention: Retention, high: int, bins: NDArray[np.int64]
) -> None:
    """Add the lower key halves of retained entries whose upper half is ``high`` to ``bins``."""
    _count_low(bits, first, *draw_arguments(retention), np.uint32(high), bins)


def find_bin(bins: NDArray[np.int64], count: int) -> tuple[int, int]:
    """The bin that holds the ``count``-th largest key, and how many keys lie in the bins above.

    ``count`` is at least 1 and at most the sum of ``bins``.
    """
    from_top = np.cumsum(bins[::-1])
    steps = int(np.searchsorted(from_top, count))
    above = int(from_top[steps - 1]) if steps else 0
    return len(bins) - 1 - steps, above


def mark_top(
    bits: Bits,
    first: int,
    retention: Retention,
    top: TopThreshold,
    ties: int,
    mask: NDArray[np.bool_],
) -> None:
    """Write into ``mask`` which entries are in the top set.

    Of the entries equal to the key, the first ``ties`` are.

    ``ties`` is what the chunks before have left of ``top.ties``.
    """
    _mark_top(bits, first, *draw_arguments(retention), np.uint32(top.key), ties, mask)


def find_fault(bits: Bits) -> int:
    """The position of the first score that is negative or not finite, or −1."""
    return int(_first_fault(bits))


def mark_top_rows(
    bits: Bits,
    first: int,
    row_length: int,
    count: int,
    retention: Retention,
    mask: NDArray[np.bool_],
) -> None:
    """Write into ``mask`` the top ``count`` retained entries of every row.

    Args:
        bits: whole rows of fp32 scores, one after another, as uint32; all finite, none negative.
        first: flat index of the first score; a multiple of ``row_length``.
        row_length: entries in a row.
        count: most entries taken from a row.
        retention: which entries may be taken.
        mask: as long as ``bits``.
    """
    _mark_top_rows(bits, first, row_length, count, *draw_arguments(retention), mask)


def count_ties(bits: Bits, first: int, retention: Retention, top: TopThreshold) -> int:
    """How many retained entries equal the key."""
    return _count_ties(bits, first, *draw_arguments(retention), np.uint32(top.key))


def draw_arguments(retention: Retention) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Seed, stream and threshold, as kernels take them."""
    return np.uint64(retention.seed), np.uint64(retention.stream), np.uint64(retention.threshold)


@kernel
def fill(
    seed: np.uint64, stream: np.uint64, threshold: np.uint64, first: int, draws: Bits
) -> np.uint32:
    """Fill ``draws`` for flat index ``first`` on; the answer is what a kept entry's draw is below.

    2³² does not fit the answer's word: where everything is kept, the draws are all 0 instead.
    """
    if threshold == np.uint64(KEEP_ALL):
        draws[:] = np.uint32(0)
        return np.uint32(1)
    fill_draws(seed, stream, first >> 2, draws)
    return np.uint32(threshold)


@compiled
def _count_high(
    bits: Bits,
    first: int,
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    bins: NDArray[np.int64],
) -> int:
    draws = np.empty(_TILE, np.uint32)
    for start in range(0, bits.size, _TILE):
        count = min(_TILE, bits.size - start)
        fault = _first_fault(bits[start : start + count])
        if fault >= 0:
            return start + fault
        limit = fill(seed, stream, threshold, first + start, draws)
        for i in range(count):
            key = bits[start + i] & MAGNITUDE
            bins[key >> _LOW_BITS] += draws[i] < limit
    return -1


@compiled
def _first_fault(bits: Bits) -> int:
    faulty = False
    for i in range(bits.size):
        faulty |= (bits[i] > LARGEST_FINITE) & (bits[i] != NEGATIVE_ZERO)
    if faulty:
        for i in range(bits.size):
            if bits[i] > LARGEST_FINITE and bits[i] != NEGATIVE_ZERO:
                return i
    return -1


@compiled
def _count_low(
    bits: Bits,
    first: int,
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    high: np.uint32,
    bins: NDArray[np.int64],
) -> None:
    draws = np.empty(_TILE, np.uint32)
    for start in range(0, bits.size, _TILE):
        limit = fill(seed, stream, threshold, first + start, draws)
        for i in range(min(_TILE, bits.size - start)):
            key = bits[start + i] & MAGNITUDE
            if key >> _LOW_BITS == high and draws[i] < limit:
                bins[key & np.uint32(LOW_BINS - 1)] += 1


@compiled
def _count_ties(
    bits: Bits,
    first: int,
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    top_key: np.uint32,
) -> int:
    draws = np.empty(_TILE, np.uint32)
    ties = 0
    for start in range(0, bits.size, _TILE):
        limit = fill(seed, stream, threshold, first + start, draws)
        for i in range(min(_TILE, bits.size - start)):
            ties += (bits[start + i] & MAGNITUDE == top_key) & (draws[i] < limit)
    return ties


@compiled
def _mark_top(
    bits: Bits,
    first: int,
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    top_key: np.uint32,
    ties: int,
    mask: NDArray[np.bool_],
) -> None:
    draws = np.empty(_TILE, np.uint32)
    for start in range(0, bits.size, _TILE):
        limit = fill(seed, stream, threshold, first + start, draws)
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


@compiled
def _mark_top_rows(
    bits: Bits,
    first: int,
    row_length: int,
    count: int,
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    mask: NDArray[np.bool_],
) -> None:
    draws = np.empty((row_length + 6) // 4 * 4, np.uint32)
    keys = np.empty(row_length, np.uint32)
    bins = np.empty(_ROW_BINS, np.int64)
    mask[:] = False
    for start in range(0, bits.size, row_length):
        lead = (first + start) & 3
        limit = fill(seed, stream, threshold, first + start, draws)
        kept = 0
        for i in range(row_length):
            keys[kept] = bits[start + i] & MAGNITUDE
            kept += draws[lead + i] < limit
        left = min(count, kept)
        if not left:
            continue
        cut, ties, _ = kth_largest(keys[:kept], 0, _KEY_BITS, left, bins)
        for i in range(row_length):
            key = bits[start + i] & MAGNITUDE
            if key >= cut and draws[lead + i] < limit and (key > cut or ties):
                mask[start + i] = True
                ties -= key == cut


@compiled
def kth_largest(
    keys: Bits, low: int, bits: int, rank: int, bins: NDArray[np.int64]
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
