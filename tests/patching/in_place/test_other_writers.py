"""Programs that write to a model while it is worked on, and whom no time stamp gives away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from in_place_directions import CHANGED, FIRST, SECOND, Direction, put
from tiny_checkpoints import tree

import patchc
from patchc.checkpoint import checkpoint, in_place_writer, visitors
from patchc.errors import CheckpointError


@pytest.fixture
def meddle_within_a_write(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let something be done right after the first write to a shard, before its time is taken."""

    def arrange(deed: Any) -> None:
        write_all, deeds = in_place_writer.write_all, [deed]

        def write(descriptor: int, offset: int, words: Any) -> None:
            write_all(descriptor, offset, words)
            if deeds:
                deeds.pop()()

        monkeypatch.setattr(in_place_writer, "write_all", write)

    return arrange


@pytest.mark.parametrize("shard", [FIRST, SECOND])
def test_a_program_that_has_a_shard_open_is_noticed(
    direction: Direction, shard: str, meddle_within_a_write: Any
) -> None:
    """It opened the file before the run, so that nobody saw it come."""
    descriptor = os.open(direction.source / shard, os.O_RDWR)
    size = os.fstat(descriptor).st_size
    meddle_within_a_write(lambda: os.pwrite(descriptor, b"\7\7\7\7", size - 4))
    try:
        with pytest.raises(CheckpointError, match="while in use"):
            direction.run(threads=1)
    finally:
        os.close(descriptor)


def test_a_program_that_has_a_shard_open_and_writes_nothing_is_no_trouble(
    direction: Direction,
) -> None:
    stages: list[str] = []
    with (direction.source / SECOND).open("r+b"):
        direction.run(progress=lambda event: stages.append(event.stage))
    assert tree(direction.source) == tree(direction.target)
    assert stages[-1] == "check"


def test_where_nobody_can_be_seen_all_is_read_again(
    direction: Direction, monkeypatch: pytest.MonkeyPatch, meddle_within_a_write: Any
) -> None:
    """The limit of watched files is reached, for one."""

    class Library:
        def inotify_init1(self, _flags: int) -> int:
            return -1

        def inotify_add_watch(self, *_arguments: Any) -> int:
            return -1

    monkeypatch.setattr(visitors.ctypes, "CDLL", lambda *_name, **_options: Library())
    meddle_within_a_write(lambda: put(direction.source, "model.norm.weight", 40, b"\7\7\7\7"))
    with pytest.raises(CheckpointError, match="while in use"):
        direction.run(threads=1)


@pytest.mark.parametrize("name", [CHANGED[0], "model.norm.weight"])
@pytest.mark.parametrize("in_place", [True, False])
def test_what_changes_while_a_model_is_opened_is_no_fault_of_the_model(
    direction: Direction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    in_place: bool,
) -> None:
    """After the headers were read and before any tensor was."""
    open_regular = checkpoint.open_regular

    def meddle(path: Any) -> int:
        if Path(path).name == FIRST:
            put(direction.source, name, 40, b"\7\7\7\7")
        return open_regular(path)

    monkeypatch.setattr(checkpoint, "open_regular", meddle)
    verb = patchc.apply if direction.name == "apply" else patchc.revert
    options = {"in_place": True} if in_place else {"out": tmp_path / "out"}
    with pytest.raises(CheckpointError, match="while in use"):
        verb(direction.patch, direction.source, **options)


def test_a_shard_that_is_removed_while_it_is_copied_is_of_no_account(
    direction: Direction, tmp_path: Path
) -> None:
    """Its content is still there as long as it is open."""
    wanted = tree(direction.target)

    def remove(event: Any) -> None:
        if event.done == event.total:
            (direction.source / SECOND).unlink(missing_ok=True)

    verb = patchc.apply if direction.name == "apply" else patchc.revert
    verb(direction.patch, direction.source, out=tmp_path / "out", progress=remove)
    assert tree(tmp_path / "out") == wanted
