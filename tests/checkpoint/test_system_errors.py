"""Errors of the system at a model's files: those that count, and those that take nothing away."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import PatchedModel, tree

import patchc
from patchc.errors import CheckpointError


def _fail(code: int, *_arguments: Any, **_options: Any) -> Any:
    raise OSError(code, os.strerror(code))


def test_a_folder_that_cannot_be_looked_at_is_not_left_out(
    patched: PatchedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error is not taken for the answer that it is no folder."""
    look = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path == patched.base / "assets":
            _fail(errno.EIO)
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(CheckpointError, match="assets: cannot look at it: Input/output error"):
        patchc.apply(patched.patch, patched.base, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_that_leads_nowhere_is_named(patched: PatchedModel, tmp_path: Path) -> None:
    (patched.base / "notes.txt").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"notes\.txt: not a regular file"):
        patchc.apply(patched.patch, patched.base, out=tmp_path / "out")


@pytest.mark.parametrize("in_place", [True, False])
def test_an_output_counts_though_an_input_cannot_be_closed(
    patched: PatchedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    close = os.close

    def fail(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        close(descriptor)
        if path == patched.patch or (path.parent == patched.base and path.suffix):
            _fail(errno.EIO)

    _replace(monkeypatch, "close", fail)
    options: dict[str, Any] = {"in_place": True} if in_place else {"out": tmp_path / "out"}
    patchc.apply(patched.patch, patched.base, **options)
    result = patched.base if in_place else tmp_path / "out"
    assert tree(result) == tree(patched.tuned)


def test_shards_that_cannot_be_synced_are_served(
    patched: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that offer no sync."""
    for name in ("fsync", "fdatasync"):
        _replace(monkeypatch, name, lambda _descriptor: _fail(errno.EINVAL))
    patchc.apply(patched.patch, patched.base, in_place=True)
    assert tree(patched.base) == tree(patched.tuned)


def _replace(monkeypatch: pytest.MonkeyPatch, name: str, function: Callable[[int], None]) -> None:
    monkeypatch.setattr(os, name, function)
