"""Reads of files that somebody named: never a wait for a pipe, a device or a socket."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
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


def check_folder_files(folder: Path) -> None:
    """Refuse a folder with pipes, devices or sockets, for programs that open whatever is there.

    Looks at what is in the folder, and in those in it whose names are not hidden; links are
    followed, and those that lead nowhere are passed over.

    Raises:
        OSError: it holds one, or cannot be listed.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            try:
                state = path.stat()
            except OSError:
                continue
            if not stat.S_ISDIR(state.st_mode):
                _check_regular(path, state)
            elif not entry.is_symlink() and not entry.name.startswith("."):
                _check_below(path)


def _check_below(folder: Path) -> None:
    with suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if not entry.is_dir() and not entry.is_symlink():
                    _check_regular(entry.path, entry.stat())


def _check_regular(path: str | os.PathLike[str], state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, and a file is needed", os.fspath(path))
