"""Scratch files: what does not fit into memory while a model is derived, and what was finished.

A scratch folder outlives a process that is killed. The next run with the same fingerprint goes on
from its notes. Nothing in it is made durable: it survives a kill, not a loss of power.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from patchc.durability import close, reserve_space
from patchc.errors import StorageError
from patchc.locks import LockFile
from patchc.regular_file import read_regular
from patchc.strict_json import parse_json
from patchc.system_errors import storage_errors

_NOTES = "notes.json"
_NEW = "notes.new"
_SUFFIX = ".scratch"
_LOCK = "in-use"
_MOST_BYTES = 64 << 20


class Scratch:
    """A folder of scratch files; a context manager that keeps others out of it.

    Attributes:
        folder: the folder.
        notes: what earlier runs with the same fingerprint have noted; JSON values.

    Args:
        folder: created if it is missing; what a run with another fingerprint left is removed, and
            nothing else.
        fingerprint: what the work depends on, as JSON values.

    Raises:
        InUseError: another process works there.
        StorageError: the folder cannot be made or emptied.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._open = ExitStack()
        self._files: dict[str, ScratchFile] = {}
        self._moved = 0
        with storage_errors(folder, "make"):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._open.enter_context(LockFile(folder / _LOCK, folder))
        try:
            found = _read_notes(folder)
            if found.get("fingerprint") != self._fingerprint:
                self._clear()
                found = {}
        except BaseException:
            self._open.close()
            raise
        self.notes: dict[str, Any] = found.get("notes", {})
        self._made: list[str] = found.get("files", [])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._files):
            self._close(name)
        self._open.close()

    def note(self, **notes: Any) -> None:
        """Add to the notes, or replace them; a kill leaves the old notes or the new ones.

        Raises:
            StorageError: the file cannot be written.
        """
        self.notes |= notes
        path = self.folder / _NOTES
        staging = self.folder / _NEW
        content = {"fingerprint": self._fingerprint, "notes": self.notes, "files": self._made}
        with storage_errors(path, "write"):
            staging.write_text(json.dumps(content), encoding="utf-8")
            staging.replace(path)

    def file(self, name: str, size: int) -> ScratchFile:
        """Open a file of ``size`` bytes that are all allocated; one of this size is taken over.

        Raises:
            StorageError: there is no room for it.
        """
        self._close(name)
        self._files[name] = ScratchFile(self.folder / f"{name}{_SUFFIX}", size)
        if name not in self._made:
            self._made.append(name)
        return self._files[name]

    @property
    def bytes_moved(self) -> int:
        """Bytes that were read from all files and written to them."""
        return self._moved + sum(file.bytes_moved for file in self._files.values())

    def remove_files(self, start: str) -> None:
        """Remove the files whose names start so, and what is noted under such names."""
        for name in [name for name in self._files if name.startswith(start)]:
            self._close(name)
        # Notes first: they must not outlive the files that they speak of.
        self.notes = {name: one for name, one in self.notes.items() if not name.startswith(start)}
        self._made = [name for name in self._made if not name.startswith(start)]
        self.note()
        with storage_errors(self.folder, "remove"):
            for path in self.folder.glob(f"{start}*{_SUFFIX}"):
                path.unlink()

    def remove(self) -> None:
        """Remove all scratch files, and the folder if nobody else has put something there.

        The notes go after the files that they speak of, and the lock last: until then, nobody else
        begins here.
        """
        for name in list(self._files):
            self._close(name)
        self._clear()
        self._lock.remove()
        self._open.close()
        with suppress(OSError):  # another process begins here, or others' files are there
            self.folder.rmdir()

    def _close(self, name: str) -> None:
        if name in self._files:
            file = self._files.pop(name)
            self._moved += file.bytes_moved
            file.close()

    def _clear(self) -> None:
        with storage_errors(self.folder, "empty"):
            for path in (
                *self.folder.glob(f"*{_SUFFIX}"),
                self.folder / _NEW,
                self.folder / _NOTES,
            ):
                path.unlink(missing_ok=True)


class ScratchFile:
    """A file that tensors are written to and read from; safe to read from several threads."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.bytes_moved = 0
        with storage_errors(path, "make"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                if os.fstat(self._descriptor).st_size != size:
                    os.ftruncate(self._descriptor, 0)
                    if size:
                        reserve_space(self._descriptor, size)
            except BaseException:
                # An empty one stays: notes of it may be there, and its absence would be damage.
                with suppress(OSError):
                    os.ftruncate(self._descriptor, 0)
                close(self._descriptor)
                raise

    def extend(self, size: int) -> None:
        """Allocate ``size`` bytes in all; what is there stays.

        Raises:
            StorageError: there is no room for it.
        """
        with storage_errors(self.path, "make"):
            if size > os.fstat(self._descriptor).st_size:
                reserve_space(self._descriptor, size)

    def close(self) -> None:
        """Close it; what it holds stays."""
        close(self._descriptor)

    def write(self, offset: int, values: Tensor) -> None:
        """Write a contiguous tensor of the CPU from byte ``offset`` on.

        Raises:
            StorageError: the disk is full, or fails.
        """
        view = _bytes_of(values)
        self.bytes_moved += view.nbytes
        with storage_errors(self.path, "write"):
            while view:
                count = os.pwritev(self._descriptor, [view], offset)
                view, offset = view[count:], offset + count

    def read(self, offset: int, values: Tensor) -> None:
        """Fill a contiguous tensor of the CPU with the bytes from ``offset`` on.

        Raises:
            StorageError: the file is shorter, or cannot be read.
        """
        view = _bytes_of(values)
        self.bytes_moved += view.nbytes
        with storage_errors(self.path, "read"):
            while view:
                count = os.preadv(self._descriptor, [view], offset)
                if count == 0:
                    raise StorageError(
                        f"{self.path}: the scratch file ends at byte {offset}; it was changed "
                        "while in use. Remove the scratch folder and start again"
                    )
                view, offset = view[count:], offset + count


def noted(folder: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run with this fingerprint has noted in a folder; nothing if none has."""
    found = _read_notes(folder)
    notes: dict[str, Any] = found.get("notes", {})
    return notes if found.get("fingerprint") == json.loads(json.dumps(fingerprint)) else {}


def _read_notes(folder: Path) -> dict[str, Any]:
    """Read the notes; none where a file that they speak of is gone."""
    try:
        found = parse_json(read_regular(folder / _NOTES, _MOST_BYTES))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or not isinstance(found.get("notes"), dict):
        return {}
    files = found.get("files")
    if not isinstance(files, list) or not all(map(_is_name, files)):
        return {}
    return found if all((folder / f"{name}{_SUFFIX}").exists() for name in files) else {}


def _is_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and "\0" not in name


def _bytes_of(values: Tensor) -> memoryview:
    return values.detach().view(-1).view(torch.uint8).numpy().data
