"""Finds top sets in one pass over the scores, by a bracket around the cut from a sample.

The sample decides what the pass costs and never what it finds: where the cut turns out to lie
elsewhere, or too many scores lie near it, histograms find it (``histogram_search.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
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
    Collected,
    collect,
    find_bracket,
    join,
    mark_listed,
    sample_keys,
)
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.selection.topk.histogram_search import (
    ScoredTensor,
    TopSet,
    check_scores,
    find_by_histograms,
)

_SMALL = 1 << 16
"""Up to so many entries, all are listed and no sample is drawn."""
_RUN = 128
_ENTRIES_PER_RUN = 1 << 16
_LEAST_RUNS = 64
_MOST_LISTED = 1 << 22
_LISTED_SHARE = 4
"""Of a chunk, at most one entry in so many is listed, as long as that is not few."""
_BINS = 1 << 11
_MOST_MARKED = 1 << 27
"""Entries whose marks are kept, one bit each; where there are more, they are marked anew."""


def find_top_sets(
    tensors: Sequence[ScoredTensor], count: int, workers: Workers, ranks: Ranks = ALONE
) -> list[TopSet]:
    """Find the min(count, ranked) highest-scored entries of several tensors taken together.

    Equal scores go to the earlier tensor, then to the lower flat index. The tensors of all ranks
    are taken together, those of lower ranks first; each rank gets the sets in its own.

    Raises:
        NumericError: a score is negative or not finite; names the tensor and the flat index.
    """
    return TopSearch(tensors, count, workers, ranks).result()


def expected_reads(words: int) -> int:
    """How often a search over so many entries, and the marking of what it finds, read them."""
    return 1 if words <= _MOST_MARKED else 2


Counts = NDArray[np.int64]


@dataclass
class _Pass:
    """One chunk's share of the pass."""

    tensor: ScoredTensor
    chunk: Chunk
    marks: Bitmask | None


class TopSearch:
    """A search for top sets, under way on worker threads; as :func:`find_top_sets`."""

    def __init__(
        self,
        tensors: Sequence[ScoredTensor],
        count: int,
        workers: Workers,
        ranks: Ranks = ALONE,
    ) -> None:
        self._tensors = tensors
        self._count = count
        self._workers = workers
        self._team = ranks
        own = sum(tensor.words for tensor in tensors)
        self._words = int(ranks.sum("entries", lambda: np.array([own]))[0])
        self._listed = 0
        self._lock = threading.Lock()
        self._jobs: list[_Pass] = []
        self._futures: list[Future[Collected]] = []
        bracket = Bracket() if self._words <= _SMALL else self._sample()
        self._bracket = bracket or Bracket()
        self._has_bracket = bracket is not None
        if bracket:
            keeps = expected_reads(own) == 1
            self._jobs = [
                _Pass(tensor, chunk, _blank(chunk) if keeps else None)
                for tensor in tensors
                for chunk in tensor.chunks
            ]
            self._futures = workers.submit(self._collect, self._jobs)

    def result(self) -> list[TopSet]:
        """Wait for the top sets.

        Raises:
            NumericError: as :func:`find_top_sets`.
        """
        found = self._settle() if self._has_bracket else None
        if found is not None:
            return found
        return find_by_histograms(self._tensors, self._count, self._workers, self._team)

    def _sample(self) -> Bracket | None:
        """A bracket around the cut; None where a pass would list too much."""
        drawn = [
            _unpack(part)
            for part in self._team.gather("sample", lambda: _pack(*self._sample_own()))
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
        """How many entries were drawn, how many keys each run gave, and the keys."""
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

    def _collect(self, job: _Pass) -> Collected:
        room = min(job.chunk.count, max(_SMALL, job.chunk.count // _LISTED_SHARE))
        room = room if self._listed <= _MOST_LISTED else 0
        parts: list[tuple[int, Collected]] = []
        left = room
        for piece, bits in job.tensor.pieces(job.chunk):
            start = piece.first - job.chunk.first
            marks = sets.run_of(job.marks, start, piece.count) if job.marks is not None else None
            found = collect(
                bits, piece.first, job.tensor.ranked, self._bracket, min(left, piece.count), marks
            )
            if found.fault:
                check_scores(bits, piece, job.tensor.source)
            parts.append((start, found))
            if found.keys is None:
                break
            left -= found.keys.size
        whole = join(parts)
        with self._lock:
            self._listed += room if whole.keys is None else whole.keys.size
        return whole

    def _settle(self) -> list[TopSet] | None:
        """The top sets, if the pass has found the cut inside the bracket."""
        collected: list[Collected] = []

        def collect_own() -> bytes:
            collected.extend(future.result() for future in self._futures)
            listed = [one.keys for one in collected if one.keys is not None]
            left_out = len(collected) - len(listed)
            totals = [left_out, sum(c.ranked for c in collected), sum(c.sure for c in collected)]
            return _pack(np.array(totals), np.concatenate([np.empty(0, np.uint32), *listed]))

        parts = [_unpack(part) for part in self._team.gather("bracket", collect_own)]
        left_out, ranked, sure = np.sum([totals for totals, _ in parts], axis=0).tolist()
        count = min(self._count, ranked)
        rank = count - sure
        every = parts[0][1] if len(parts) == 1 else np.concatenate([keys for _, keys in parts])
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
            earlier = sum(_equal(keys, threshold) for _, keys in parts[: self._team.rank])
            own = (_equal(one.keys, threshold) for one in collected)
            before = list(accumulate(own, initial=earlier))
        for number, (job, one) in enumerate(zip(self._jobs, collected, strict=True)):
            if job.marks is not None and one.keys is not None and one.positions is not None:
                ties = max(0, threshold.ties - before[number]) if before else threshold.ties
                mark_listed(job.marks, one.positions, one.keys, np.uint32(threshold.key), ties)
        return self._top_sets(threshold, before)

    def _top_sets(self, threshold: TopThreshold, before: list[int]) -> list[TopSet]:
        tops, end = [], 0
        for tensor in self._tensors:
            start, end = end, end + len(tensor.chunks)
            marks = _all_marks(self._jobs[start:end])
            tops.append(TopSet(tensor.ranked, threshold, tuple(before[start:end]), marks))
        return tops


def _pack(counts: Counts, keys: Bits) -> bytes:
    head = np.array([counts.size], np.int64)
    return b"".join([head.tobytes(), counts.astype(np.int64).data, keys.data])


def _unpack(part: bytes) -> tuple[Counts, Bits]:
    size = int(np.frombuffer(part, np.int64, 1)[0])
    end = 8 * (1 + size)
    return np.frombuffer(part, np.int64, size, 8), np.frombuffer(part, np.uint32, -1, end)


def _equal(keys: Bits | None, threshold: TopThreshold) -> int:
    return 0 if keys is None else int(np.count_nonzero(keys == threshold.key))


def _blank(chunk: Chunk) -> Bitmask:
    return np.empty(sets.words_for(chunk.count), np.uint32)


def _all_marks(jobs: Iterable[_Pass]) -> tuple[Bitmask, ...] | None:
    found = tuple(job.marks for job in jobs if job.marks is not None)
    return found or None


def _read_runs(tensor: ScoredTensor, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of scores at even distances, and their first flat indices."""
    length = min(_RUN, tensor.words)
    firsts = np.linspace(0, tensor.words - length, runs).astype(np.int64) & ~3
    bits = np.empty((runs, length), np.uint32)
    for run, first in zip(bits, firsts.tolist(), strict=True):
        run[:] = tensor.read(Chunk(0, first, length))
    return bits, firsts
