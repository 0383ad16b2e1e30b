"""Finds the top set of streamed scores by histograms, in one tensor or over several.

Two passes over the scores find the cut and a third selects the entries. If equal scores straddle
the cut, another pass counts them by chunk. Memory does not depend on the size of the tensors.
:mod:`patchc.selection.topk.search` is the usual way, with fewer passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import ThreadBuffer
from patchc.chunks import Chunk, pieces
from patchc.errors import NumericError
from patchc.kernels.bitmask import Bitmask, pack
from patchc.kernels.philox import Retention
from patchc.kernels.topk import cpu as topk
from patchc.kernels.topk.cpu import Bits, TopThreshold
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.runtime import Runtime

Bins = NDArray[np.int64]
Piece = tuple[Chunk, Bits]
"""A run of entries and their scores."""


@dataclass(frozen=True)
class ScoredTensor:
    """Scores that can be read again and again.

    Attributes:
        source: the file and the tensor, for messages.
        read: reads the bits of a chunk's fp32 scores, or of any other run that starts at a multiple
            of 4; called from several threads.
        chunks: the tensor's grid.
        ranked: the entries that are ranked.
        scan: reads a chunk of the grid piece by piece; all pieces but the last have a multiple of
            32 entries. Every chunk is scanned to its end at least once. None means to use ``read``.
    """

    source: str
    read: Callable[[Chunk], Bits]
    chunks: Sequence[Chunk]
    ranked: Retention
    scan: Callable[[Chunk], Iterator[Piece]] | None = None

    def pieces(self, chunk: Chunk) -> Iterator[Piece]:
        """Scan a chunk of the grid."""
        if self.scan is not None:
            return self.scan(chunk)
        return ((piece, self.read(piece)) for piece in pieces(chunk))

    @property
    def words(self) -> int:
        """Number of scores."""
        return sum(chunk.count for chunk in self.chunks)


@dataclass(frozen=True)
class TopSet:
    """The top set within one tensor, for which any chunk's entries can be computed alone.

    ``bitmasks`` has one bitmask per chunk if they are known already; then no score is read again.
    """

    ranked: Retention
    threshold: TopThreshold
    ties_before: tuple[int, ...] = ()
    bitmasks: tuple[Bitmask, ...] | None = None

    def bitmask(self, chunk: Chunk, read: Callable[[Chunk], Bits], buffer: ThreadBuffer) -> Bitmask:
        """The chunk's entries in the set; ``read`` gives its scores if they are needed."""
        if self.bitmasks is not None:
            return self.bitmasks[chunk.number]
        taken = self.ties_before[chunk.number] if self.ties_before else 0
        left = max(0, self.threshold.ties - taken)
        mask: NDArray[np.bool_] = buffer(chunk.count, np.bool_)
        topk.mark_top(read(chunk), chunk.first, self.ranked, self.threshold, left, mask)
        return pack(mask)


def find_by_histograms(
    tensors: Sequence[ScoredTensor], count: int, runtime: Runtime, ranks: Ranks = ALONE
) -> list[TopSet]:
    """Find the top sets; :class:`patchc.selection.topk.search.TopSearch` has the contract."""
    jobs = [(tensor, chunk) for tensor in tensors for chunk in tensor.chunks]
    run = runtime.map if len(jobs) > 1 else map
    high_bins = ranks.sum(
        "upper bits", lambda: _sum(run(lambda job: _count_high(job[0], job[1]), jobs))
    )
    count = min(count, int(high_bins.sum()))
    if count == 0:
        return [TopSet(tensor.ranked, topk.NOTHING) for tensor in tensors]
    high, above = topk.find_bin(high_bins, count)
    low_bins = ranks.sum(
        "lower bits", lambda: _sum(run(lambda job: _count_low(job[0], job[1], high), jobs))
    )
    low, above_low = topk.find_bin(low_bins, count - above)
    threshold = TopThreshold(
        key=high * topk.LOW_BINS + low,
        ties=count - above - above_low,
        available_ties=int(low_bins[low]),
    )
    if threshold.ties == threshold.available_ties or len(jobs) == ranks.size == 1:
        return [TopSet(tensor.ranked, threshold) for tensor in tensors]
    ties = list(run(lambda job: _count_ties(job[0], job[1], threshold), jobs))
    before = list(accumulate(ties, initial=ranks.before("ties", sum(ties))))
    ends = accumulate((len(tensor.chunks) for tensor in tensors), initial=0)
    return [
        TopSet(tensor.ranked, threshold, tuple(before[end : end + len(tensor.chunks)]))
        for tensor, end in zip(tensors, ends, strict=False)
    ]


def check_scores(bits: Bits, chunk: Chunk, source: str) -> None:
    """Check that the scores of a chunk are finite and not negative.

    Raises:
        NumericError: one is not; names the source and the flat index.
    """
    fault = topk.find_fault(bits)
    if fault >= 0:
        score = bits[fault : fault + 1].view(np.float32)[0]
        raise NumericError(
            f"{source}: the score at flat index {chunk.first + fault} is {score}; scores must be "
            "finite and not negative"
        )


def _sum(counts: Iterable[Bins]) -> Bins:
    return sum(counts, np.zeros(1, np.int64))


def _count_high(tensor: ScoredTensor, chunk: Chunk) -> Bins:
    bins = np.zeros(topk.HIGH_BINS, np.int64)
    for piece, bits in tensor.pieces(chunk):
        if topk.count_high(bits, piece.first, tensor.ranked, bins) >= 0:
            check_scores(bits, piece, tensor.source)
    return bins


def _count_low(tensor: ScoredTensor, chunk: Chunk, high: int) -> Bins:
    bins = np.zeros(topk.LOW_BINS, np.int64)
    for piece in pieces(chunk):
        topk.count_low(tensor.read(piece), piece.first, tensor.ranked, high, bins)
    return bins


def _count_ties(tensor: ScoredTensor, chunk: Chunk, threshold: TopThreshold) -> int:
    return sum(
        topk.count_ties(tensor.read(piece), piece.first, tensor.ranked, threshold)
        for piece in pieces(chunk)
    )
