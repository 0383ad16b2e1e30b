"""Runs in place that are killed, interrupted or fail, and can be repeated or taken back."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from in_place_directions import CHUNKS, FIRST, SECOND, Direction, is_shard, partly_changed
from tiny_checkpoints import tree

from patchc.errors import StorageError

KILLED = """
import os, signal, sys
import patchc

verb, patch, model, number, share = sys.argv[1:]
pwrite, calls = os.pwrite, iter(range(1000))

def kill(descriptor, data, offset):
    is_shard = os.readlink(f"/proc/self/fd/{descriptor}").endswith(".safetensors")
    if is_shard and next(calls) == int(number):
        pwrite(descriptor, data[: int(len(data) * float(share))], offset)
        os.kill(os.getpid(), signal.SIGKILL)
    return pwrite(descriptor, data, offset)

os.pwrite = kill
getattr(patchc, verb)(patch, model, in_place=True, threads=2)
"""


def _kill(direction: Direction, number: int, share: float) -> None:
    """A run that is killed outright at its write ``number``, after a share of that chunk."""
    command = [sys.executable, "-c", KILLED, direction.name, str(direction.patch)]
    killed = subprocess.run(
        [*command, str(direction.source), str(number), str(share)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize("number", [0, 3, CHUNKS - 1])
@pytest.mark.parametrize("share", [0, 1])
def test_a_killed_run_is_repeated(direction: Direction, number: int, share: int) -> None:
    wanted = tree(direction.target)
    _kill(direction, number, share)
    done = number + share
    report = direction.run()
    assert tree(direction.source) == wanted
    assert (report.chunks, report.chunks_kept) == (CHUNKS - done, done)


STOPPED = """
import os, signal
from patchc.cli.entry import main

pwrite = os.pwrite

def stop(descriptor, data, offset):
    if not os.readlink(f"/proc/self/fd/{{descriptor}}").endswith(".safetensors"):
        return pwrite(descriptor, data, offset)
    count = pwrite(descriptor, data[: len(data) // 2 + 1], offset)
    os.pwrite = pwrite
    os.kill(os.getpid(), signal.{name})
    return count

signal.signal(signal.{name}, signal.SIG_DFL)  # whatever runs the tests may ignore it
{before}
os.pwrite = stop
main()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_does_not_tear_a_chunk(direction: Direction, name: str) -> None:
    before = tree(direction.source)
    ended = _stopped(direction, name)
    assert ended.returncode == 130
    assert "run again, goes on" in ended.stderr
    assert tree(direction.source) != before
    direction.back(direction.source)
    assert tree(direction.source) == before


TWICE = """
close = os.close

def interrupt_again(descriptor):
    close(descriptor)
    if os.pwrite is pwrite:
        os.kill(os.getpid(), signal.SIGINT)

os.close = interrupt_again
"""


def test_a_second_interrupt_says_the_same_as_the_first(direction: Direction) -> None:
    """It comes while the files are closed; all of the model's shards are."""
    ended = _stopped(direction, "SIGTERM", TWICE)
    assert ended.returncode == 130, ended.stderr
    assert f"{direction.source} may be partly patched" in ended.stderr
    assert "nothing was left" not in ended.stderr
    direction.run()
    assert tree(direction.source) == tree(direction.target)


def test_without_a_terminal_a_lost_one_is_of_no_account(direction: Direction) -> None:
    ended = _stopped(direction, "SIGHUP", "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    assert ended.returncode == 0, ended.stderr
    assert tree(direction.source) == tree(direction.target)


def _stopped(direction: Direction, name: str, before: str = "") -> subprocess.CompletedProcess[str]:
    script = STOPPED.format(name=name, before=before)
    command = [direction.name, str(direction.patch), str(direction.source), "--in-place"]
    return subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=False
    )


def test_a_killed_run_is_taken_back(direction: Direction) -> None:
    before = tree(direction.source)
    _kill(direction, 3, 0)
    report = direction.back(direction.source)
    assert tree(direction.source) == before
    assert (report.chunks, report.chunks_kept) == (3, CHUNKS - 3)


def test_a_torn_chunk_is_restored(direction: Direction) -> None:
    """Half of a chunk was written when the process was killed; both verbs go on from there."""
    before, wanted = tree(direction.source), tree(direction.target)
    _kill(direction, 2, 0.5)
    state = shutil.copytree(direction.source, direction.patch.parent / "state")
    report = direction.run()
    assert tree(direction.source) == wanted
    assert (report.chunks, report.chunks_kept, report.chunks_restored) == (CHUNKS - 2, 2, 1)
    report = direction.back(state)
    assert tree(state) == before
    assert (report.chunks, report.chunks_kept, report.chunks_restored) == (2, CHUNKS - 2, 1)


@pytest.mark.parametrize("shard", [FIRST, SECOND])
def test_mixed_states_are_completed(tmp_path: Path, direction: Direction, shard: str) -> None:
    mixed = partly_changed(direction, tmp_path / "mixed", shard)
    report = direction.run(mixed)
    assert tree(mixed) == tree(direction.target)
    assert (report.chunks, report.chunks_kept) == (CHUNKS // 2, CHUNKS // 2)
    assert report.files == (mixed / (SECOND if shard == FIRST else FIRST),)


def test_an_interrupt_between_chunks_says_how_to_go_on(direction: Direction) -> None:
    before, wanted = tree(direction.source), tree(direction.target)

    def interrupt(event: Any) -> None:
        if event.stage == direction.name and event.done >= 20_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command, run again, goes on"):
        direction.run(progress=interrupt, threads=1)
    assert tree(direction.source) not in (before, wanted)
    direction.run()
    assert tree(direction.source) == wanted


@pytest.mark.usefixtures("a_chunk_a_group")
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("number", [0, 4])
def test_a_write_that_fails_says_how_to_go_on(
    direction: Direction, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    wanted = tree(direction.target)
    calls, plain = iter(range(1000)), getattr(os, call)

    def fail(*arguments: Any) -> Any:
        if is_shard(arguments[0]) and next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*arguments)

    with monkeypatch.context() as patching:
        patching.setattr(os, call, fail)
        with pytest.raises(StorageError, match=r"the disk is full.*partly patched.*goes on"):
            direction.run(threads=1)
    direction.run()
    assert tree(direction.source) == wanted


def test_nothing_is_written_after_a_write_that_failed(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk may be torn then; of those that other threads have ready, none is begun."""
    calls: list[int] = []
    pwrite = os.pwrite

    def fail(descriptor: int, data: Any, offset: int) -> int:
        if not is_shard(descriptor):
            return pwrite(descriptor, data, offset)
        calls.append(offset)
        if len(calls) % 2:
            return pwrite(descriptor, data[: len(data) // 2], offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StorageError, match=r"cannot write .*Input/output error"):
        direction.run(threads=3)
    assert len(calls) == 2
