"""What several ranks write, select and pair, against one process; with threads as ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threads_as_ranks import Room, Seat, together
from tiny_checkpoints import names_of, normal, nudge, write_model

import patchc
from patchc.checkpoint import Checkpoint, open_checkpoint
from patchc.chunks import Chunk, grid
from patchc.compiler.pairing import pair_tensors
from patchc.compiler.pipeline import CompiledPatch
from patchc.compiler.rank_messages import CodedChunk, pack_chunk, unpack_chunk
from patchc.dtypes import BY_NAME
from patchc.errors import (
    NumericError,
    PatchFormatError,
    RankError,
    UsageError,
)
from patchc.files import staged_folder
from patchc.formats import TensorPair, open_patch
from patchc.formats.change_bits import ChangeBits
from patchc.formats.container.writer import encode_chunk
from patchc.kernels.bitmask import unpack
from patchc.kernels.philox import KEEP_ALL, Retention
from patchc.patching.rewrite import rewrite
from patchc.runtime.ranks import Ranks, deal, shared_ranks, sharing, staged_by_first
from patchc.runtime.runtime import Runtime
from patchc.selection.topk.histogram_search import ScoredTensor
from patchc.selection.topk.search import TopSearch


def test_an_output_is_whole_where_a_rank_is_stopped_at_the_commit(tmp_path: Path) -> None:
    """Rank 1 is interrupted and cleans up, and only then rank 0 commits."""
    out, stopped = tmp_path / "out", threading.Event()

    @contextmanager
    def stage(path: Path) -> Iterator[Path]:
        with staged_folder(path) as staging:
            yield staging
            stopped.wait(60)

    def run(ranks: Ranks) -> None:
        try:
            with staged_by_first(ranks, stage, out) as staging:
                if ranks.rank == 0:
                    for name in ("one", "two"):
                        (staging / name).write_bytes(b"whole")
        finally:
            stopped.set()

    class Stopped(Seat):
        def exchange(self, data: bytes) -> list[bytes]:
            if self.rank and b'"commit"' in data:
                raise KeyboardInterrupt
            return super().exchange(data)

    ends = together(2, run, Stopped)
    assert isinstance(ends[1], KeyboardInterrupt)
    assert ends[0] is None
    assert (names_of(tmp_path), names_of(out)) == (["out"], ["one", "two"])


SIZES = (90_000, 0, 150_001, 301, 70_000)
CHUNK = 1 << 15


def _scores(kind: str) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    values: Mapping[str, Callable[[int], NDArray[Any]]] = {
        "spread": lambda size: rng.standard_exponential(size, np.float32),
        "equal": lambda size: np.full(size, 0.5, np.float32),
        "levels": lambda size: rng.integers(0, 4, size).astype(np.float32),
        "many zeros": lambda size: np.maximum(rng.standard_normal(size, np.float32), 0),
    }
    return [values[kind](size) for size in SIZES]


def _scored(number: int, scores: NDArray[np.float32]) -> ScoredTensor:
    def read(chunk: Chunk) -> NDArray[np.uint32]:
        return scores.view(np.uint32)[chunk.first : chunk.first + chunk.count]

    return ScoredTensor(f"t{number}", read, grid(scores.size, CHUNK), Retention(0, 0, KEEP_ALL))


@pytest.mark.parametrize("kind", ["spread", "equal", "levels", "many zeros"])
@pytest.mark.parametrize("share", [0.0, 1e-5, 0.15, 0.7, 1.0])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_cut_over_all_ranks_is_that_of_a_stable_sort(kind: str, share: float, size: int) -> None:
    tensors = _scores(kind)
    runs = deal([one.size for one in tensors], size)
    count = int(share * sum(SIZES))

    def run(ranks: Ranks) -> list[NDArray[np.bool_]]:
        own = [_scored(number, tensors[number]) for number in runs[ranks.rank]]
        masks = []
        with Runtime(1) as runtime:
            for tensor, top in zip(
                own, TopSearch(own, count, runtime, ranks).result(), strict=True
            ):
                for chunk in tensor.chunks:
                    bitmask = top.bitmask(chunk, tensor.read, runtime.buffers.mask)
                    masks.append(unpack(bitmask, chunk.count))
        return masks

    ends = together(size, run)
    found = np.concatenate([mask for end in ends for mask in end])  # type: ignore[union-attr]
    expected = np.zeros(sum(SIZES), np.bool_)
    expected[np.argsort(-np.concatenate(tensors), kind="stable")[:count]] = True
    assert np.array_equal(found, expected)


def test_a_score_that_is_not_finite_fails_the_search_in_every_rank() -> None:
    tensors = _scores("spread")
    tensors[2][140_000] = np.nan

    def run(ranks: Ranks) -> None:
        own = [_scored(n, tensors[n]) for n in deal(SIZES, 2)[ranks.rank]]
        with Runtime(1) as runtime:
            TopSearch(own, 1000, runtime, ranks).result()

    for end in together(2, run):
        assert isinstance(end, NumericError)
        assert "t2: the score at flat index 140000 is nan" in str(end)


def test_chunks_and_reports_survive_the_way_between_ranks() -> None:
    positions, steps = np.array([1, 7, 10], np.uint32), np.array([1, -2, 3], np.int64)
    encoded = encode_chunk(3, positions, steps, 64, BY_NAME["BF16"], b"\n" * 32, b"b" * 32)
    for coded in (
        CodedChunk(b"\n" * 32, b"b" * 32, encoded),
        CodedChunk(b"a" * 32, b"b" * 32, None),
        CodedChunk(b"a" * 32, None, None),
    ):
        assert unpack_chunk(pack_chunk(coded)) == coded
    bits = ChangeBits(0.1 + 0.2, 1e300)
    for report in (
        CompiledPatch(b"r", 1, 2, 3, 4, b"b", b"c", bits, bits, 2),
        CompiledPatch(b"r", 1, 2, 3, 4, b"b", None),
    ):
        assert CompiledPatch.unpack(report.pack()) == report


def _renamed(folder: Path) -> tuple[Path, Path, int]:
    """Two models of eight tensors, the second with other names; and their words."""
    tensors = {f"old.{number}": normal((30 + number, 40), "BF16", number) for number in range(8)}
    base = write_model(folder / "base", tensors)
    renamed = {name.replace("old", "new"): value for name, value in reversed(tensors.items())}
    return base, write_model(folder / "tuned", renamed), 2 * sum(v.size for v in tensors.values())


@pytest.mark.parametrize("size", [1, 2, 3, 11])
def test_tensors_are_paired_as_by_one_process_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    base, tuned, words = _renamed(tmp_path)
    read: list[int] = []
    read_words = Checkpoint.read_words

    def counting(model: Checkpoint, tensor: Any, first: int, out: NDArray[Any]) -> Any:
        read.append(len(out))
        return read_words(model, tensor, first, out)

    monkeypatch.setattr(Checkpoint, "read_words", counting)

    def run(ranks: Ranks) -> list[TensorPair]:
        with (
            open_checkpoint(base) as one,
            open_checkpoint(tuned) as two,
            Runtime(1, ranks=ranks) as pool,
        ):
            return pair_tensors(one, two, pool)

    expected = {
        f"{side}.{n}": f"{other}.{n}"
        for side, other in (("old", "new"), ("new", "old"))
        for n in range(8)
    }
    for rows in together(size, run):
        assert not isinstance(rows, BaseException), rows
        assert {row.name: row.reference for row in rows} == expected
    assert sum(read) == words


def test_ranks_that_see_other_tensors_do_not_pair_them(tmp_path: Path) -> None:
    base, tuned, _ = _renamed(tmp_path)

    def run(ranks: Ranks) -> None:
        second = base if ranks.rank else tuned
        with (
            open_checkpoint(base) as one,
            open_checkpoint(second) as two,
            Runtime(1, ranks=ranks) as pool,
        ):
            pair_tensors(one, two, pool)

    for end in together(2, run):
        assert isinstance(end, RankError)
        assert "other inputs" in str(end)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_body_that_one_rank_read_otherwise_is_found_by_all(tmp_path: Path, rank: int) -> None:
    """Nobody reads again what another has read; the digest over all bodies is of what they read."""
    shapes = dict.fromkeys("abcd", (40, 50))
    before = {name: normal(shape, "BF16", 1) for name, shape in shapes.items()}
    base = write_model(tmp_path / "base", before)
    tuned = write_model(tmp_path / "tuned", {n: nudge(v, 0.2, 3) for n, v in before.items()})
    path = tmp_path / "up.patchc"
    patchc.diff(base, tuned, out=path)

    def read(ranks: Ranks, other: bool) -> None:
        with (
            open_patch(path) as patch,
            open_checkpoint(base) as model,
            Runtime(1, ranks=ranks) as pool,
        ):
            if other and ranks.rank == rank:
                row = 3 * rank
                patch.bodies.note(row, b"\0" * 32)
                patch.bodies.note = lambda *_: None  # type: ignore[method-assign]
            rewrite(patch, model, lambda *_: None, "result", pool)

    assert together(2, lambda ranks: read(ranks, False)) == [None, None]
    for end in together(2, lambda ranks: read(ranks, True)):
        assert isinstance(end, PatchFormatError)
        assert "the digest over all chunk bodies does not match" in str(end)


def test_several_ranks_do_not_work_in_place() -> None:
    ranks = Ranks(Seat(Room(2), 0))
    with sharing(ranks), pytest.raises(UsageError, match="a run in place is one process"):
        patchc.apply("no.patchc", "no model", in_place=True)


def test_ranks_are_shared_by_one_thread_and_for_one_block() -> None:
    ranks, elsewhere = Ranks(Seat(Room(2), 0)), []
    with sharing(ranks):
        other = threading.Thread(target=lambda: elsewhere.append(shared_ranks().size))
        other.start()
        other.join()
        assert shared_ranks() is ranks
    assert [*elsewhere, shared_ranks().size] == [1, 1]
