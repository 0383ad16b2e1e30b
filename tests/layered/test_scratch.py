"""Scratch folders: what outlives a run, what does not, and disks that are full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from patchc.errors import InUseError, StorageError
from patchc.layered.scratch import Scratch, noted

PRINT = {"options": {"steps": 3}, "shards": [1, 2]}
VALUES = torch.arange(10, dtype=torch.float32)


def read(scratch: Scratch, name: str = "states") -> torch.Tensor:
    values = torch.empty(10)
    scratch.file(name, 40).read(0, values)
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a run has left that was interrupted."""
    with Scratch(tmp_path / "scratch", PRINT) as scratch:
        scratch.file("states", 40).write(0, VALUES)
        scratch.note(step=2, states="there")
    return tmp_path / "scratch"


def test_the_same_run_goes_on(folder: Path) -> None:
    with Scratch(folder, PRINT) as scratch:
        assert scratch.notes == noted(folder, PRINT) == {"step": 2, "states": "there"}
        assert torch.equal(read(scratch), VALUES)


def test_another_one_starts_anew(folder: Path) -> None:
    other = {**PRINT, "shards": [1, 3]}
    assert noted(folder, other) == {}
    with Scratch(folder, other) as scratch:
        assert scratch.notes == {}
        assert not read(scratch).any()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"notes": {"step": 1}}'])
def test_damaged_notes_start_anew(folder: Path, content: bytes) -> None:
    (folder / "notes.json").write_bytes(content)
    with Scratch(folder, PRINT) as scratch:
        assert scratch.notes == {}
        assert not read(scratch).any()


def test_a_file_that_is_gone_starts_anew(folder: Path) -> None:
    """Some systems remove old files of folders for temporary ones, and newer notes stay."""
    (folder / "states.scratch").unlink()
    assert noted(folder, PRINT) == {}
    with Scratch(folder, PRINT) as scratch:
        assert scratch.notes == {}


def test_a_full_disk_when_a_file_is_made_anew_leaves_the_notes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with Scratch(folder, PRINT) as scratch, pytest.raises(StorageError, match="the disk is full"):
        scratch.file("states", 80)
    assert noted(folder, PRINT) == {"step": 2, "states": "there"}


def test_a_file_of_another_size_starts_anew(folder: Path) -> None:
    with Scratch(folder, PRINT) as scratch:
        values = torch.ones(5)
        scratch.file("states", 20).read(0, values)
        assert not values.any()


def test_notes_do_not_outlive_their_files(folder: Path) -> None:
    with Scratch(folder, PRINT) as scratch:
        scratch.remove_files("sta")
        assert not (folder / "states.scratch").exists()
    assert noted(folder, PRINT) == {"step": 2}


def test_it_is_removed_with_all_that_is_in_it(folder: Path) -> None:
    with Scratch(folder, PRINT) as scratch:
        scratch.file("other", 8)
        scratch.remove()
    assert not folder.exists()


def test_what_others_have_put_there_stays(folder: Path) -> None:
    for name in ("states.bak", "notes.txt"):
        (folder / name).write_bytes(b"theirs")
    (folder / "states.d").mkdir()
    with Scratch(folder, {}) as scratch:
        scratch.remove_files("states")
        scratch.remove()
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "states.bak", "states.d"]


def test_a_link_is_not_written_through(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (folder / "other.scratch").symlink_to(tmp_path / "theirs")
    with Scratch(folder, PRINT) as scratch, pytest.raises(StorageError, match=r"other\.scratch"):
        scratch.file("other", 40)
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_bytes_that_were_moved_count_when_their_file_is_gone(folder: Path) -> None:
    with Scratch(folder, PRINT) as scratch:
        read(scratch)
        scratch.file("states", 40).write(0, VALUES)
        assert scratch.bytes_moved == 80
        scratch.remove_files("states")
        assert scratch.bytes_moved == 80


def test_two_cannot_work_in_one_folder(folder: Path) -> None:
    with Scratch(folder, PRINT), pytest.raises(InUseError, match=str(folder)):
        Scratch(folder, {})
    with Scratch(folder, PRINT) as scratch:
        assert torch.equal(read(scratch), VALUES)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwritev"])
def test_a_full_disk_leaves_what_was_there(
    folder: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Scratch(folder, PRINT) as scratch, monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageError, match="the disk is full; free space"):
            scratch.file("other", 40).write(0, VALUES)
    with Scratch(folder, PRINT) as scratch:
        assert scratch.notes == {"step": 2, "states": "there"}
        assert torch.equal(read(scratch), VALUES)
        scratch.file("other", 40).write(0, VALUES)
        assert torch.equal(read(scratch, "other"), VALUES)


def test_writes_and_reads_in_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to the system may do less than it was asked for."""
    write, fill = os.pwritev, os.preadv
    monkeypatch.setattr(os, "pwritev", lambda f, views, at: write(f, [views[0][:7]], at))
    monkeypatch.setattr(os, "preadv", lambda f, views, at: fill(f, [views[0][:3]], at))
    with Scratch(tmp_path, PRINT) as scratch:
        scratch.file("states", 44).write(4, VALUES)
        found = torch.empty(11)
        scratch.file("states", 44).read(0, found)
    assert found.tolist() == [0.0, *VALUES.tolist()]


def test_a_file_that_was_cut_is_named(folder: Path) -> None:
    with Scratch(folder, PRINT) as scratch:
        file = scratch.file("states", 40)
        os.truncate(folder / "states.scratch", 30)
        with pytest.raises(
            StorageError, match=r"states\.scratch: the scratch file ends at byte 30"
        ):
            file.read(0, torch.empty(10))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        Scratch(tmp_path / "file/scratch", PRINT)
