"""Reserved paths: one process at a time works on an output, and what a killed one left is removed.

Beside an output are hidden files named after it. ``.NAME.patchc-lock`` is locked as long as a
process works on the output. The others bear a number that no other run has, so that processes left
over from a run that is gone cannot write into the files of the next:

- ``.NAME.NUMBER.partial``: what is being written;
- ``.NAME.NUMBER.before``: what the output replaces, until it is complete;
- ``.NAME.NUMBER.moves``: see :mod:`patchc.moves`.

Whoever holds the lock knows that the others are left from killed processes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

from patchc.errors import InUseError
from patchc.locks import LockFile
from patchc.moves import LIST, STAGED, unfinished
from patchc.renaming import discard, remove, rename
from patchc.system_errors import storage_errors

BEFORE = ".before"
"""Suffix of what an output replaces."""

_LOCK = ".patchc-lock"
_NAME_BYTES = 125
"""Longest name that is taken as it is: with all suffixes, 143 bytes, which eCryptfs allows."""


def lock_of(out: Path) -> Path:
    """The lock file of an output."""
    return out.with_name(f".{short_name(out.name)}{_LOCK}")


def hidden(out: Path, suffix: str) -> Path:
    """A path beside an output that nothing has, and that :func:`leftovers` finds."""
    return out.with_name(f".{short_name(out.name)}.{os.urandom(4).hex()}{suffix}")


def leftovers(out: Path) -> list[Path]:
    """The hidden files of an output, its lock file included, whoever made them."""
    suffixes = "|".join(map(re.escape, (BEFORE, LIST, STAGED)))
    start, lock = re.escape(f".{short_name(out.name)}"), re.escape(_LOCK)
    pattern = re.compile(rf"{start}({lock}|\.[0-9a-f]{{8}}({suffixes}))")
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        return sorted(path for path in out.parent.iterdir() if pattern.fullmatch(path.name))
    return []


def output_of(path: Path) -> Path:
    """The output that is being written under a hidden path; any other path is its own."""
    found = re.fullmatch(rf"\.(.+)\.[0-9a-f]{{8}}{re.escape(STAGED)}", path.name)
    return path.with_name(found[1]) if found else path


@contextmanager
def reserved(out: Path, subject: Path) -> Iterator[None]:
    """Hold the lock of an output; what killed processes left of it is removed first.

    Args:
        out: the output; its folder must exist.
        subject: the output as messages name it.

    Raises:
        InUseError: another process holds it.
        StorageError: the lock file cannot be made, or what was left cannot be removed.
    """
    with LockFile(lock_of(out), subject) as lock:
        try:
            _clear(out)
            yield
        except BaseException as error:
            discard(lock.path, error)
            raise
        with suppress(OSError):  # a file that nobody locks stops nobody
            remove(lock.path)


def clear_leftovers(out: Path) -> None:
    """Remove what a killed process left beside an output that is complete, if nobody works on it.

    Raises:
        StorageError: it cannot be removed.
    """
    if leftovers(out):
        with suppress(InUseError), reserved(out, out):
            pass


def _clear(out: Path) -> None:
    for path in leftovers(out):
        with storage_errors(path, "remove what a killed run left,"):
            if path.suffix == BEFORE and not os.path.lexists(out):
                rename(path, out)
            elif path.name != lock_of(out).name:
                for moved in unfinished(path) if path.suffix == LIST else ():
                    remove(moved)
                remove(path)


def short_name(name: str) -> str:
    """A name, or where it leaves no room for suffixes, its start and a digest."""
    encoded = os.fsencode(name)
    if len(encoded) <= _NAME_BYTES:
        return name
    digest = blake3(encoded).hexdigest(length=4)
    return encoded[: _NAME_BYTES - len(digest) - 1].decode(errors="ignore") + "-" + digest
