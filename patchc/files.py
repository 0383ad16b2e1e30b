"""Files and folders that appear whole or not at all.

The guarantees of :func:`staged_file` and :func:`staged_folder`: one process at a time works on an
output. The work happens under a hidden name on the same file system. On success the content is
durable and takes its final name, durably too; nothing that appeared there meanwhile is replaced. On
any error nothing is left, at the output or beside it. What a process leaves that is killed outright
is hidden, and removed by the next one that works on the same output.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from patchc.durability import set_mode, sync, sync_path
from patchc.errors import CheckpointError, OutputError, PatchcError
from patchc.moves import STAGED, move_up
from patchc.output_place import followed, is_mount_point, refuse_occupied, reserved_path
from patchc.regular_file import open_regular
from patchc.renaming import add_to_message, discard, exchange, remove, rename, rename_new
from patchc.reserved import BEFORE, hidden, reserved
from patchc.system_errors import storage_errors

_BLOCK_BYTES = 1 << 20


@contextmanager
def staged_file(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a hidden path to write; what is there gets the name ``out`` when the block succeeds.

    Args:
        out: the file to write.
        replace: whether it may exist, as a file; it is as before after an error.

    Raises:
        OutputError: ``out`` exists, or has appeared meanwhile.
        InUseError: another process works on ``out``.
        StorageError: the operating system refused; ``out`` is as it was then.
    """
    with storage_errors(out, "reach"):
        if is_mount_point(out):
            raise OutputError(f"output {out} is a mount point; choose another path")

    def finish(staging: Path) -> None:
        sync_path(staging)
        _give_name(staging, out, replace)

    with _staged(out, out, replace, finish) as staging:
        yield staging


@contextmanager
def staged_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a hidden folder to fill; it gets the name ``out`` when the block succeeds.

    Files inside are synced by their writers. If no rename can put a folder in the place of ``out``,
    such as a mount point, its entries are moved there instead.

    Args:
        out: the folder to make; it may exist as an empty one.
        replace: whether it may have content, unless it is a mount point.

    Raises:
        OutputError: ``out`` exists with content, or has got some meanwhile.
        InUseError: another process works on ``out``.
        StorageError: the operating system refused; ``out`` is as it was then.
    """
    with storage_errors(out, "reach"):
        folder = followed(out)
        renamed = replace and not is_mount_point(folder)
        place = folder if renamed else reserved_path(out)

    def finish(staging: Path) -> None:
        for root, _, _ in os.walk(staging, topdown=False):
            sync_path(Path(root))
        if place == folder:
            _give_name(staging, folder, renamed)
        else:
            move_up(staging)

    with _staged(folder, place, renamed, finish) as staging:
        staging.mkdir()
        yield staging


@contextmanager
def made_folders(folder: Path) -> Iterator[None]:
    """Make a folder and those around it, durably; after an error those are removed that are empty.

    Raises:
        StorageError: the operating system refused.
    """
    made: list[Path] = []
    try:
        with storage_errors(folder, "create folder"):
            for one in reversed([folder, *folder.parents]):
                if not one.is_dir():
                    with suppress(FileExistsError):
                        one.mkdir()
                        made.append(one)
                    sync_path(one.parent)
        yield
    except BaseException:
        for one in reversed(made):
            with suppress(OSError):
                one.rmdir()
        raise


def copy_file(source: Path, target: Path) -> None:
    """Copy one regular file's content and permission bits, following links, and sync it.

    Raises:
        CheckpointError: the source is not a readable regular file.
        OSError: the target cannot be written.
    """
    with target.open("xb") as writer:
        for block in _blocks(source):
            writer.write(block)
        writer.flush()
        set_mode(writer.fileno(), stat.S_IMODE(source.stat().st_mode))
        sync(writer.fileno())


def _blocks(source: Path) -> Iterator[bytes]:
    try:
        if not source.is_file():
            raise CheckpointError(
                f"{source}: not a regular file; remove it or replace it, then run again"
            )
        with os.fdopen(open_regular(source), "rb") as reader:
            while block := reader.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise CheckpointError(f"{source}: cannot read: {error.strerror}") from error


@contextmanager
def _staged(
    out: Path, place: Path, replace: bool, finish: Callable[[Path], None]
) -> Iterator[Path]:
    staging = hidden(place, STAGED)
    with storage_errors(out, "reach"), suppress(FileNotFoundError):
        staging.lstat()  # a path that is too long is told before its folders are made
    with made_folders(place.parent), reserved(place, out):
        if not replace:
            with storage_errors(out, "reach"):
                refuse_occupied(out)
        try:
            with storage_errors(out, "write"):
                yield staging
                finish(staging)
        except BaseException as error:
            discard(staging, error)
            raise


def _give_name(staging: Path, out: Path, replace: bool) -> None:
    """Rename what is staged, durably; after an error all is as before."""
    before, made = hidden(out, BEFORE), staging.lstat()
    empty_mode = out.stat().st_mode if out.is_dir() and not replace else None
    try:
        with storage_errors(out, "write"):
            if not (replace and os.path.lexists(out) and out.is_dir() == staging.is_dir()):
                rename_new(staging, out)
            elif staging.is_file() and exchange(staging, out):  # never is nothing there
                rename(staging, before)
            else:
                rename(out, before)
                rename_new(staging, out)
            sync_path(out.parent)
    except BaseException as error:
        with _telling_what_stays(out, before, error), storage_errors(out, "restore"):
            taken = os.path.lexists(out) and os.path.samestat(out.lstat(), made)
            if taken and not (os.path.lexists(staging) and exchange(out, staging)):
                rename(out, staging)
            if os.path.lexists(before):
                rename_new(before, out)
            elif empty_mode is not None and not out.exists():
                out.mkdir()
                set_mode(out, stat.S_IMODE(empty_mode))
        raise
    with suppress(OSError):  # what stays is hidden, and the next run removes it
        remove(before)


@contextmanager
def _telling_what_stays(out: Path, before: Path, error: BaseException) -> Iterator[None]:
    try:
        yield
    except PatchcError as failure:
        if os.path.lexists(before):
            stays = f"what was at {out} is now at {before}"
        else:
            stays = f"{out} is there all the same"
        add_to_message(error, f"{stays}, because of another error: {failure}")
