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

NO_FILE_HAS = "holds a NUL byte or half a character (a lone surrogate), which no file's name has"
"""What is wrong with a path that :func:`is_possible` denies."""


def is_possible(path: str | os.PathLike[str]) -> bool:
    """Whether a file may have such a path."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a file for reading, and return its descriptor.

    Raises:
        OSError: the operating system refused, or it is something else than a file.
    """
    if not is_possible(path):
        raise OSError(errno.EINVAL, f"its name {NO_FILE_HAS}")
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

    Looks at what is in the folder, and in those in it whose names are not hidden: loaders of models
    go no deeper. Links are followed, and what cannot be looked at is passed over.

    Raises:
        OSError: it holds one.
    """
    for inner in _check_entries(folder):
        _check_entries(inner)


def _check_entries(folder: Path) -> list[Path]:
    """Check what is in a folder, and return the folders there but for links and hidden ones."""
    inner = []
    with suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            try:
                state = entry.stat()
            except OSError:
                continue
            if not stat.S_ISDIR(state.st_mode):
                _check_regular(entry.path, state)
            elif not entry.is_symlink() and not entry.name.startswith("."):
                inner.append(folder / entry.name)
    return inner


def _check_regular(path: str | os.PathLike[str], state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, and a file is needed", os.fspath(path))
