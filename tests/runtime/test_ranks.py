"""How ranks share work and exchange messages and errors, with threads as ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threads_as_ranks import together

from patchc.errors import (
    InUseError,
    MissingCheckpointError,
    NumericError,
    RankError,
    WrongBaseError,
)
from patchc.files import staged_file
from patchc.patching.transition import OtherSideError
from patchc.reserved import reserved
from patchc.runtime.ranks import ALONE, Ranks, deal, staged_by_first


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


@pytest.mark.parametrize(
    "kind", [WrongBaseError, OtherSideError, NumericError, MissingCheckpointError]
)
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
    staging = tmp_path / ".out.0123abcd.partial"

    def run(ranks: Ranks) -> None:
        if ranks.rank == 0:
            staging.mkdir()
            (staging / "part").write_bytes(b"half")
            (tmp_path / ".out.patchc-lock").touch()
            ranks.gather("output")
            ranks.gather("staging", lambda: str(staging).encode())
            raise ValueError("killed")
        with staged_by_first(ranks, staged_file, tmp_path / "out"):
            pass

    together(2, run)
    assert list(tmp_path.iterdir()) == []


def test_an_output_in_use_is_told_to_every_rank(tmp_path: Path) -> None:
    def run(ranks: Ranks) -> None:
        with staged_by_first(ranks, staged_file, tmp_path / "out"):
            raise AssertionError("it is in use")

    with reserved(tmp_path / "out", tmp_path / "out"):
        ends = together(3, run)
    assert [type(end) for end in ends] == [InUseError] * 3
    assert len({str(end) for end in ends}) == 1
