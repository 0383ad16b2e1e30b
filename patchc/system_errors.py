"""The one place where an error of the operating system becomes one of patchc's, with a remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchc.errors import PatchcError, StorageError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free space or choose another output, then run again",
    errno.EDQUOT: "the disk quota is used up; free space or choose another output, then run again",
    errno.EFBIG: "the file system or a limit of this process does not allow a file of this size",
    errno.EROFS: "the file system is read-only; mount it for writing or choose another path",
    errno.EACCES: "Permission denied; change the permissions or choose another path",
    errno.EPERM: "Operation not permitted; change the permissions or choose another path",
    errno.EIO: "Input/output error; check the disk or the network, then run again",
    errno.EINTR: "the system interrupted the call; run again",
    errno.EMFILE: "Too many open files; raise the limit (ulimit -n), then run again",
    errno.ENFILE: "Too many open files in system; close some programs, then run again",
    errno.ENAMETOOLONG: "the name or the path is too long; choose a shorter one",
    errno.ENOENT: "no such file or folder; check the path, or that nothing removed it meanwhile",
    errno.ENOTDIR: "a part of the path is not a folder; check the path",
    errno.ELOOP: "the symbolic links on the path lead in a circle; remove one",
    errno.EBUSY: "the file or folder is in use by the system; unmount it or choose another path",
    errno.EXDEV: "the output is on another file system than its folder; choose another path",
    errno.ESTALE: "the network file system lost the file; mount it anew, then run again",
    errno.ENOMEM: "the system is out of memory; close some programs or lower --max-memory",
}


_NO_MEMORY = (
    "the system gives no more memory; close some programs, or lower --max-memory or --threads"
)
_NO_FOLDER = "the working folder no longer exists; change to another"


def reason(error: OSError) -> str:
    """What an error of the operating system means, and what to do about it."""
    if isinstance(error, FileNotFoundError) and _working_folder_is_gone(error.filename):
        return _NO_FOLDER
    return _REMEDIES.get(error.errno or 0) or error.strerror or str(error)


def storage_error(error: OSError, path: object, action: str) -> StorageError:
    """The error to raise for one of the operating system, on ``action`` with ``path``.

    The path in ``error`` is named where it has one.
    """
    place = error.filename if error.filename is not None else path
    return StorageError(f"cannot {action} {_readable(place)}: {reason(error)}")


def unmet_error(error: BaseException) -> StorageError | None:
    """The error to raise for one that nothing has met on its way up; None where it is a bug."""
    if isinstance(error, OSError):
        return storage_error(error, "files", "read or write")
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return StorageError(f"{_NO_MEMORY}{detail}")
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, ImportError) and (cause.path or "").endswith(".so"):
            return StorageError(
                f"cannot load {cause}; free memory or raise its limit (ulimit -v), or install the "
                "package anew"
            )
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def storage_errors(path: object, action: str) -> Iterator[None]:
    """Turn an error of the operating system into a :class:`StorageError` that names the path."""
    try:
        yield
    except PatchcError:  # some are also errors of the system
        raise
    except OSError as error:
        raise storage_error(error, path, action) from error


def _readable(place: object) -> str:
    return os.fsdecode(place) if isinstance(place, bytes) else str(place)


def _working_folder_is_gone(path: object) -> bool:
    if path is not None and Path(_readable(path)).is_absolute():
        return False
    try:
        Path.cwd()
    except OSError:
        return True
    return False
