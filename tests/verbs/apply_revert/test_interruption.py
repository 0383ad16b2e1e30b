"""Models that change during a run, interrupts, signals and limits."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from directions import SECOND, Direction, Failing
from tiny_checkpoints import (
    PatchedModel,
    names_of,
    tree,
)

import patchc
from patchc.errors import (
    CheckpointError,
    StorageError,
)


def test_bytes_that_change_during_the_run(direction: Direction) -> None:
    shard = direction.source / SECOND
    before = shard.read_bytes()

    def change(_event: object) -> None:
        with shard.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(bytes([before[-1] ^ 1]))

    out = direction.patch.parent / "out"
    with pytest.raises(CheckpointError, match=f"{SECOND}: was changed while in use"):
        direction.run(out, threads=1, progress=change)
    assert not out.exists()


def test_a_shard_cut_during_the_run(direction: Direction) -> None:
    def cut(_event: object) -> None:
        os.truncate(direction.source / SECOND, 4000)

    names = names_of(direction.patch.parent)
    with pytest.raises(CheckpointError, match="was it changed while in use"):
        direction.run(direction.patch.parent / "out", threads=1, progress=cut)
    assert names_of(direction.patch.parent) == names


HELD = """
import os, signal, sys, time
from patchc.cli.entry import main

fsync, calls = os.fsync, iter(range(1000))

def hold(descriptor):
    if next(calls) == 4:  # the side files are in place and all weights are written
        print("started", flush=True)
        time.sleep(600)
    fsync(descriptor)

os.fsync = hold
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "patchc"
main()
"""

LIMITED = """
import resource, sys
import patchc

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]),) * 2)
try:
    getattr(patchc, sys.argv[1])(sys.argv[2], sys.argv[3], out=sys.argv[4])
except patchc.PatchcError as error:
    print(type(error).__name__, error)
"""


def test_interrupt_raised_by_the_callback(direction: Direction) -> None:
    def interrupt(_event: object) -> None:
        raise KeyboardInterrupt

    names = names_of(direction.patch.parent)
    with pytest.raises(KeyboardInterrupt):
        direction.run(direction.patch.parent / "out", progress=interrupt)
    assert names_of(direction.patch.parent) == names


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_in_the_middle_leaves_no_output(
    tmp_path: Path, direction: Direction, number: signal.Signals
) -> None:
    """After an interrupt nothing is left; after a kill hidden files, until the next run."""
    names, before = names_of(tmp_path), tree(direction.source)
    command = [sys.executable, "-c", HELD, direction.name]
    paths = [str(direction.patch), str(direction.source), "-o", str(tmp_path / "out")]
    with subprocess.Popen(
        [*command, *paths], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert not (tmp_path / "out").exists()
        process.send_signal(number)
        assert process.wait(timeout=60) != 0
    left = sorted(set(names_of(tmp_path)) - set(names))
    if number == signal.SIGKILL:
        assert len(left) == 2
        assert re.fullmatch(r"\.out\.[0-9a-f]{8}\.partial", left[0])
        assert left[1] == ".out.patchc-lock"
    else:
        assert left == []
    assert tree(direction.source) == before
    direction.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(direction.target)
    assert set(names_of(tmp_path)) == {*names, "out"}


@pytest.mark.parametrize("limit", [1000, 20_000])
def test_a_file_size_limit_leaves_nothing(tmp_path: Path, direction: Direction, limit: int) -> None:
    names, before = names_of(tmp_path), tree(direction.source)
    paths = [str(direction.patch), str(direction.source), str(tmp_path / "out")]
    finished = subprocess.run(
        [sys.executable, "-c", LIMITED, direction.name, *paths, str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.startswith("StorageError")
    assert "does not allow a file of this size" in finished.stdout
    assert names_of(tmp_path) == names
    assert tree(direction.source) == before


@pytest.mark.parametrize("call", [0, 1, 2])
def test_full_disk_while_a_patch_is_written(
    tmp_path: Path, patched: PatchedModel, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """The sync for a new folder fails, then the patch's own, then that for its name."""
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, call, errno.ENOSPC))
    names = names_of(tmp_path)
    with pytest.raises(StorageError, match="the disk is full"):
        patchc.diff(patched.base, patched.tuned, out=tmp_path / "new" / "x", chunk_bits=12)
    assert names_of(tmp_path) == names
