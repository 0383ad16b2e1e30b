"""Notices that another process opens a file, or has it open to write, where the system can tell."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from patchc.durability import close

_IN_CLOSE_WRITE, _IN_OPEN = 0x8, 0x20
_EVENTS = 4096


class Visitors:
    """Watches files for being opened, with inotify; a context manager.

    Where the system has no such thing, or gives no more of it, somebody may have come unseen, and
    is taken to have been there. Of a network file system, only this machine is seen.

    Args:
        paths: files that this process opens no more.
        seen: whether somebody is there already.
    """

    def __init__(self, paths: Iterable[Path], seen: bool = False) -> None:
        self._descriptor = -1
        self._seen = seen or not self._watch(paths)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)
            self._descriptor = -1

    def seen(self) -> bool:
        """Whether one of the files was opened, or closed by who had written, since the start."""
        with suppress(OSError):
            self._seen = self._seen or bool(os.read(self._descriptor, _EVENTS))
        return self._seen

    def _watch(self, paths: Iterable[Path]) -> bool:
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            mask = _IN_CLOSE_WRITE | _IN_OPEN
            return all(
                libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask) >= 0
                for path in paths
            )
        return False


def has_writer(descriptor: int) -> bool:
    """Whether a file, open here to read only, is open to write anywhere; True if none can tell.

    The system answers by granting a lease, which is given back. Whoever opens the file to write
    before that is kept waiting, and the signal about him is one that is ignored.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (OSError, AttributeError):  # there is one, or the file is another user's, or no Linux
        return True
    return False
