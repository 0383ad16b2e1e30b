"""Where an output is staged: beside it, or inside it where no rename can put a folder in its place.

The second holds for a mount point, the working folder, and a folder that may be written while the
one around it may not, as volumes in containers are.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from patchc.errors import OutputError
from patchc.moves import LIST, unfinished
from patchc.reserved import leftovers

_INSIDE = "output"
"""What hidden files inside an output are named after."""


def followed(out: Path) -> Path:
    """The output with its own name: the folder that a link, ``.`` or ``..`` stands for."""
    return Path(os.path.realpath(out)) if out.is_symlink() or out.name in ("", "..") else out


def reserved_path(out: Path) -> Path:
    """The path that the hidden files of an output are named after, and beside which they are.

    Raises:
        OSError: the path cannot be looked at.
    """
    folder = followed(out)
    return folder / _INSIDE if folder.is_dir() and _stays(folder) else folder


def refuse_occupied(out: Path) -> None:
    """Refuse an output that exists, except an empty folder.

    What killed runs left in a folder does not count: the next run removes it.

    Raises:
        OutputError: it exists.
        OSError: the path cannot be looked at.
    """
    try:
        state = out.stat()
    except FileNotFoundError:
        if out.is_symlink():
            raise OutputError(
                f"output {out} is a broken symbolic link; remove it or choose another"
            ) from None
        return
    if not stat.S_ISDIR(state.st_mode):
        raise OutputError(f"output {out} already exists; remove it or choose another path")
    left = leftovers(followed(out) / _INSIDE)
    left += [path for one in left if one.suffix == LIST for path in unfinished(one)]
    if {path.name for path in out.iterdir()} - {path.name for path in left}:
        raise OutputError(f"output folder {out} is not empty; empty it or choose another")


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted on a path, be it part of the same file system."""
    return os.path.ismount(path) or os.path.realpath(path) in _mount_points()


def _stays(folder: Path) -> bool:
    return (
        is_mount_point(folder)
        or folder.samefile(os.curdir)
        or not os.access(folder.absolute().parent, os.W_OK | os.X_OK)
        or bool(leftovers(folder / _INSIDE))
    )


def _mount_points() -> set[str]:
    """The mount points that Linux tells of; elsewhere none."""
    with suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        return {os.fsdecode(_unescaped(line.split(b" ")[4])) for line in lines}
    return set()


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)
