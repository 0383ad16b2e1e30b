"""Reads of files that somebody named: never a wait for a pipe, a device or a socket."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_PART = 1 << 20  # a read allocates as much as is asked for, before it knows what is there

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a file for reading, and return its descriptor.

    Raises:
        OSError: the operating system refused, or it is something else than a file.
    """
    _check_regular(path, Path(path).stat())  # first, since some devices act when they are opened
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check_regular(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Read a file whole.

    Args:
        path: the file.
        most: bytes that it may have; None for any number.

    Raises:
        OSError: as :func:`open_regular`, or the file is larger.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        if most is None:
            return file.read()
        content = bytearray()
        while part := file.read(min(_PART, most + 1 - len(content))):
            content += part
    if len(content) > most:
        raise OSError(errno.EINVAL, f"it has more than {most:,} bytes", os.fspath(path))
    return bytes(content)


def _check_regular(path: str | os.PathLike[str], state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, and a file is needed", os.fspath(path))
