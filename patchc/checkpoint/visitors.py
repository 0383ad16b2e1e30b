"""Notices that another process opens a file, where the system can tell (inotify on Linux)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

_IN_CLOSE_WRITE, _IN_OPEN = 0x8, 0x20
_EVENTS = 4096


class Visitors:
    """Watches files for being opened; a context manager.

    Where the system cannot tell, nothing is seen: a network file system shows what this machine
    does, and other systems than Linux nothing.

    Args:
        paths: files that this process opens no more.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._descriptor = -1
        self._seen = False
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            for path in paths:
                libc.inotify_add_watch(
                    self._descriptor, os.fsencode(path), _IN_CLOSE_WRITE | _IN_OPEN
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def seen(self) -> bool:
        """Whether one of the files was opened, or closed by who had written, since the start."""
        with suppress(OSError):
            self._seen = self._seen or bool(os.read(self._descriptor, _EVENTS))
        return self._seen
