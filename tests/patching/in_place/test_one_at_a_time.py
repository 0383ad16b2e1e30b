"""A run in place that is not alone: other runs are kept out, other programs are noticed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from in_place_directions import CHANGED, FIRST, SECOND, Direction, journal_of, put
from tiny_checkpoints import read_model, tree, write_model

import patchc
from patchc.checkpoint import visitors
from patchc.errors import CheckpointError, InUseError

HELD = """
import os, sys, time
import patchc

verb, patch, model = sys.argv[1:]
fsync = os.fsync

def hold(descriptor):
    print("started", flush=True)
    time.sleep(600)

os.fsync = hold
getattr(patchc, verb)(patch, model, in_place=True)
"""


def test_others_are_told_who_works_there(direction: Direction, tmp_path: Path) -> None:
    """A second run, a check and a copy end with the first one's number; a kill frees the model."""
    command = [sys.executable, "-c", HELD, direction.name]
    paths = [str(direction.patch), str(direction.source)]
    with subprocess.Popen([*command, *paths], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        for other in (
            ("apply", *paths, "--in-place"),
            ("revert", *paths, "--in-place"),
            ("verify", *paths),
            (direction.name, *paths, "-o", tmp_path / "out"),
            ("diff", direction.target, direction.source, "-o", tmp_path / "new.patchc"),
        ):
            code, _, err = run(*other)
            assert code == InUseError.exit_code
            assert f"{direction.source} is in use: process {process.pid} on" in err
        process.kill()
    direction.run()
    assert tree(direction.source) == tree(direction.target)


def test_two_names_of_one_model_have_one_journal(tmp_path: Path, direction: Direction) -> None:
    """Its folder and its file, and a link to the folder."""
    one = write_model(tmp_path / "one", read_model(direction.source))
    (tmp_path / "link").symlink_to(one)
    for other in (one / "model.safetensors", tmp_path / "link"):
        told: list[str] = []

        def run_other(_event: object, other: Path = other, told: list[str] = told) -> None:
            with pytest.raises(InUseError) as error:
                direction.run(other)
            told.append(str(error.value))

        direction.run(one, progress=run_other)
        assert told
        direction.back(other)


def test_a_shard_is_locked_too(tmp_path: Path, direction: Direction) -> None:
    """Whatever a model is called, its files are the same."""
    own = direction.source / FIRST
    half = tmp_path / "half.patchc"
    patchc.diff(own, direction.target / FIRST, out=half, chunk_bits=12)

    def run_other(_event: object) -> None:
        with pytest.raises(InUseError, match="another process"):
            patchc.apply(half, own, in_place=True)

    direction.run(progress=run_other)
    assert tree(direction.source) == tree(direction.target)


@pytest.mark.parametrize("number", [1, 3])
def test_a_diff_of_a_model_that_changes_is_refused(
    tmp_path: Path, direction: Direction, number: int
) -> None:
    """A run in place that begins after it has opened the model."""
    events: list[object] = []

    def run_other(event: object) -> None:
        events.append(event)
        if len(events) == number:
            direction.run()

    other = shutil.copytree(direction.target, tmp_path / "other")
    with pytest.raises(CheckpointError, match="was changed while in use"):
        patchc.diff(direction.source, other, out=tmp_path / "new.patchc", progress=run_other)
    assert not (tmp_path / "new.patchc").exists()


def test_a_file_system_without_locks_is_served(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner that the file names decides: one that lives keeps others out, a dead one not."""

    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    facts = {"host": os.uname().nodename, "since": "today", "command": "patchc"}
    journal = journal_of(direction.source)
    journal.write_text(json.dumps({"pid": os.getpid(), **facts}))
    with pytest.raises(InUseError, match=f"process {os.getpid()} on .* works there"):
        direction.run()
    journal.write_text(json.dumps({"pid": ended.pid, **facts}))
    direction.run()
    assert tree(direction.source) == tree(direction.target)


def _replace(model: Path) -> None:
    shutil.copyfile(model / SECOND, model / "new")
    (model / "new").replace(model / SECOND)


def _remove(model: Path) -> None:
    (model / SECOND).unlink()


def _cut(model: Path) -> None:
    os.truncate(model / SECOND, 5000)


def _overwrite(model: Path) -> None:
    put(model, CHANGED[3], 40, b"\7\7\7\7")


def _overwrite_what_stays(model: Path) -> None:
    put(model, "model.norm.weight", 40, b"\7\7\7\7")


OTHERS = [_replace, _remove, _cut, _overwrite, _overwrite_what_stays]
WHENS = ["verify", "written"]


@pytest.mark.usefixtures("a_chunk_a_group")
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("when", WHENS)
def test_another_program_is_noticed(
    direction: Direction, other: Callable[[Path], None], when: str
) -> None:
    """After all was read, and after the first chunks were written."""
    events: list[Any] = []

    def meddle(event: Any) -> None:
        events.append(event)
        at = event.done == event.total if when == "verify" else len(events) == 6 + 3
        if at and event.stage == {"verify": "verify"}.get(when, direction.name):
            other(direction.source)

    with pytest.raises(CheckpointError, match="while in use") as told:
        direction.run(progress=meddle, threads=1)
    assert "sound" not in str(told.value)
    if when == "written":
        assert "may be partly patched" in str(told.value)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("number", [0, 7])
def test_a_change_during_a_write_is_noticed(
    direction: Direction,
    monkeypatch: pytest.MonkeyPatch,
    other: Callable[[Path], None],
    number: int,
) -> None:
    """It comes right after a write of this run, whose time stamp hides it."""
    pwrite, written = os.pwrite, []

    def meddle(descriptor: int, data: Any, offset: int) -> int:
        count = pwrite(descriptor, data, offset)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name in (FIRST, SECOND):
            written.append(path.name)
            if len(written) == number + 1:
                other(direction.source)
        return count

    monkeypatch.setattr(os, "pwrite", meddle)
    with pytest.raises(CheckpointError, match="while in use") as told:
        direction.run(threads=1)
    assert "sound" not in str(told.value)


@pytest.mark.usefixtures("a_chunk_a_group")
def test_the_index_is_watched_too(direction: Direction) -> None:
    index = direction.source / "model.safetensors.index.json"

    def meddle(event: Any) -> None:
        if event.stage == direction.name:
            index.write_text(index.read_text() + " ")

    with pytest.raises(CheckpointError, match=r"index\.json: was changed while in use"):
        direction.run(progress=meddle, threads=1)


def test_a_reader_is_no_trouble(direction: Direction) -> None:
    """What it read is read once more, and found to be as promised."""
    stages: list[str] = []

    def read(event: Any) -> None:
        stages.append(event.stage)
        (direction.source / FIRST).read_bytes()

    direction.run(progress=read)
    assert tree(direction.source) == tree(direction.target)
    assert stages[-1] == "check"


def test_without_notices_time_stamps_tell(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that cannot tell of opened files still tells of changes between writes."""

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise OSError

    monkeypatch.setattr(visitors.ctypes, "CDLL", refuse)

    def meddle(event: Any) -> None:
        if event.stage == direction.name and event.done == event.total:
            _overwrite_what_stays(direction.source)

    with pytest.raises(CheckpointError, match="while in use"):
        direction.run(progress=meddle, threads=1)


@pytest.mark.parametrize("other", [_cut, _overwrite, _overwrite_what_stays])
def test_a_check_of_a_model_that_changes_blames_nobody_else(
    direction: Direction, other: Callable[[Path], None]
) -> None:
    os.utime(direction.source / SECOND, ns=(0, 0))

    def meddle(event: Any) -> None:
        if event.stage == "verify":
            other(direction.source)

    with pytest.raises(CheckpointError, match="while in use"):
        patchc.verify(direction.patch, direction.source, threads=1, progress=meddle)
