"""Renames, which replace nothing by accident, and removals."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from patchc.errors import OutputError, PatchcError

_HERE = -100  # AT_FDCWD
_NO_REPLACE = 1  # RENAME_NOREPLACE
_EXCHANGE = 2  # RENAME_EXCHANGE
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
_OCCUPIED = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def rename(source: Path, target: Path) -> None:
    """Rename a file or a folder.

    Raises:
        OSError: without a path, since one of the two is a hidden one.
    """
    while True:
        try:
            os.rename(source, target)  # noqa: PTH104 (one name for all who simulate its failures)
        except InterruptedError:
            continue
        except OSError as error:
            raise OSError(error.errno, error.strerror) from error
        return


def rename_new(source: Path, target: Path) -> None:
    """Rename a file or a folder to a name that is free.

    A folder may also take the name of an empty folder. Where the system has no rename that refuses
    to replace a file, the name is looked up just before.

    Raises:
        OutputError: the name is not free.
        OSError: as :func:`rename`.
    """
    if source.is_dir():
        # The system itself replaces nothing but an empty folder by a folder.
        try:
            rename(source, target)
        except OSError as error:
            if error.errno in _OCCUPIED and os.path.lexists(target):
                raise _appeared(target) from error
            raise
    elif not _rename_by_call(source, target, _NO_REPLACE):
        if os.path.lexists(target):
            raise _appeared(target)
        rename(source, target)


def exchange(one: Path, other: Path) -> bool:
    """Let two files change names at once; False where the system cannot.

    Raises:
        OSError: as :func:`rename`.
    """
    return _rename_by_call(one, other, _EXCHANGE)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; one that is missing is no error.

    Raises:
        OSError: something could not be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path, error: BaseException) -> None:
    """Remove what an error left behind; if that fails, the error's message names it."""
    try:
        remove(path)
    except OSError as failure:
        if os.path.lexists(path):
            add_to_message(error, f"{path} could not be removed ({failure.strerror}); remove it")


def add_to_message(error: BaseException, text: str) -> None:
    """Add to what an error says, once more is known."""
    if isinstance(error, PatchcError):
        error.args = (f"{error}; {text}", *error.args[1:])
    else:
        error.add_note(text)


def _rename_by_call(source: Path, target: Path, flag: int) -> bool:
    """Rename as a flag says; False where the system has no such call."""
    import ctypes  # here, because it is needed only at the end of a run

    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    while call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flag):
        code = ctypes.get_errno()
        if code in _UNSUPPORTED:
            return False
        if code == errno.EEXIST:
            raise _appeared(target)
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def _appeared(target: Path) -> OutputError:
    return OutputError(f"output {target} has appeared meanwhile; remove it or choose another path")
