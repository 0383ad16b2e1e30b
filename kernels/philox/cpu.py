"""Retention draws: Philox4x32-10, addressed by flat index, never by order of execution.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The 64-bit seed is the
key; the counter is (index div 4, stream); the lane is index mod 4. The same mask comes out for any
tile size, thread count or shard order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from patchc.jit import Integer, always_inline, compiled, kernel

_ROUND_0 = np.uint64(0xD2511F53)
_ROUND_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)

KEEP_ALL = 1 << 32
"""The threshold that keeps every entry."""


@dataclass(frozen=True)
class Retention:
    """Which entries of one tensor are retained for one component: those with a draw below.

    Attributes:
        seed: 64 bits.
        stream: of component and tensor (:func:`retention_stream`).
        threshold: 0 retains none, 2³² all.
    """

    seed: int
    stream: int
    threshold: int


def retention_threshold(retain: float) -> int:
    """The integer threshold for probability ``retain``: an entry is kept where its draw is below.

    round(p · 2³²), ties to even; 0 keeps nothing, 2³² everything.
    """
    return round(retain * KEEP_ALL)


def retention_stream(component: str, tensor: str) -> int:
    """The 64-bit stream of a component ("se", "osm") and a tensor name, from BLAKE3.

    The first 8 bytes, little-endian, of BLAKE3(component ‖ 0x00 ‖ name), both in UTF-8.
    """
    digest = blake3(component.encode() + b"\0" + tensor.encode()).digest(8)
    return int.from_bytes(digest, "little")


def draws_oracle(seed: int, stream: int, first: int, count: int) -> NDArray[np.uint32]:
    """The draws of flat indices first … first + count − 1, by plain NumPy."""
    index = np.arange(first, first + count, dtype=np.uint64)
    block = index >> np.uint64(2)
    c = [block & _LOW, block >> _WORD]
    c += [np.full(count, stream & 0xFFFFFFFF, np.uint64), np.full(count, stream >> 32, np.uint64)]
    key_0, key_1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    for _ in range(10):
        low, high = c[0] * _ROUND_0, c[2] * _ROUND_1
        c = [
            (high >> _WORD) ^ c[1] ^ key_0,
            high & _LOW,
            (low >> _WORD) ^ c[3] ^ key_1,
            low & _LOW,
        ]
        key_0, key_1 = (key_0 + _WEYL_0) & _LOW, (key_1 + _WEYL_1) & _LOW
    lanes = np.stack(c).astype(np.uint32)
    draws: NDArray[np.uint32] = lanes[index & np.uint64(3), np.arange(count)]
    return draws


@compiled
def add_kept(
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    first: int,
    weight: np.uint8,
    sums: NDArray[np.uint8],
) -> None:
    """Add ``weight`` to the sums of the entries that a mask keeps, four entries at a time.

    Args:
        seed, stream, threshold: of the mask.
        first: flat index of the first sum; a multiple of 4.
        weight: what to add.
        sums: one an entry; they stay below 256.
    """
    if threshold == np.uint64(0):
        return
    last = threshold - np.uint64(1)
    quads = sums[: sums.size >> 2 << 2].view(np.uint32)
    block = np.uint64(first >> 2)
    one = np.uint32(weight)
    for i in range(quads.size):
        draws = _four_draws(seed, stream, block + np.uint64(i))
        kept = np.uint32(0)
        if draws[0] <= last:
            kept |= one
        if draws[1] <= last:
            kept |= one << np.uint32(8)
        if draws[2] <= last:
            kept |= one << np.uint32(16)
        if draws[3] <= last:
            kept |= one << np.uint32(24)
        quads[i] += kept
    for i in range(quads.size << 2, sums.size):
        draws = _four_draws(seed, stream, block + np.uint64(quads.size))
        sums[i] += weight if draws[i & 3] <= last else np.uint8(0)


@kernel
def fill_draws(
    seed: np.uint64, stream: np.uint64, first_block: int, draws: NDArray[np.uint32]
) -> None:
    """Fill ``draws`` (a multiple of 4 long) with the draws of flat index 4 · ``first_block`` on."""
    for i in range(draws.size >> 2):
        four = _four_draws(seed, stream, np.uint64(first_block + i))
        for lane in range(4):
            draws[4 * i + lane] = np.uint32(four[lane])


@always_inline
def _four_draws(
    seed: Integer, stream: Integer, block: Integer
) -> tuple[Integer, Integer, Integer, Integer]:
    """The draws of flat index 4 · ``block`` on, below 2³²."""
    c0, c1, c2, c3 = block & _LOW, block >> _WORD, stream & _LOW, stream >> _WORD
    key_0, key_1 = seed & _LOW, seed >> _WORD
    for _ in range(10):
        low, high = (c0 & _LOW) * _ROUND_0, (c2 & _LOW) * _ROUND_1
        c0, c1 = (high >> _WORD) ^ c1 ^ key_0, high
        c2, c3 = (low >> _WORD) ^ c3 ^ key_1, low
        key_0, key_1 = (key_0 + _WEYL_0) & _LOW, (key_1 + _WEYL_1) & _LOW
    return c0 & _LOW, c1 & _LOW, c2 & _LOW, c3 & _LOW
