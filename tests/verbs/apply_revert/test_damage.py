"""Damaged patches and models, and disks that fail: all or nothing is written."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from directions import CHANGED, SECOND, Direction, Failing, refused
from forged_patch import parts_of
from tiny_checkpoints import (
    names_of,
    tree,
)

import patchc
from patchc.errors import (
    CheckpointError,
    PatchcError,
    PatchFormatError,
    ResultMismatchError,
    StorageError,
)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_a_truncated_shard_is_refused(direction: Direction, kept: int) -> None:
    shard = direction.source / SECOND
    os.truncate(shard, kept if kept >= 0 else shard.stat().st_size - 1)
    refused(direction, CheckpointError, SECOND)


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_truncated_patch_is_refused(direction: Direction, kept: int) -> None:
    size = direction.patch.stat().st_size
    os.truncate(direction.patch, kept if kept >= 0 else size - 1)
    refused(direction, PatchFormatError, "update.patchc")


def test_a_damaged_body_is_refused(direction: Direction) -> None:
    with patchc.open_patch(direction.patch) as opened:
        record = opened.index.tensors[CHANGED[3]]
        offset = opened.index.chunk(record.chunks[1]).offset
    content = bytearray(direction.patch.read_bytes())
    content[offset + 1] ^= 0x10
    direction.patch.write_bytes(content)
    refused(direction, PatchFormatError, f"{CHANGED[3]}.*chunk 1")


@pytest.mark.parametrize(
    ("digest", "error", "match"),
    [
        ("bodies_digest", PatchFormatError, r"update\.patchc: the digest over all chunk bodies"),
        ("base_digest", ResultMismatchError, "every chunk matches and the model's digest does not"),
        (
            "result_digest",
            ResultMismatchError,
            "every chunk matches and the model's digest does not",
        ),
    ],
)
def test_long_digests_stand_behind_short_ones(
    direction: Direction, digest: str, error: type[PatchcError], match: str
) -> None:
    """Every short digest fits, as a forger of theirs would see to, and the long one does not."""
    parts = parts_of(direction.patch.read_bytes())
    forged = bytes(31) + b"\1"
    direction.patch.write_bytes(parts.with_columns(**{digest: forged}).assemble())
    refused(direction, error, match)


def test_folder_in_place_of_a_shard(direction: Direction) -> None:
    (direction.source / SECOND).unlink()
    (direction.source / SECOND).mkdir()
    refused(direction, CheckpointError, SECOND)


def test_side_file_that_cannot_be_copied(direction: Direction) -> None:
    (direction.source / "zz.json").symlink_to("nowhere")
    refused(direction, CheckpointError, r"zz\.json: not a regular file")


def test_a_read_error_leaves_nothing(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", Failing(os.preadv, 9, errno.EIO))
    refused(direction, CheckpointError, "cannot read at byte .*Input/output error")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", [1, 2, 3, 10])  # the first tells who holds the lock
def test_a_write_error_leaves_nothing(
    direction: Direction, monkeypatch: pytest.MonkeyPatch, call: int, code: int
) -> None:
    monkeypatch.setattr(os, "pwrite", Failing(os.pwrite, call, code))
    message = "the disk is full" if code == errno.ENOSPC else "Input/output error"
    refused(direction, StorageError, message)


def test_short_writes_are_continued(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:1000], at))
    direction.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(direction.target)


def test_an_error_at_any_sync_leaves_nothing(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail the first sync, then the second, and so on, until a run needs no more of them."""
    fsync, names, failures = os.fsync, names_of(tmp_path), 0
    while True:
        monkeypatch.setattr(os, "fsync", Failing(fsync, failures, errno.ENOSPC))
        try:
            direction.run(tmp_path / "new" / "out")
        except StorageError:
            failures += 1
            assert names_of(tmp_path) == names
        else:
            break
    assert failures == 1 + 2 + 4 + 2 + 1  # new folder, shards, side files, their folders, parent
    assert tree(tmp_path / "new" / "out") == tree(direction.target)


def test_too_little_space_is_seen_before_anything_is_written(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(direction.patch.parent)._replace(free=60_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    monkeypatch.setattr(os, "pwrite", None)  # any write would fail in another way
    refused(direction, StorageError, "60,000 free")
