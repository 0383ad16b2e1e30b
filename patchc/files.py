"""Files and folders that appear whole or not at all, and the checks before anything is written.

The guarantees of :func:`staged_file` and :func:`staged_folder`: the work happens under a hidden
sibling name on the same file system; on success the content is synced, renamed to its final name
and the parent folder is synced; on any exception the sibling is removed. A process that is killed
outright leaves only the hidden sibling, whose name ends in ``.partial``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchc.errors import CheckpointError, OutputError, StorageError
from patchc.system_errors import storage_errors


def check_output(out: Path, inputs: tuple[Path, ...]) -> None:
    """Refuse an output that exists with content, is or lies inside an input, or cannot be made.

    An existing empty folder is allowed. Symbolic links are resolved before paths are compared.

    Raises:
        OutputError: naming the output and the reason.
    """
    target = out.resolve()
    for source in inputs:
        resolved = source.resolve()
        if target == resolved:
            raise OutputError(f"output {out} is the input itself; choose another path")
        if resolved.is_dir() and target.is_relative_to(resolved):
            raise OutputError(f"output {out} lies inside the input {source}; choose another path")
        if resolved.is_relative_to(target):
            raise OutputError(f"output {out} contains the input {source}; choose another path")
    _check_place(out)
    if out.is_symlink() and not out.exists():
        raise OutputError(f"output {out} is a broken symbolic link; remove it or choose another")
    if out.is_dir():
        if any(out.iterdir()):
            raise OutputError(f"output folder {out} is not empty; empty it or choose another")
    elif out.exists():
        raise OutputError(f"output {out} already exists; remove it or choose another path")


def _check_place(out: Path) -> None:
    """Refuse an output below something that is no folder, or in a folder without permission."""
    place = out.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not os.path.isdir(place):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        if place != out.absolute():
            raise OutputError(
                f"output {out} lies below {place}, which is no folder; choose another path"
            )
    elif not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(
            f"output {out} cannot be written: the permissions of {place} forbid it; change them or "
            "choose another path"
        )


def check_space(out: Path, needed_bytes: int) -> None:
    """Refuse early when the output's file system has fewer than ``needed_bytes`` free.

    Raises:
        StorageError: with both figures.
    """
    parent = out.absolute()
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        raise StorageError(
            f"cannot write {out}: it needs {needed_bytes:,} bytes and {parent} has {free:,} free; "
            "free space or choose another output"
        )


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """Give a hidden sibling path to write; rename it to ``out`` when the block succeeds.

    Raises:
        StorageError: the operating system refused; ``out`` does not exist then.
    """
    staging = _staging_path(out)
    try:
        with storage_errors(out, "write"):
            yield staging
            sync_path(staging)
            staging.replace(out)
            sync_path(out.parent)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Give a hidden sibling folder to fill; rename it to ``out`` when the block succeeds.

    Files inside are synced by their writers. ``out`` may exist as an empty folder.

    Raises:
        StorageError: the operating system refused; ``out`` is as it was then.
    """
    out = out.resolve() if out.is_symlink() else out
    staging = _staging_path(out)
    try:
        with storage_errors(out, "write"):
            staging.mkdir()
            yield staging
            sync_path(staging)
            staging.replace(out)
            sync_path(out.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy one regular file's content and permission bits, following links, and sync it.

    Raises:
        CheckpointError: the source is not a readable regular file.
    """
    if not source.is_file():
        raise CheckpointError(
            f"{source}: not a regular file; remove it or replace it, then run again"
        )
    try:
        reader = source.open("rb")
    except OSError as error:
        raise CheckpointError(f"{source}: cannot read: {error.strerror}") from error
    with reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer)
        writer.flush()
        os.fchmod(writer.fileno(), stat.S_IMODE(os.fstat(reader.fileno()).st_mode))
        os.fsync(writer.fileno())


def sync_path(path: Path) -> None:
    """Ask the operating system to make a file or folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _staging_path(out: Path) -> Path:
    parent = out.parent
    with storage_errors(parent, "create folder"):
        parent.mkdir(parents=True, exist_ok=True)
    return parent / f".{out.name}.{secrets.token_hex(4)}.partial"
