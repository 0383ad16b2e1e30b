"""A folder on a disk that loses power: what was not synced is dropped, kept, or torn at sectors.

While it is entered, the calls of this process that change files of the folder are counted and
remembered until they are synced. :meth:`SimulatedDisk.after_loss` writes what a disk may hold after
a power loss: of each file, what was synced, and of each later write any of its 512-byte sectors;
of each folder, what was synced, and any number of the first of its later changes of names.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512


class PowerLoss(BaseException):
    """The power went; every later call ends with it too."""


@dataclass
class _File:
    """What a disk knows of a file: its content at the last sync, and the writes since then."""

    durable: bytes
    writes: list[tuple[int, bytes]] = field(default_factory=list)

    def after_loss(self, rng: random.Random) -> bytes:
        share = rng.choice((0.0, 0.5, 0.9, 1.0))
        content = bytearray(self.durable)
        for offset, data in self.writes:
            for start in range(-(offset % SECTOR), len(data), SECTOR):
                cut = slice(max(start, 0), min(start + SECTOR, len(data)))
                if rng.random() < share:
                    end = offset + cut.stop
                    content.extend(bytes(max(0, end - len(content))))
                    content[offset + cut.start : end] = data[cut]
        return bytes(content)


class SimulatedDisk:
    """Watches a folder without subfolders; a context manager around the run to be cut off.

    Args:
        folder: a model's folder.
        fails_at: the number, from 0, of the call at which the power goes; None lets all pass.
        calls_halfway: whether the write at which it goes has reached the cache in half.
    """

    def __init__(self, folder: Path, fails_at: int | None, calls_halfway: bool = False) -> None:
        self.calls = 0
        self._folder = os.fspath(folder)
        self._fails_at = fails_at
        self._halfway = calls_halfway
        self._files = {path: _File(Path(path).read_bytes()) for path in self._paths()}
        self._names: dict[str, _File] = dict(self._files)  # as the folder has them when synced
        self._renamings: list[tuple[str, str, _File]] = []
        self._open: dict[int, str] = {}
        self._lost = False
        self._lock = threading.RLock()
        self._plain: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> SimulatedDisk:
        for name in ("open", "close", "pwrite", "fsync", "fdatasync", "unlink", "posix_fallocate"):
            self._plain[name] = getattr(os, name)
            setattr(os, name, self._watched(name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, plain in self._plain.items():
            setattr(os, name, plain)
        for descriptor in list(self._open):
            with suppress(OSError):  # a file object may have closed it, which nothing here sees
                os.close(descriptor)

    def after_loss(self, rng: random.Random) -> dict[str, bytes]:
        """What the folder may hold afterwards: file name → content."""
        names = dict(self._names)
        for kind, path, file in self._renamings[: rng.randint(0, len(self._renamings))]:
            if kind == "create":
                names[path] = file
            else:
                names.pop(path, None)
        return {Path(path).name: file.after_loss(rng) for path, file in names.items()}

    def _paths(self) -> list[str]:
        return [path.path for path in os.scandir(self._folder) if path.is_file()]

    def _watched(self, name: str) -> Callable[..., Any]:
        plain, own = self._plain[name], getattr(self, f"_on_{name}")

        def call(*arguments: Any, **more: Any) -> Any:
            with self._lock:
                if self._lost and name != "close":
                    raise PowerLoss
                return own(plain, *arguments, **more)

        return call

    def _count(self) -> None:
        self.calls += 1
        if self._fails_at is not None and self.calls > self._fails_at:
            self._lost = True
            raise PowerLoss

    def _on_open(self, plain: Any, path: Any, flags: int, *more: Any, **options: Any) -> int:
        name = os.fspath(path)
        is_own = isinstance(name, str) and str(Path(name).parent) == self._folder
        is_new = is_own and bool(flags & os.O_CREAT) and not os.path.lexists(name)
        if is_new:
            self._count()
        descriptor: int = plain(path, flags, *more, **options)
        if is_new:
            self._files[name] = _File(b"")
            self._renamings.append(("create", name, self._files[name]))
        if is_own or name == self._folder:
            self._open[descriptor] = name
        return descriptor

    def _on_close(self, plain: Any, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        plain(descriptor)

    def _on_pwrite(self, plain: Any, descriptor: int, data: Any, offset: int) -> int:
        file = self._files.get(self._open.get(descriptor, ""))
        if file is None:
            return int(plain(descriptor, data, offset))
        content = bytes(data)
        try:
            self._count()
        except PowerLoss:
            if self._halfway:
                file.writes.append((offset, content[: len(content) // 2]))
            raise
        file.writes.append((offset, content))
        return int(plain(descriptor, data, offset))

    def _on_fsync(self, plain: Any, descriptor: int) -> None:
        del plain  # nothing here has to reach a real disk
        name = self._open.get(descriptor, "")
        if name == self._folder:
            self._count()
            for kind, path, file in self._renamings:
                if kind == "create":
                    self._names[path] = file
                else:
                    self._names.pop(path, None)
            self._renamings.clear()
        elif name in self._files:
            self._count()
            file = self._files[name]
            file.durable = Path(name).read_bytes()
            file.writes.clear()

    _on_fdatasync = _on_fsync

    def _on_unlink(self, plain: Any, path: Any, **options: Any) -> None:
        name = os.fspath(path)
        if name in self._files:
            self._count()
            self._renamings.append(("unlink", name, self._files.pop(name)))
        plain(path, **options)

    def _on_posix_fallocate(self, plain: Any, descriptor: int, offset: int, size: int) -> None:
        plain(descriptor, offset, size)
