"""Retention: which entries of a tensor random draws retain, the same whoever draws and when.

A draw is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) at
an entry's flat index. The 64-bit seed is the key; the counter is (index div 4, stream); the lane is
index mod 4. So the same mask comes out for any tile size, thread count or order of shards.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from blake3 import blake3

KEEP_ALL = 1 << 32
"""The threshold that retains every entry."""


class _Numbers(NamedTuple):
    seed: np.uint64
    stream: np.uint64
    threshold: np.uint64


class Retention(_Numbers):
    """Which entries of one tensor are retained for one component; compiled loops take it too.

    Args:
        seed: 64 bits.
        stream: of component and tensor (:func:`retention_stream`).
        threshold: entries with a draw below it are retained: 0 retains none, 2³² all.
    """

    __slots__ = ()

    def __new__(  # noqa: D102
        cls, seed: int | np.uint64, stream: int | np.uint64, threshold: int
    ) -> Retention:
        return super().__new__(cls, np.uint64(seed), np.uint64(stream), np.uint64(threshold))


def retention_threshold(retain: float) -> int:
    """The threshold for a probability of being retained: round(p · 2³²), ties to even."""
    return round(retain * KEEP_ALL)


def retention_stream(component: str, tensor: str) -> int:
    """The 64-bit stream of a component ("se", "osm") and a tensor name, from BLAKE3.

    The first 8 bytes, little-endian, of BLAKE3(component ‖ 0x00 ‖ name), both in UTF-8.
    """
    digest = blake3(component.encode() + b"\0" + tensor.encode()).digest(8)
    return int.from_bytes(digest, "little")
