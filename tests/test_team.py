"""How ranks share work and meet, with threads in the place of processes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_checkpoints import normal, nudge, write_model

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
    StorageError,
    UsageError,
    WrongBaseError,
)
from patchc.files import staged_file, staged_folder
from patchc.formats import TensorPair, open_patch
from patchc.formats.change_bits import ChangeBits
from patchc.formats.container.writer import encode_chunk
from patchc.kernels.philox.cpu import KEEP_ALL, Retention
from patchc.patching.rewrite import OtherStateError, rewrite
from patchc.progress import ignore_progress
from patchc.runtime.ranks import ALONE, Ranks, deal, staged_by_first
from patchc.runtime.workers import Workers
from patchc.selection.topk.histogram_search import ScoredTensor
from patchc.selection.topk.search import find_top_sets

Answer = TypeVar("Answer")


class Room:
    """Where threads meet that take themselves for ranks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.changed = threading.Condition()
        self.tables: list[dict[int, bytes]] = []
        self.somebody_left = False

    def leave(self) -> None:
        with self.changed:
            self.somebody_left = True
            self.changed.notify_all()


class Seat:
    """One rank's place in a room; implements :class:`patchc.runtime.ranks.Link`."""

    neighbours = 1

    def __init__(self, room: Room, rank: int) -> None:
        self.rank, self.size = rank, room.size
        self._room = room
        self._meetings = 0

    def exchange(self, data: bytes) -> list[bytes]:
        with self._room.changed:
            if self._meetings == len(self._room.tables):
                self._room.tables.append({})
            table = self._room.tables[self._meetings]
            self._meetings += 1
            table[self.rank] = data
            self._room.changed.notify_all()
            self._room.changed.wait_for(
                lambda: len(table) == self.size or self._room.somebody_left, 60
            )
            if len(table) < self.size:
                raise RankError("a rank has left")
            return [table[rank] for rank in range(self.size)]

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def receive(self, rank: int) -> bytes:
        raise NotImplementedError


def together(
    size: int, run: Callable[[Ranks], Answer], seat: type[Seat] = Seat
) -> list[Answer | BaseException]:
    """What each rank returns or raises; one that raises leaves the room."""
    room = Room(size)
    ends: list[Answer | BaseException] = [RankError("not run")] * size

    def start(rank: int) -> None:
        try:
            ends[rank] = run(Ranks(seat(room, rank)))
        except BaseException as error:
            ends[rank] = error
            room.leave()

    threads = [threading.Thread(target=start, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


@given(
    st.lists(st.one_of(st.integers(0, 50), st.integers(0, 1 << 45)), max_size=40),
    st.integers(1, 9),
)
def test_runs_are_contiguous_cover_everything_and_are_balanced(
    weights: list[int], size: int
) -> None:
    runs = deal(weights, size)
    assert len(runs) == size
    assert [number for run in runs for number in run] == list(range(len(weights)))
    mean = sum(weights) / size
    for run in runs:
        assert abs(sum(weights[n] for n in run) - mean) <= max(weights, default=0) * (1 + 1e-9)


def test_equal_tensors_are_dealt_out_evenly() -> None:
    assert [len(run) for run in deal([7] * 12, 4)] == [3, 3, 3, 3]
    assert [len(run) for run in deal([1, 1, 1, 3], 2)] == [3, 1]


def test_ranks_get_what_all_found_in_their_order() -> None:
    ends = together(3, lambda ranks: ranks.gather("here", lambda: b"%d\n\0" % ranks.rank))
    assert ends == [[b"0\n\0", b"1\n\0", b"2\n\0"]] * 3
    assert together(3, lambda ranks: ranks.before("here", ranks.rank + 1)) == [0, 1, 3]
    summed = together(2, lambda ranks: ranks.sum("here", lambda: np.array([ranks.rank, 1 << 40])))
    assert [part.tolist() for part in summed] == [[1, 2 << 40]] * 2  # type: ignore[union-attr]
    assert ALONE.gather("here", lambda: b"a") == [b"a"]
    assert ALONE.before("here", 5) == 0


@pytest.mark.parametrize("kind", [WrongBaseError, OtherStateError, NumericError])
def test_the_error_of_the_lowest_rank_is_raised_in_all(kind: type[Exception]) -> None:
    def run(ranks: Ranks) -> None:
        def work() -> bytes:
            if ranks.rank == 1:
                raise kind("tensor 'a\nb'")
            if ranks.rank == 2:
                raise WrongBaseError("tensor 'c'")
            return b"fine"

        try:
            ranks.gather("here", work)
        finally:
            assert ranks.agreed

    ends = together(3, run)
    assert [type(end) for end in ends] == [kind] * 3
    assert [str(end) for end in ends] == ["tensor 'a\nb'"] * 3


def test_ranks_that_go_apart_or_see_other_inputs_are_told() -> None:
    for end in together(2, lambda ranks: ranks.gather(f"place {ranks.rank}")):
        assert isinstance(end, RankError)
        assert "rank 0 at 'place 0', rank 1 at 'place 1'" in str(end)
    ends = together(3, lambda ranks: ranks.agree("patch", b"x" if ranks.rank == 2 else b"y"))
    assert all(isinstance(end, RankError) for end in ends)
    assert "rank 2 has other inputs than rank 0 (patch)" in str(ends[0])


def test_an_error_that_is_no_ones_own_leaves_the_others_behind() -> None:
    def run(ranks: Ranks) -> None:
        if ranks.rank == 1:
            raise ValueError("a bug")
        ranks.gather("here")

    assert [type(end) for end in together(3, run)] == [RankError, ValueError, RankError]


@pytest.mark.parametrize("failing", [None, 0, 1, 2])
def test_a_staged_file_appears_when_all_came_through(tmp_path: Path, failing: int | None) -> None:
    out = tmp_path / "out"

    def run(ranks: Ranks) -> None:
        with staged_by_first(ranks, staged_file, out) as staging:
            if ranks.rank == 0:
                staging.write_bytes(b"whole")
            if ranks.rank == failing:
                raise ValueError("a bug")

    ends = together(3, run)
    if failing is None:
        assert ends == [None] * 3
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        return
    assert isinstance(ends[failing], ValueError)
    assert sum(isinstance(end, RankError) for end in ends) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_rank_0_staged_is_removed_by_the_others(tmp_path: Path) -> None:
    staging = tmp_path / ".left.partial"

    def run(ranks: Ranks) -> None:
        if ranks.rank == 0:
            staging.mkdir()
            (staging / "part").write_bytes(b"half")
            ranks.gather("staging", lambda: str(staging).encode())
            raise ValueError("killed")
        with staged_by_first(ranks, staged_file, tmp_path / "out"):
            pass

    together(2, run)
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_whole_or_absent_where_a_rank_is_stopped_at_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 is interrupted while rank 0 commits, which happens after the first file is removed."""
    out, remove = tmp_path / "out", shutil.rmtree
    removing, committed = threading.Event(), threading.Event()

    def slowly(folder: Path, **options: Any) -> None:
        for file in sorted(Path(folder).glob("one")):
            file.unlink()
            removing.set()
            committed.wait(60)
        remove(folder, **options)

    @contextmanager
    def stage(path: Path) -> Iterator[Path]:
        with staged_folder(path) as staging:
            yield staging
            removing.wait(60)

    def run(ranks: Ranks) -> None:
        try:
            with staged_by_first(
                ranks, stage if ranks.rank == 0 else staged_folder, out
            ) as staging:
                if ranks.rank == 0:
                    for name in ("one", "two"):
                        (staging / name).write_bytes(b"whole")
        finally:
            if ranks.rank == 0:
                committed.set()

    class Stopped(Seat):
        def exchange(self, data: bytes) -> list[bytes]:
            if self.rank and b'"commit"' in data:
                raise KeyboardInterrupt
            return super().exchange(data)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    ends = together(2, run, Stopped)
    assert isinstance(ends[1], KeyboardInterrupt)
    assert isinstance(ends[0], StorageError)
    assert list(tmp_path.iterdir()) == []


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
        with Workers(1) as workers:
            for tensor, top in zip(own, find_top_sets(own, count, workers, ranks), strict=True):
                for chunk in tensor.chunks:
                    masks.append(np.empty(chunk.count, np.bool_))
                    top.mark(tensor.read(chunk), chunk, masks[-1])
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
        with Workers(1) as workers:
            find_top_sets(own, 1000, workers, ranks)

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
        with open_checkpoint(base) as one, open_checkpoint(tuned) as two, Workers(1, ranks) as pool:
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
            Workers(1, ranks) as pool,
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
        with open_patch(path) as patch, open_checkpoint(base) as model, Workers(1, ranks) as pool:
            if other and ranks.rank == rank:
                row = 3 * rank
                patch.bodies.note(row, b"\0" * 32)
                patch.bodies.note = lambda *_: None  # type: ignore[method-assign]
            rewrite(patch, model, lambda *_: None, False, pool, ignore_progress)

    assert together(2, lambda ranks: read(ranks, False)) == [None, None]
    for end in together(2, lambda ranks: read(ranks, True)):
        assert isinstance(end, PatchFormatError)
        assert "the digest over all chunk bodies does not match" in str(end)


def test_several_ranks_do_not_work_in_place() -> None:
    with pytest.raises(UsageError, match="a run in place is one process"):
        patchc.apply("no.patchc", "no model", in_place=True, ranks=Ranks(Seat(Room(2), 0)))
