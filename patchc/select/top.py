"""The exact top-k of a streamed tensor's scores among its retained entries.

Scores are read twice to find the cut, once more to mark the entries; a fourth time only where a
run of equal scores straddles the cut, to count them by chunk. Memory does not depend on the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from patchc.errors import NumericError
from patchc.kernels import topk
from patchc.kernels.topk import Bits, Retention, TopThreshold
from patchc.stream import Chunk, Workers

ReadBits = Callable[[Chunk], Bits]
"""Reads a chunk's fp32 scores as uint32; safe to call from several threads."""


@dataclass(frozen=True)
class TopSet:
    """A top set of one tensor: membership of any chunk can be computed on its own."""

    retention: Retention
    threshold: TopThreshold
    ties_before: tuple[int, ...]

    def mark(self, bits: Bits, chunk: Chunk, mask: NDArray[np.bool_]) -> None:
        """Write into ``mask`` which of the chunk's entries are in the set."""
        taken = self.ties_before[chunk.number] if self.ties_before else 0
        left = max(0, self.threshold.ties - taken)
        topk.mark_top(bits, chunk.first, self.retention, self.threshold, left, mask)


def find_top_set(
    read: ReadBits,
    chunks: list[Chunk],
    share: float,
    retention: Retention,
    workers: Workers,
) -> TopSet:
    """Find the min(floor(share · entries), retained) highest-scored of the retained entries.

    Ties go to the lower flat index. ``share`` is taken of all entries of the tensor, in float64.

    Raises:
        NumericError: a score is negative or not finite; gives its flat index.
    """
    count = math.floor(share * sum(chunk.count for chunk in chunks))
    run = workers.map if len(chunks) > 1 else map
    high_bins = sum(run(lambda chunk: _count_high(read, chunk, retention), chunks), _no_bins())
    count = min(count, int(high_bins.sum()))
    if count == 0:
        return TopSet(retention, topk.NOTHING, ())
    high, above = topk.find_bin(high_bins, count)
    low_bins = sum(run(lambda chunk: _count_low(read, chunk, retention, high), chunks), _no_bins())
    low, above_low = topk.find_bin(low_bins, count - above)
    threshold = TopThreshold(
        key=high * topk.LOW_BINS + low,
        ties=count - above - above_low,
        available_ties=int(low_bins[low]),
    )
    if threshold.ties == threshold.available_ties or len(chunks) == 1:
        return TopSet(retention, threshold, ())
    ties = run(
        lambda chunk: topk.count_ties(read(chunk), chunk.first, retention, threshold), chunks
    )
    return TopSet(retention, threshold, tuple(accumulate(ties, initial=0)))


def _no_bins() -> NDArray[np.int64]:
    return np.zeros(1, np.int64)


def _count_high(read: ReadBits, chunk: Chunk, retention: Retention) -> NDArray[np.int64]:
    bins = np.zeros(topk.HIGH_BINS, np.int64)
    bits = read(chunk)
    fault = topk.count_high(bits, chunk.first, retention, bins)
    if fault >= 0:
        score = bits[fault : fault + 1].view(np.float32)[0]
        raise NumericError(
            f"the score at flat index {chunk.first + fault} is {score}; scores must be finite and "
            "not negative"
        )
    return bins


def _count_low(read: ReadBits, chunk: Chunk, retention: Retention, high: int) -> NDArray[np.int64]:
    bins = np.zeros(topk.LOW_BINS, np.int64)
    topk.count_low(read(chunk), chunk.first, retention, high, bins)
    return bins
