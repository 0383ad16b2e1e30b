"""Staged files and folders: whole or not at all, whatever the operating system refuses."""

from __future__ import annotations

import errno
import os
import shutil
from functools import partial
from itertools import permutations
from pathlib import Path

import pytest
from directions import Failing
from failing_renames import at_rename, fail_rename, hide_system_call
from staged_kinds import FILE, FOLDER, Kind, names, raising

from patchc.errors import CheckpointError, OutputError, StorageError
from patchc.files import copy_file


@pytest.fixture(params=[FILE, FOLDER], ids=["file", "folder"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def test_an_output_appears_when_the_block_ends(kind: Kind, tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep" / "out"
    with kind.stage(out) as staging:
        kind.place(staging).write_text("new")
        assert not out.exists()
        assert staging.parent == out.parent
        assert {name[:5] for name in names(out.parent)} == {".out."}
    assert kind.read(out) == "new"
    assert names(out.parent) == {"out"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(kind: Kind, tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "there").mkdir()
    for out in (tmp_path / "new" / "deep" / "out", tmp_path / "there" / "out"):
        with pytest.raises(error):
            kind.write(out, meanwhile=raising(error()))
    assert names(tmp_path) == {"there"}
    assert names(tmp_path / "there") == set()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_a_name_that_cannot_be_made_durable_is_taken_back(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The first sync is that of the content, the second that of the folder around it."""
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, 1, code))
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'out'}"):
        kind.write(tmp_path / "out")
    assert names(tmp_path) == set()


def test_an_empty_folder_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir(0o700)
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, 1, errno.EIO))
    with pytest.raises(StorageError):
        FOLDER.write(out)
    assert names(tmp_path) == {"out"}
    assert names(out) == set()
    assert out.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_syncs_is_served(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    kind.write(tmp_path / "new" / "out")
    assert kind.read(tmp_path / "new" / "out") == "new"


@pytest.mark.parametrize("code", [errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR])
def test_a_file_system_without_syncs_of_folders_is_served(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    opened = os.open

    def refuse(path: Path, flags: int, *mode: int) -> int:
        if Path(path).is_dir():
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    kind.write(tmp_path / "new" / "out")
    assert kind.read(tmp_path / "new" / "out") == "new"


# What is there already, or appears meanwhile -----------------------------------------------------


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("how", ["one call", None, errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_what_appears_meanwhile_is_not_replaced(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str | int | None, link: bool
) -> None:
    out = tmp_path / "out"
    if not isinstance(how, str):
        hide_system_call(monkeypatch, how)

    def appear() -> None:
        if link:
            out.symlink_to("nowhere")
        else:
            kind.make(out, "theirs")

    with pytest.raises(OutputError, match="has appeared meanwhile; remove it or choose another"):
        kind.write(out, meanwhile=appear)
    assert names(tmp_path) == {"out"}
    assert str(out.readlink()) == "nowhere" if link else kind.read(out) == "theirs"


def test_a_file_and_a_folder_do_not_replace_each_other(tmp_path: Path) -> None:
    for kind, other in permutations([FILE, FOLDER]):
        out = tmp_path / kind.stage.__name__ / "out"
        out.parent.mkdir()
        with pytest.raises(OutputError, match="has appeared meanwhile"):
            kind.write(out, meanwhile=partial(other.make, out, "theirs"), replace=True)
        assert other.read(out) == "theirs"
        assert names(out.parent) == {out.name}


def test_what_is_there_is_refused_before_the_work(kind: Kind, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kind.make(out, "theirs")
    with pytest.raises(OutputError, match=r"already exists|not empty"), kind.stage(out):
        raise AssertionError("the work has begun")
    assert kind.read(out) == "theirs"
    assert names(tmp_path) == {"out"}


def test_an_empty_folder_that_appears_meanwhile_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "out"
    FOLDER.write(out, meanwhile=out.mkdir)
    assert FOLDER.read(out) == "new"


@pytest.mark.parametrize("how", ["one call", None, errno.ENOSYS])
def test_an_output_is_replaced_on_request(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str | int | None
) -> None:
    if not isinstance(how, str):
        hide_system_call(monkeypatch, how)
    for text in ("one", "two"):
        kind.write(tmp_path / "out", text, replace=True)
        assert kind.read(tmp_path / "out") == text
        assert names(tmp_path) == {"out"}


@pytest.mark.parametrize("number", [0, 1])
def test_a_file_that_is_replaced_is_there_at_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whoever reads it meanwhile finds it, and so does who looks after a kill."""
    out, found = tmp_path / "out", []
    out.write_text("old")
    at_rename(monkeypatch, number, lambda: found.append(out.read_text()))
    FILE.write(out, replace=True)
    assert found == [("old", "new")[number]]
    assert out.read_text() == "new"
    assert names(tmp_path) == {"out"}


@pytest.mark.parametrize("call", ["first rename", "second rename", "sync"])
def test_what_is_not_replaced_comes_back(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    out = tmp_path / "out"
    kind.make(out, "old")
    if call == "sync":
        monkeypatch.setattr(os, "fsync", Failing(os.fsync, 1, errno.EIO))
    else:
        fail_rename(monkeypatch, int(call == "second rename"), errno.EIO)
    with pytest.raises(StorageError, match=f"cannot write {out}: Input/output error"):
        kind.write(out, replace=True)
    assert kind.read(out) == "old"
    assert names(tmp_path) == {"out"}


# Renames that fail -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EXDEV, "is on another file system than its folder; choose another path"),
        (errno.EBUSY, "is in use by the system; unmount it or choose another path"),
        (errno.EIO, "Input/output error; check the disk"),
    ],
)
def test_a_rename_that_fails_leaves_nothing(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    fail_rename(monkeypatch, 0, code)
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'out'}: .*{remedy}"):
        kind.write(tmp_path / "out")
    assert names(tmp_path) == set()


def test_an_interrupted_rename_is_tried_again(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_rename(monkeypatch, 0, errno.EINTR)
    kind.write(tmp_path / "out")
    assert kind.read(tmp_path / "out") == "new"


def test_an_interrupt_during_the_rename_leaves_nothing(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_rename(monkeypatch, 0, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        kind.write(tmp_path / "out")
    assert names(tmp_path) == set()


# What cannot be undone is named ------------------------------------------------------------------


def test_what_cannot_be_removed_is_named(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuse)
        patched.setattr(Path, "unlink", refuse)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.raises(StorageError, match="the disk is full") as raised:
            kind.write(tmp_path / "out", meanwhile=raising(full))
    left = names(tmp_path)
    assert len(left) == 2
    for name in left:
        assert f"{tmp_path / name} could not be removed (Input/output error)" in str(raised.value)
    kind.write(tmp_path / "out")
    assert names(tmp_path) == {"out"}


def test_an_output_that_cannot_be_taken_back_is_named(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, 1, errno.EIO))
    fail_rename(monkeypatch, 1, errno.EROFS)
    with pytest.raises(StorageError, match="out is there all the same, because"):
        kind.write(tmp_path / "out")
    assert kind.read(tmp_path / "out") == "new"
    assert names(tmp_path) == {"out"}


def test_what_was_there_and_cannot_come_back_is_named(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back with the next run, even if that fails too."""
    out = tmp_path / "out"
    kind.make(out, "old")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", Failing(os.fsync, 1, errno.EIO))
        fail_rename(patched, 3, errno.EIO)
        with pytest.raises(StorageError, match=r"what was at .*out is now at .*\.before, be"):
            kind.write(out, replace=True)
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt):
        kind.write(out, meanwhile=raising(KeyboardInterrupt()), replace=True)
    assert kind.read(out) == "old"
    assert names(tmp_path) == {"out"}


# Copies ------------------------------------------------------------------------------------------


def test_a_copy_has_content_and_permission_bits(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 7)
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "source").chmod(0o640)
    copy_file(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_permission_bits_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "source").write_text("text")
    monkeypatch.setattr(os, "fchmod", Failing(os.fchmod, 0, code))
    copy_file(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "text"


def test_a_source_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_text("text")

    def refuse(path: Path, _flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match="source: cannot read: Permission denied"):
        copy_file(tmp_path / "source", tmp_path / "copy")
