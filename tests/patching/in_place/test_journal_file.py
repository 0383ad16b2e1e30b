"""The journal's file: its room, its permission, and one that comes from a stranger."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_place_directions import (
    CHUNK_BYTES,
    TORN,
    Direction,
    journal_of,
    refused,
    tear,
)
from tiny_checkpoints import read_model, tree

import patchc
from patchc.errors import (
    StorageError,
    WrongBaseError,
)


def test_no_room_for_the_journal(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(direction.source)._replace(free=3_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    refused(direction, StorageError, r"\.patchc-journal: it needs .* 3,000 free")


@pytest.mark.parametrize("call", ["pwrite", "posix_fallocate"])
def test_the_disk_is_full_when_the_journal_is_written(
    direction: Direction, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    refused(direction, StorageError, "the disk is full")


def test_a_file_system_that_cannot_reserve_is_served(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    direction.run()
    assert tree(direction.source) == tree(direction.target)


def test_a_journal_that_cannot_be_removed_is_no_failure(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, **_options: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patching:
        patching.setattr(os, "unlink", refuse)
        direction.run()
    wanted = tree(direction.target)
    assert {**tree(direction.source), **wanted} == tree(direction.source)
    assert direction.run().chunks == 0
    assert tree(direction.source) == wanted


def test_a_read_only_model_is_refused_before_it_is_read(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.open

    def refuse(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return plain(path, flags, *more, **options)

    def unread(_event: object) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="the file system is read-only"):
        direction.run(progress=unread)


def test_a_dry_run_looks_for_permission(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    with pytest.raises(StorageError, match="keeps its journal"):
        direction.run(dry_run=True)


def _damaged(content: bytes) -> Iterator[bytes]:
    yield from (content[:size] for size in (0, 100, 512, 530, 560, 700, len(content) - 1))
    for place in (512, 520, 552, 553, 556, 600):
        yield content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def test_a_damaged_journal_changes_nothing_for_whole_chunks(cut_off: Direction) -> None:
    journal = journal_of(cut_off.source)
    shards = {path: path.read_bytes() for path in cut_off.source.glob("*.safetensors")}
    for content in _damaged(journal.read_bytes()):
        journal.write_bytes(content)
        assert patchc.verify(cut_off.patch, cut_off.source).state in ("base", "patched")
        cut_off.run()
        assert tree(cut_off.source) == tree(cut_off.target)
        for path, whole in shards.items():
            path.write_bytes(whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_no_bytes_of_a_journal_break_a_run(cut_off: Direction, data: st.DataObject) -> None:
    """A torn model with any journal is restored to a side exactly, or refused as it is."""
    journal, before = journal_of(cut_off.source), tree(cut_off.source)
    saved = journal.read_bytes()
    torn = tear(cut_off, 1)
    place = data.draw(st.integers(0, 3000) | st.integers(0, len(saved)))
    noise = data.draw(st.binary(min_size=1, max_size=40))
    journal.write_bytes(saved[:place] + noise + saved[place + len(noise) :])
    try:
        cut_off.run()
        assert tree(cut_off.source) == tree(cut_off.target)
    except WrongBaseError:
        assert read_model(cut_off.source)[TORN].data[:CHUNK_BYTES] == torn
    finally:
        for name, (_, content) in before.items():
            (cut_off.source / name).write_bytes(content)


@pytest.mark.parametrize("kind", ["folder", "link", "hard link"])
def test_something_else_in_the_journals_place(
    direction: Direction, tmp_path: Path, kind: str
) -> None:
    journal, other = journal_of(direction.source), tmp_path / "other"
    other.write_bytes(b"precious")
    if kind == "folder":
        journal.mkdir()
    elif kind == "link":
        journal.symlink_to(other)
    else:
        os.link(other, journal)
    with pytest.raises(patchc.PatchcError, match=r"\.patchc-journal"):
        direction.run()
    assert other.read_bytes() == b"precious"
