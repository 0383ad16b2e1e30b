"""Outputs on mount points, and others whose place no rename can give to another folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from directions import Failing
from failing_renames import at_rename, fail_rename
from filled_folders import ENTRIES, INDEX, write
from staged_kinds import FILE, FOLDER, names, raising
from tiny_checkpoints import PatchedModel, tree

import patchc
from patchc.errors import InUseError, OutputError, StorageError
from patchc.files import staged_folder
from patchc.output_checks import check_output, check_space
from patchc.output_place import is_mount_point


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that passes for a mount point."""
    folder = tmp_path / "volume"
    folder.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    return folder


def test_a_model_is_written_into_a_mount_point(volume: Path, patched: PatchedModel) -> None:
    patchc.apply(patched.patch, patched.base, out=volume)
    assert tree(volume) == tree(patched.tuned)


def test_all_is_staged_inside(volume: Path, tmp_path: Path) -> None:
    def look() -> None:
        assert names(tmp_path) == {"volume"}
        assert {name.split(".")[1] for name in names(volume)} == {"output"}

    write(volume, look)
    assert names(volume) == ENTRIES
    assert names(volume / "assets") == {"x"}


@pytest.mark.parametrize("entries", [ENTRIES, {"b", "a"}, {"model.safetensors", "z.json"}])
def test_what_makes_a_model_loadable_is_moved_last(
    volume: Path, monkeypatch: pytest.MonkeyPatch, entries: set[str]
) -> None:
    """At the last rename all but one entry are there, and the list of them is on disk."""
    loadable = {"model.safetensors", INDEX}

    def look() -> None:
        assert len(entries - names(volume)) == 1
        assert not names(volume) & loadable
        assert any(name.endswith(".moves") for name in names(volume))
        seen.append(True)

    seen: list[bool] = []
    at_rename(monkeypatch, len(entries) - 1, look)
    with staged_folder(volume) as staging:
        for name in entries:
            (staging / name).touch()
    assert seen
    assert names(volume) == entries


@pytest.mark.parametrize("number", range(len(ENTRIES)))
@pytest.mark.parametrize("code", [errno.EXDEV, errno.EIO])
def test_a_move_that_fails_leaves_nothing(
    volume: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    fail_rename(monkeypatch, number, code)
    with pytest.raises(StorageError, match=f"cannot write {volume}: "):
        write(volume)
    assert names(volume) == set()


@pytest.mark.parametrize("number", range(6))
def test_a_sync_that_fails_leaves_nothing(
    volume: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Of the two folders, of the list and for its name, and after the moves."""
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, number, errno.EIO))
    if number < 5:
        with pytest.raises(StorageError, match=f"cannot write {volume}: Input/output error"):
            write(volume)
        assert names(volume) == set()
    else:
        write(volume)
        assert names(volume) == ENTRIES


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("number", [-1, 0, 3, 5])
def test_an_error_leaves_nothing_in_the_mount_point(
    volume: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], number: int
) -> None:
    """Before the moves, or in the middle of them."""
    at_rename(monkeypatch, number, raising(error()))
    with pytest.raises(error):
        write(volume, raising(error()) if number < 0 else lambda: None)
    assert names(volume) == set()


@pytest.mark.parametrize("name", ["assets", "zz.json", INDEX])
def test_what_appears_in_the_mount_point_is_left_alone(volume: Path, name: str) -> None:
    with pytest.raises(OutputError, match=f"output {volume / name} has appeared meanwhile"):
        write(volume, lambda: (volume / name).write_text("theirs"))
    assert names(volume) == {name}
    assert (volume / name).read_text() == "theirs"


def test_what_cannot_be_removed_again_is_named(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    fail_rename(monkeypatch, 3, errno.EIO)
    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(StorageError, match=f"{volume / 'assets'} could not be removed"):
        write(volume)


def test_one_process_at_a_time_fills_a_mount_point(volume: Path) -> None:
    def second() -> None:
        for call in (write, lambda out: check_output(out, ())):
            with pytest.raises(InUseError, match=f"{volume} is in use: process {os.getpid()} on "):
                call(volume)

    write(volume, second)
    assert names(volume) == ENTRIES


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
from failing_renames import at_rename
from filled_folders import write

volume = Path(sys.argv[1])
os.path.ismount = lambda path: Path(path) == volume
at_rename(pytest.MonkeyPatch(), int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
if sys.argv[2] == "6":
    os.rmdir = Path.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
write(volume)
"""


def kill(volume: Path, number: int) -> None:
    """Kill a process at a rename, or at number 6 after the last."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(volume), str(number)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize("number", range(6))
def test_a_killed_process_leaves_no_model_and_its_rest_is_removed(
    volume: Path, number: int
) -> None:
    kill(volume, number)
    assert INDEX not in names(volume)
    assert len(names(volume) & ENTRIES) == number
    left = names(volume)
    check_output(volume, ())
    assert names(volume) == left
    with pytest.raises(KeyboardInterrupt):
        write(volume, raising(KeyboardInterrupt()))
    assert names(volume) == set()
    write(volume)
    assert names(volume) == ENTRIES


def test_a_model_is_complete_once_its_last_entry_is_moved(volume: Path) -> None:
    kill(volume, 6)
    assert names(volume) >= ENTRIES
    for call in (write, lambda out: check_output(out, ())):
        with pytest.raises(OutputError, match="is not empty"):
            call(volume)
    assert names(volume) == ENTRIES


def test_what_was_put_in_the_place_of_a_rest_is_left_alone(volume: Path) -> None:
    kill(volume, 5)
    (volume / "config.json").unlink()
    (volume / "config.json").write_text("theirs")
    for call in (write, lambda out: check_output(out, ())):
        with pytest.raises(OutputError, match="is not empty"):
            call(volume)
    assert names(volume) == {"config.json"}


def test_a_list_that_is_cut_short_names_nothing(volume: Path) -> None:
    (volume / ".output.0123abcd.partial").mkdir()
    (volume / ".output.0123abcd.moves").write_text('{"config.json": [1')
    check_output(volume, ())
    write(volume)
    assert names(volume) == ENTRIES


# Which folders these are -------------------------------------------------------------------------


def test_the_system_tells_its_mount_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that stay on one device, which are listed with escapes."""
    assert is_mount_point(Path("/proc"))
    assert not is_mount_point(tmp_path)
    assert not is_mount_point(tmp_path / "none")
    listed = str(tmp_path / "a b").replace(" ", r"\040")
    line = f"36 35 98:0 /mnt1 {listed} rw,noatime master:1 - ext3 /dev/root rw\n"
    monkeypatch.setattr(Path, "read_bytes", lambda _: line.encode())
    assert is_mount_point(tmp_path / "a b")
    assert not is_mount_point(tmp_path)


def test_a_file_on_a_mount_point_is_refused(volume: Path) -> None:
    volume.rmdir()
    volume.write_text("theirs")
    with pytest.raises(OutputError, match="is a mount point"):
        FILE.write(volume, replace=True)
    assert volume.read_text() == "theirs"


def test_the_working_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    inode = Path().stat().st_ino
    check_output(Path(), ())
    write(Path())
    assert names(Path()) == ENTRIES
    assert (tmp_path / "here" / "below").stat().st_ino == inode
    with pytest.raises(OutputError, match="is not empty"):
        check_output(Path(".."), ())


def test_only_a_mount_point_is_not_replaced(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (volume, tmp_path / "plain"):
        FOLDER.make(folder, "old")
    monkeypatch.chdir(tmp_path / "plain")
    FOLDER.write(tmp_path / "plain", replace=True)
    assert FOLDER.read(tmp_path / "plain") == "new"
    with pytest.raises(OutputError, match="is not empty"):
        FOLDER.write(volume, replace=True)
    assert FOLDER.read(volume) == "old"
    assert names(tmp_path) == {"plain", "volume"}


def test_a_folder_in_a_folder_that_may_not_be_written_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "closed" / "out"
    out.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, _: path != out.parent)
    check_output(out, ())
    write(out)
    assert names(out.parent) == {"out"}
    assert names(out) == ENTRIES


def test_space_is_that_of_the_mounted_file_system(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    free = {volume: 100, tmp_path: 10**9}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[path]))
    (tmp_path / "plain").mkdir()
    check_space(tmp_path / "plain", 1000)
    check_space(volume, 100)
    with pytest.raises(StorageError, match=f"{volume} has 100 free"):
        check_space(volume, 101)


def test_a_list_from_a_stranger_removes_nothing_elsewhere(tmp_path: Path) -> None:
    """Names that lead out of the folder, other JSON, and a pipe in a list's place."""
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    (victim / "precious").touch()
    state = victim.lstat()
    lists = [
        json.dumps({"../victim": [state.st_ino, state.st_mtime_ns], "zz": [1, 1]}),
        "5",
        "null",
        "[1]",
        "[" * 100_000,
    ]
    for content in lists:
        out.mkdir()
        (out / ".output.deadbeef.moves").write_text(content)
        (out / ".output.deadbeef.partial").mkdir()
        (out / ".output.deadbeef.partial" / "zz").touch()
        with staged_folder(out) as staging:
            (staging / "model.safetensors").touch()
        assert (victim / "precious").exists()
        assert [path.name for path in out.iterdir()] == ["model.safetensors"]
        shutil.rmtree(out)
    os.mkfifo(tmp_path / ".out.deadbeef.moves")
    with staged_folder(out) as staging:
        (staging / "model.safetensors").touch()
    assert not (tmp_path / ".out.deadbeef.moves").exists()
