"""Shards of derived models, on a disk that takes no more."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from patchc.derivation.output import write_shards
from patchc.errors import StorageError


@contextmanager
def most_bytes(limit: int) -> Iterator[None]:
    """Files of this process may have so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(folder: Path) -> None:
    write_shards(folder, "model", {"a": 40_000}, lambda _: torch.zeros(10_000), 1 << 20)


def test_a_shard_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    shard = tmp_path / "model.safetensors"
    with most_bytes(20_000), pytest.raises(StorageError, match=f"cannot write {shard}: .*this si"):
        write(tmp_path)


def test_a_file_system_without_permission_bits_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    write(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size > 40_000
