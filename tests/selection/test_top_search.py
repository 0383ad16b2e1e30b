"""Top sets of streamed scores against a stable sort, and how often the scores are read for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import cycle

import numpy as np
import pytest
import selection_oracle as oracle
from numpy.typing import NDArray

from patchc.buffers import ThreadBuffer
from patchc.chunks import Chunk, grid
from patchc.errors import NumericError
from patchc.kernels.bitmask import unpack
from patchc.kernels.philox import Retention, retention_threshold
from patchc.runtime.runtime import Runtime
from patchc.selection.topk.histogram_search import ScoredTensor, TopSet
from patchc.selection.topk.search import TopSearch

SEED = 3
SIZES = (150_001, 0, 90_000, 301)
CHUNK = 1 << 15
Scores = NDArray[np.float32]


class Stream:
    """Scores of one tensor that remember which whole chunks were read."""

    def __init__(self, number: int, scores: Scores, retain: float, lies: bool = False) -> None:
        self.name = f"t{number}"
        self.scores = scores
        self.reads: Counter[int] = Counter()
        self.seen: set[int] = set()
        self.retained = oracle.retained("se", self.name, SEED, retain, 0, scores.size)
        self._chunks = grid(scores.size, CHUNK)
        self._ranked = Retention(
            SEED, oracle.stream_of("se", self.name), retention_threshold(retain)
        )
        self._lies = lies

    def scored(self) -> ScoredTensor:
        return ScoredTensor(self.name, self._read, self._chunks, self._ranked, self._scan)

    def _read(self, chunk: Chunk) -> NDArray[np.uint32]:
        bits = self.scores.view(np.uint32)[chunk.first : chunk.first + chunk.count]
        if chunk in self._chunks:
            self.reads[chunk.number] += 1
        elif self._lies:
            return np.full_like(bits, 0x3F800000) + np.arange(bits.size, dtype=np.uint32)
        return bits

    def _scan(self, chunk: Chunk) -> Iterator[tuple[Chunk, NDArray[np.uint32]]]:
        """Pieces of 96 entries and more, each in a buffer that the next one overwrites."""
        assert chunk in self._chunks
        self.reads[chunk.number] += 1
        buffer, end = np.empty(CHUNK, np.uint32), chunk.first + chunk.count
        first = chunk.first
        for words in cycle((96, 4096, 17 * 32)):
            count = min(words, end - first)
            buffer[:count] = self.scores.view(np.uint32)[first : first + count]
            yield Chunk(chunk.number, first, count), buffer[:count]
            first += count
            if first == end:
                break
        self.seen.add(chunk.number)

    def mask(self, top: TopSet) -> NDArray[np.bool_]:
        parts = []
        for chunk in self._chunks:
            bitmask = top.bitmask(chunk, self._read, ThreadBuffer())
            parts.append(unpack(bitmask, chunk.count))
        return np.concatenate([*parts, np.empty(0, np.bool_)])


def _streams(kind: str, retain: float, lies: bool = False) -> list[Stream]:
    rng = np.random.default_rng(4)
    streams = []
    for number, size in enumerate(SIZES):
        spread = rng.standard_exponential(size, np.float32)
        values = {
            "spread": spread,
            "equal": np.full(size, 0.5, np.float32),
            "zero": np.zeros(size, np.float32),
            "levels": np.floor(spread * 4).astype(np.float32),
            "many zeros": np.where(rng.random(size) < 0.9, np.float32(0), spread),
            "rows": spread * np.repeat(rng.standard_exponential(size // 500 + 1), 500)[:size],
            "sorted": np.sort(spread)[::-1],
        }[kind]
        streams.append(Stream(number, np.ascontiguousarray(values, np.float32), retain, lies))
    return streams


def _check(streams: list[Stream], count: int, threads: int = 2) -> None:
    with Runtime(threads) as runtime:
        tops = TopSearch([stream.scored() for stream in streams], count, runtime).result()
    scores = np.concatenate([stream.scores for stream in streams])
    retained = np.concatenate([stream.retained for stream in streams])
    candidates = np.flatnonzero(retained)
    order = candidates[np.argsort(-scores[candidates], kind="stable")]
    expected = np.zeros(scores.size, np.bool_)
    expected[order[:count]] = True
    found = [stream.mask(top) for stream, top in zip(streams, tops, strict=True)]
    assert np.array_equal(np.concatenate(found), expected)
    for stream in streams:
        assert stream.seen == {chunk.number for chunk in grid(stream.scores.size, CHUNK)}


KINDS = ("spread", "equal", "zero", "levels", "many zeros", "rows", "sorted")
SHARES = (0.0, 4e-6, 0.02, 0.15, 0.2, 0.5, 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("retain", [0.2, 1.0])
def test_top_sets_equal_a_stable_sort(kind: str, share: float, retain: float) -> None:
    _check(_streams(kind, retain), int(share * sum(SIZES)))


@pytest.mark.parametrize("kind", ["spread", "levels", "zero"])
@pytest.mark.parametrize("share", [0.0, 0.15, 1.0])
def test_a_sample_that_lies_changes_nothing(kind: str, share: float) -> None:
    _check(_streams(kind, 0.6, lies=True), int(share * sum(SIZES)))


@pytest.mark.parametrize("kind", ["spread"])
@pytest.mark.parametrize(("share", "retain"), [(0.15, 0.2), (0.15, 1.0), (0.5, 1.0), (0.0, 0.5)])
def test_scores_are_read_once(kind: str, share: float, retain: float) -> None:
    streams = _streams(kind, retain)
    _check(streams, int(share * sum(SIZES)), threads=3)
    assert {count for stream in streams for count in stream.reads.values()} == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_read_four_times_at_most(kind: str) -> None:
    """Twice for the cut, once to mark; once more where a run of ties straddles the cut."""
    streams = _streams(kind, 0.7)
    _check(streams, 30_000)
    assert all(0 < count <= 4 for stream in streams for count in stream.reads.values())


@pytest.mark.parametrize("kind", KINDS)
def test_without_room_for_marks_scores_are_read_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchc.selection.topk.search._MOST_IN_BITMASKS", sum(SIZES) - 1)
    streams = _streams(kind, 0.6)
    _check(streams, 40_000)
    if kind == "spread":
        assert {count for stream in streams for count in stream.reads.values()} == {2}


@pytest.mark.parametrize("lies", [True, False])
def test_bad_scores_are_named(lies: bool) -> None:
    streams = _streams("spread", 0.5, lies)
    streams[2].scores[77_777] = -1
    with pytest.raises(NumericError, match=r"t2: the score at flat index 77777 is -1\.0"):
        _check(streams, 30_000)
