"""What is checked of an output before anything is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from patchc.errors import OutputError, StorageError
from patchc.locks import refuse_if_locked
from patchc.output_place import refuse_occupied, reserved_path
from patchc.regular_file import NO_FILE_HAS, is_possible
from patchc.reserved import leftovers, lock_of
from patchc.system_errors import storage_errors


def check_output(out: Path, inputs: tuple[Path, ...]) -> None:
    """Refuse an output that exists with content, is or lies inside an input, or cannot be made.

    An existing empty folder is allowed. Symbolic links are resolved before paths are compared.

    Raises:
        OutputError: naming the output and the reason.
        InUseError: another process works on it; says which.
        StorageError: the path cannot be looked at: it is too long, or the folder it starts from is
            gone.
    """
    check_place(out, inputs)
    with storage_errors(out, "reach"):
        refuse_if_locked(lock_of(reserved_path(out)), out)
        refuse_occupied(out)


def check_place(out: Path, inputs: tuple[Path, ...], what: str = "output") -> None:
    """Refuse a path that is or lies inside an input, or where nothing can be made.

    ``what`` names the path in messages.

    Raises:
        OutputError: naming the path and the reason.
        StorageError: the path cannot be looked at.
    """
    if not is_possible(out):
        raise OutputError(f"{what} {str(out)!r:.80} {NO_FILE_HAS}; choose another")
    with storage_errors(out, "reach"):
        _check_inputs(out, inputs, what)
        _check_permissions(out, what)


def check_space(out: Path, needed_bytes: int) -> None:
    """Refuse early when the output's file system has fewer than ``needed_bytes`` free.

    What killed runs left of the output counts as free: the next run removes it.

    Raises:
        StorageError: with both figures.
    """
    with storage_errors(out, "reach"):
        reserved = reserved_path(out)
        left = sum(map(_bytes_of, leftovers(reserved)))
        place = nearest_folder(reserved.absolute().parent)
        free = shutil.disk_usage(place).free + left
    if free < needed_bytes:
        raise StorageError(
            f"cannot write {out}: it needs {needed_bytes:,} bytes and {place} has {free:,} free; "
            "free space or choose another output"
        )


def nearest_folder(path: Path) -> Path:
    """Return the path itself, or the nearest one around it that exists."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return place


def _check_inputs(out: Path, inputs: tuple[Path, ...], what: str) -> None:
    target = Path(os.path.realpath(out))
    for source in inputs:
        resolved = Path(os.path.realpath(source))
        if target == resolved:
            raise OutputError(f"{what} {out} is the input itself; choose another path")
        if resolved.is_dir() and target.is_relative_to(resolved):
            raise OutputError(f"{what} {out} lies inside the input {source}; choose another path")
        if resolved.is_relative_to(target):
            raise OutputError(f"{what} {out} contains the input {source}; choose another path")


def _check_permissions(out: Path, what: str) -> None:
    """Refuse an output below something that is no folder, or in a folder without permission."""
    place = out.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not os.path.isdir(place):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        if place != out.absolute():
            raise OutputError(
                f"{what} {out} lies below {place}, which is no folder; choose another path"
            )
    elif not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(
            f"{what} {out} cannot be written: the permissions of {place} forbid it; change them or "
            "choose another path"
        )


def _bytes_of(path: Path) -> int:
    """What a file, or a folder with all in it, takes up."""
    files = [path, *path.rglob("*")]
    return sum(512 * file.lstat().st_blocks for file in files)
