"""One process at a time works on an output, and the next one removes what a killed one left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from staged_kinds import FILE, FOLDER, Kind, names, raising

from patchc.errors import InUseError, OutputError, StorageError
from patchc.output_checks import check_output

OTHER = """
import sys
from pathlib import Path
from patchc import files

with getattr(files, sys.argv[2])(Path(sys.argv[1]), replace=len(sys.argv) > 3) as staging:
    (staging / "part" if sys.argv[2] == "staged_folder" else staging).write_text("half")
    print("started", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(kind: Kind, out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that works on an output until its input is closed."""
    line = [sys.executable, "-c", OTHER, str(out), kind.stage.__name__, *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        yield process


@pytest.fixture(params=[FILE, FOLDER], ids=["file", "folder"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.mark.parametrize("first", [FILE, FOLDER])
def test_a_second_process_is_told_who_works_there(kind: Kind, first: Kind, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with other_process(first, out) as other:
        told = f"{re.escape(str(out))} is in use: process {other.pid} on .* works there"
        before = names(out.parent)
        with pytest.raises(InUseError, match=told):
            kind.write(out)
        with pytest.raises(InUseError, match=told):
            check_output(out, ())
        assert names(out.parent) == before
        kind.write(tmp_path / "new" / "other")
        other.communicate()
    assert first.read(out) == "half"
    assert names(out.parent) == {"out", "other"}
    with pytest.raises(OutputError, match=r"already exists|not empty"):
        check_output(out, ())


def test_a_second_thread_is_told_too(kind: Kind, tmp_path: Path) -> None:
    def second() -> None:
        with pytest.raises(InUseError, match=f"process {os.getpid()} on "):
            kind.write(tmp_path / "out", "second")

    kind.write(tmp_path / "out", "first", meanwhile=second)
    assert kind.read(tmp_path / "out") == "first"


def test_a_link_and_what_it_leads_to_are_one_output(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    def second() -> None:
        with pytest.raises(InUseError, match="link is in use"):
            check_output(tmp_path / "link", ())

    FOLDER.write(tmp_path / "real", meanwhile=second)
    assert FOLDER.read(tmp_path / "link") == "new"


@pytest.mark.parametrize("first", [FILE, FOLDER])
def test_what_a_killed_process_left_is_removed(kind: Kind, first: Kind, tmp_path: Path) -> None:
    """By the next run, even one that fails; what another run left for another output stays."""
    with other_process(first, tmp_path / "out") as killed, other_process(first, tmp_path / "o"):
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(60) == -signal.SIGKILL
        left = names(tmp_path)
        assert {name.split(".")[1] for name in left} == {"out", "o"}
        assert len(left) == 4
        check_output(tmp_path / "out", ())
        assert names(tmp_path) == left
        with pytest.raises(KeyboardInterrupt):
            kind.write(tmp_path / "out", meanwhile=raising(KeyboardInterrupt()))
        assert {name.split(".")[1] for name in names(tmp_path)} == {"o"}
        kind.write(tmp_path / "out")
    assert kind.read(tmp_path / "out") == "new"


def test_what_was_replaced_comes_back_after_a_kill(kind: Kind, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kind.make(tmp_path / ".out.0123abcd.before", "old")
    kind.make(tmp_path / ".out.0123abcd.partial", "half")
    with pytest.raises(KeyboardInterrupt):
        kind.write(out, meanwhile=raising(KeyboardInterrupt()), replace=True)
    assert kind.read(out) == "old"
    assert names(tmp_path) == {"out"}


def test_other_hidden_files_stay(kind: Kind, tmp_path: Path) -> None:
    mine = {".out.partial", ".out.lock", ".out.0123abcd.txt", ".output.0123abcd.partial", "out~"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    kind.write(tmp_path / "out")
    assert names(tmp_path) == {"out", *mine}


def test_a_lock_file_that_is_something_else_is_left_alone(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / ".out.patchc-lock").mkdir()
    with pytest.raises((OutputError, StorageError), match=r"\.out\.patchc-lock"):
        kind.write(tmp_path / "out")
    assert names(tmp_path) == {".out.patchc-lock"}


# Names -------------------------------------------------------------------------------------------

LONG = ["n" * 245, "n" * 255, "é" * 127, "漢" * 85, "a" + "漢" * 84 + "b"]


@pytest.mark.parametrize("name", [*LONG, "two\nlines", "[a-z]*", os.fsdecode(b"\xff" * 255)])
def test_every_name_that_a_file_system_takes_is_served(
    kind: Kind, tmp_path: Path, name: str
) -> None:
    check_output(tmp_path / name, ())
    hidden: set[str] = set()
    kind.write(tmp_path / name, meanwhile=lambda: hidden.update(names(tmp_path)))
    assert kind.read(tmp_path / name) == "new"
    assert names(tmp_path) == {name}
    assert max(len(os.fsencode(one)) for one in hidden) <= 143


def test_long_names_with_one_beginning_do_not_meet(kind: Kind, tmp_path: Path) -> None:
    first, second = tmp_path / ("n" * 250 + "1"), tmp_path / ("n" * 250 + "2")
    kind.write(first, "1", meanwhile=lambda: kind.write(second, "2"))
    assert (kind.read(first), kind.read(second)) == ("1", "2")


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128, "p/" * 2040 + "x" * 30, "n" * 300 + "/x"])
def test_a_name_that_is_too_long_is_told(kind: Kind, tmp_path: Path, name: str) -> None:
    for call in (kind.write, lambda out: check_output(out, ())):
        with pytest.raises(StorageError, match="the name or the path is too long; choose a short"):
            call(tmp_path / name)
    assert names(tmp_path) == set()
