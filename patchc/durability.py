"""Durable files and their permission bits, also on file systems that offer less than POSIX does.

Some network file systems refuse to sync a folder, some refuse any sync, and those without
permission bits refuse to change them. There, the work goes on without.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from patchc.errors import UnsupportedSystemError

_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_UNSUPPORTED_FOLDER = _UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
_UNSUPPORTED_MODE = _UNSUPPORTED | {errno.EPERM}


def sync(descriptor: int) -> None:
    """Make an open file durable, where its file system can.

    Raises:
        OSError: the operating system tried, and failed.
    """
    with _served(_UNSUPPORTED):
        os.fsync(descriptor)


def sync_content(descriptor: int) -> None:
    """As :func:`sync`, but an open file's time stamps need not be durable.

    Raises:
        OSError: the operating system tried, and failed.
    """
    with _served(_UNSUPPORTED):
        getattr(os, "fdatasync", os.fsync)(descriptor)


def reserve_space(descriptor: int, size: int) -> None:
    """Make an open file at least ``size`` bytes long, with room for all of them on the disk.

    Raises:
        OSError: the operating system refused.
        UnsupportedSystemError: it has no such call.
    """
    if not hasattr(os, "posix_fallocate"):
        raise UnsupportedSystemError(
            "this system cannot reserve room for a file, which a run in place and a derivation "
            "need; use Linux"
        )
    os.posix_fallocate(descriptor, 0, size)


def close(descriptor: int) -> None:
    """Close a file that was only read, or that is durable: an error then takes nothing away."""
    with suppress(OSError):
        os.close(descriptor)


def sync_path(path: Path) -> None:
    """Make a file or a folder durable, where its file system can.

    Raises:
        OSError: the operating system tried, and failed.
    """
    with _served(_UNSUPPORTED_FOLDER if path.is_dir() else _UNSUPPORTED):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def set_mode(file: int | Path, mode: int) -> None:
    """Set the permission bits of a file, open or by its path, where its file system has them.

    Raises:
        OSError: the operating system tried, and failed.
    """
    with _served(_UNSUPPORTED_MODE):
        if isinstance(file, int):
            os.fchmod(file, mode)  # os.chmod would name the number in its error
        else:
            file.chmod(mode)


@contextmanager
def _served(codes: set[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise
