"""Finds top sets in one pass over the scores, with a bracket around the cut taken from a sample.

The pass lists the scores inside the bracket. If the cut lies outside, or too many scores lie
inside, histograms find it (``histogram_search.py``). So the sample decides the cost and never the
outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from patchc.chunks import Chunk
from patchc.kernels import bitmask as sets
from patchc.kernels.bitmask import Bitmask
from patchc.kernels.topk.cpu import NOTHING, Bits, TopThreshold, kth_largest
from patchc.kernels.topk.sampled import (
    Bracket,
    ChunkCut,
    cut_chunk,
    find_bracket,
    join,
    mark_listed,
    sample_keys,
)
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.runtime import Runtime
from patchc.selection.topk.histogram_search import (
    ScoredTensor,
    TopSet,
    check_scores,
    find_by_histograms,
)

_SMALL = 1 << 16
"""Up to this many entries, all are listed and no sample is drawn."""
_RUN = 128
_ENTRIES_PER_RUN = 1 << 16
_LEAST_RUNS = 64
_MOST_LISTED = 1 << 22
_LISTED_SHARE = 4
"""At most one entry in this many is listed in a large chunk."""
_BINS = 1 << 11
_MOST_IN_BITMASKS = 1 << 27
"""The most entries whose bitmasks are held; with more, each is computed when asked for."""


def expected_reads(words: int) -> int:
    """How often scores are read to find the top set and to give its bitmasks."""
    return 1 if words <= _MOST_IN_BITMASKS else 2


Counts = NDArray[np.int64]


@dataclass
class _Pass:
    """The pass over one chunk."""

    tensor: ScoredTensor
    chunk: Chunk
    bitmask: Bitmask | None


class TopSearch:
    """A running search for the min(count, ranked) highest-scored entries of several tensors.

    Equal scores go to the earlier tensor, then to the lower flat index. The tensors of all ranks
    are taken together, those of lower ranks first; each rank gets the sets in its own.
    """

    def __init__(
        self,
        tensors: Sequence[ScoredTensor],
        count: int,
        runtime: Runtime,
        ranks: Ranks = ALONE,
    ) -> None:
        self._tensors = tensors
        self._count = count
        self._runtime = runtime
        self._ranks = ranks
        own = sum(tensor.words for tensor in tensors)
        self._words = int(ranks.sum("entries", lambda: np.array([own]))[0])
        self._listed = 0
        self._lock = threading.Lock()
        bracket = Bracket() if self._words <= _SMALL else self._sample()
        self._bracket = bracket or Bracket()
        self._jobs: list[_Pass] = []
        self._futures: list[Future[ChunkCut]] | None = None
        if bracket:
            in_bitmasks = expected_reads(own) == 1
            self._jobs = [
                _Pass(
                    tensor,
                    chunk,
                    np.empty(sets.words_for(chunk.count), np.uint32) if in_bitmasks else None,
                )
                for tensor in tensors
                for chunk in tensor.chunks
            ]
            self._futures = runtime.submit(self._collect, self._jobs)

    def result(self) -> list[TopSet]:
        """Wait for the top set in each tensor.

        Raises:
            NumericError: a score is negative or not finite; names the tensor and the flat index.
        """
        found = None if self._futures is None else self._settle(self._futures)
        if found is not None:
            return found
        return find_by_histograms(self._tensors, self._count, self._runtime, self._ranks)

    def _sample(self) -> Bracket | None:
        """A bracket around the cut; None if a pass would list too much."""
        drawn = [
            _unpack(message)
            for message in self._ranks.gather("sample", lambda: _pack(*self._sample_own()))
        ]
        every = np.concatenate([keys for _, keys in drawn])
        counts = np.concatenate([of_run[1:] for of_run, _ in drawn])
        sampled = sum(int(of_run[0]) for of_run, _ in drawn)
        scale = sampled / self._words
        bracket = find_bracket(every, counts, self._count * scale)
        inside = np.count_nonzero((every >= bracket.lower) & (every < bracket.upper))
        dense = inside * _LISTED_SHARE * 3 // 2 > sampled
        return None if dense or inside * 2 > _MOST_LISTED * scale else bracket

    def _sample_own(self) -> tuple[Counts, Bits]:
        """The number of entries drawn and of keys in each run, and the keys."""
        sampled, counts, keys = 0, [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
        runs = max(_LEAST_RUNS, self._words // _ENTRIES_PER_RUN)
        for tensor in self._tensors:
            if tensor.words:
                share = max(1, runs * tensor.words // self._words)
                drawn = _read_runs(tensor, share)
                sampled += drawn[0].size
                found, each = sample_keys(*drawn, tensor.ranked)
                keys.append(found)
                counts.append(each)
        return np.concatenate([[sampled], *counts]), np.concatenate(keys)

    def _collect(self, job: _Pass) -> ChunkCut:
        room = min(job.chunk.count, max(_SMALL, job.chunk.count // _LISTED_SHARE))
        room = room if self._listed <= _MOST_LISTED else 0
        collected: list[tuple[int, ChunkCut]] = []
        left = room
        for piece, bits in job.tensor.pieces(job.chunk):
            start = piece.first - job.chunk.first
            bitmask = None
            if job.bitmask is not None:
                bitmask = sets.run_of(job.bitmask, start, piece.count)
            found = cut_chunk(
                bits, piece.first, job.tensor.ranked, self._bracket, min(left, piece.count), bitmask
            )
            if found.fault:
                check_scores(bits, piece, job.tensor.source)
            collected.append((start, found))
            if found.keys is None:
                break
            left -= found.keys.size
        whole = join(collected)
        with self._lock:
            self._listed += room if whole.keys is None else whole.keys.size
        return whole

    def _settle(self, futures: list[Future[ChunkCut]]) -> list[TopSet] | None:
        """The top sets, if the pass has found the cut inside the bracket."""
        collected: list[ChunkCut] = []

        def collect_own() -> bytes:
            collected.extend(future.result() for future in futures)
            listed = [one.keys for one in collected if one.keys is not None]
            left_out = len(collected) - len(listed)
            totals = [left_out, sum(c.ranked for c in collected), sum(c.above for c in collected)]
            return _pack(np.array(totals), np.concatenate([np.empty(0, np.uint32), *listed]))

        found_by_rank = [_unpack(message) for message in self._ranks.gather("bracket", collect_own)]
        left_out, ranked, above = np.sum([totals for totals, _ in found_by_rank], axis=0).tolist()
        count = min(self._count, ranked)
        rank = count - above
        of_ranks = [keys for _, keys in found_by_rank]
        every = of_ranks[0] if len(of_ranks) == 1 else np.concatenate(of_ranks)
        if left_out or not 0 <= rank <= every.size:
            return None
        if not count:
            threshold = NOTHING
        elif not rank:
            threshold = TopThreshold(self._bracket.upper - 1, 0, 0)
        else:
            lower, upper = self._bracket.lower, self._bracket.upper
            bins = np.empty(_BINS, np.int64)
            found = kth_largest(every, lower, (upper - lower - 1).bit_length(), rank, bins)
            threshold = TopThreshold(*map(int, found))
        before: list[int] = []
        if threshold.ties < threshold.available_ties:
            earlier = sum(_equal(keys, threshold) for _, keys in found_by_rank[: self._ranks.rank])
            own = (_equal(one.keys, threshold) for one in collected)
            before = list(accumulate(own, initial=earlier))
        for number, (job, one) in enumerate(zip(self._jobs, collected, strict=True)):
            if job.bitmask is not None and one.keys is not None and one.positions is not None:
                ties = max(0, threshold.ties - before[number]) if before else threshold.ties
                mark_listed(job.bitmask, one.positions, one.keys, np.uint32(threshold.key), ties)
        return self._top_sets(threshold, before)

    def _top_sets(self, threshold: TopThreshold, before: list[int]) -> list[TopSet]:
        tops, end = [], 0
        for tensor in self._tensors:
            start, end = end, end + len(tensor.chunks)
            own = [job.bitmask for job in self._jobs[start:end]]
            bitmasks = tuple(one for one in own if one is not None) or None
            tops.append(TopSet(tensor.ranked, threshold, tuple(before[start:end]), bitmasks))
        return tops


def _pack(counts: Counts, keys: Bits) -> bytes:
    head = np.array([counts.size], np.int64)
    return b"".join([head.tobytes(), counts.astype(np.int64).data, keys.data])


def _unpack(message: bytes) -> tuple[Counts, Bits]:
    size = int(np.frombuffer(message, np.int64, 1)[0])
    end = 8 * (1 + size)
    return np.frombuffer(message, np.int64, size, 8), np.frombuffer(message, np.uint32, -1, end)


def _equal(keys: Bits | None, threshold: TopThreshold) -> int:
    return 0 if keys is None else int(np.count_nonzero(keys == threshold.key))


def _read_runs(tensor: ScoredTensor, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of scores at even distances, and their first flat indices."""
    length = min(_RUN, tensor.words)
    firsts = np.linspace(0, tensor.words - length, runs).astype(np.int64) & ~3
    bits = np.empty((runs, length), np.uint32)
    for run, first in zip(bits, firsts.tolist(), strict=True):
        run[:] = tensor.read(Chunk(0, first, length))
    return bits, firsts
