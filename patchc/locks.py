"""Locks between processes: a lock ends with its process, and its file says who holds it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from patchc.durability import close
from patchc.errors import InUseError, OutputError
from patchc.strict_json import parse_json
from patchc.system_errors import storage_errors

OWNER_BYTES = 512
"""Bytes at the start of a lock file that say who holds it; what follows is the caller's."""

_TRIES, _PAUSE = 4, 0.05
_NAMED = ("pid", "host", "command", "since")
_LARGEST_PID = (1 << 31) - 1
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LockFile:
    """A file that one process holds at a time; a context manager that lets go of it.

    Two threads of one process exclude each other too. A file system without locks is served: then
    a process that is still alive on this machine, by the file's owner, counts as the holder.

    Attributes:
        path: the file.
        descriptor: open for reading and writing, until the lock is let go.
        found: whether the file was there before, left by a process that was killed.

    Args:
        path: the file to create or to take over.
        subject: what is locked, as messages name it.
        mode: permission bits of a new file.

    Raises:
        InUseError: another process holds it; says which.
        OutputError: something else than a file of this kind is in the way.
        StorageError: the file cannot be created.
    """

    def __init__(self, path: Path, subject: object, mode: int = 0o644) -> None:
        self.path = path
        with storage_errors(path, "lock"):
            self.descriptor, self.found = self._open(subject, mode)
        with suppress(OSError):  # who works here is told if there is room to say it
            os.pwrite(self.descriptor, _owner(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close(self.descriptor)

    def remove(self) -> None:
        """Remove the file; the lock is held until the block ends."""
        with storage_errors(self.path, "remove"):
            if _is_at(self.descriptor, self.path):  # and not what others have put there
                self.path.unlink(missing_ok=True)

    def _open(self, subject: object, mode: int) -> tuple[int, bool]:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            try:
                descriptor = os.open(self.path, flags, mode)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EISDIR):
                    raise _in_the_way(self.path) from error
                raise
            try:
                state = _check_plain(self.path, descriptor)
                _lock_patiently(descriptor, self.path, subject)
                if _is_at(descriptor, self.path):
                    return descriptor, state.st_size > 0
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever held it has removed it: take the new one


def lock_descriptor(descriptor: int, path: Path, subject: object) -> None:
    """Lock an open file that says nothing of its owner, until it is closed.

    Raises:
        InUseError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _in_use({}, path, subject) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def refuse_if_locked(path: Path, subject: object) -> None:
    """Refuse where another process holds a lock file; for those who only read.

    Raises:
        InUseError: another process holds it; says which.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _lock(descriptor, path, subject, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)


def _check_plain(path: Path, descriptor: int) -> os.stat_result:
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        raise _in_the_way(path)
    return state


def _in_the_way(path: Path) -> OutputError:
    return OutputError(f"{path} is in the way: patchc did not make it; move it away")


def _lock_patiently(descriptor: int, path: Path, subject: object) -> None:
    """Lock, and wait a moment for one who only looks (:func:`refuse_if_locked`)."""
    for _ in range(_TRIES):
        try:
            _lock(descriptor, path, subject)
            break
        except InUseError:
            time.sleep(_PAUSE)
    else:
        _lock(descriptor, path, subject)


def _lock(descriptor: int, path: Path, subject: object, how: int = fcntl.LOCK_EX) -> None:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _in_use(_read_owner(descriptor), path, subject) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        if _lives(_read_owner(descriptor)):
            raise _in_use(_read_owner(descriptor), path, subject) from error


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def _owner() -> bytes:
    facts = {
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join([_program(), *sys.argv[1:2]])[:80],
    }
    return json.dumps(facts).encode().ljust(OWNER_BYTES - 1)[: OWNER_BYTES - 1] + b"\n"


def _program() -> str:
    name = Path(sys.argv[0] or "python").stem
    return "patchc" if name == "__main__" else name


def _read_owner(descriptor: int) -> dict[str, object]:
    with suppress(OSError, ValueError):
        owner = parse_json(os.pread(descriptor, OWNER_BYTES, 0))
        if isinstance(owner, dict):
            return owner
    return {}


def _lives(owner: dict[str, object]) -> bool:
    pid = owner.get("pid")
    if (
        type(pid) is not int
        or not 0 < pid <= _LARGEST_PID
        or owner.get("host") != os.uname().nodename
    ):
        return bool(owner)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _in_use(owner: dict[str, object], path: Path, subject: object) -> InUseError:
    who = "another process"
    if owner.keys() >= set(_NAMED):
        pid, host, command, since = (f"{owner[name]!s:.80}" for name in _NAMED)
        who = f"process {pid} on {host} ({command}, since {since})"
    return InUseError(
        f"{subject} is in use: {who} works there, and holds {path}; wait until it has ended, "
        "then run again"
    )
