"""Reads the files of models that a patch changes: headers of shards, and side files.

A side file is any file beside the shards, such as the tokenizer's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from patchc.checkpoint import Checkpoint
from patchc.errors import CheckpointError, UnsupportedInputError
from patchc.formats import EncodedFile, encode_file
from patchc.formats.container.file_changes import MAX_FILE
from patchc.regular_file import open_regular, read_regular
from patchc.system_errors import reason

_BLOCK_BYTES = 1 << 16
_SINGLE = "model.safetensors"
"""The name in a patch for a checkpoint that is a single file."""


def changed_files(base: Checkpoint, result: Checkpoint) -> Iterator[EncodedFile]:
    """The headers and side files that differ, sorted by their names' bytes.

    Side files are compared if both models are folders.

    Raises:
        CheckpointError: a file cannot be read.
        UnsupportedInputError: a file that differs is larger than the format allows.
    """
    shards = set(_shards(base)) | set(_shards(result))
    for name in sorted(shards | _side_names(base) | _side_names(result), key=os.fsencode):
        if name in shards or not _is_same(base.path / name, result.path / name):
            contents = [content_of(model, name, name in shards) for model in (base, result)]
            if contents[0] != contents[1]:
                yield encode_file(name, contents[0], contents[1], name in shards)


@dataclass(frozen=True)
class SideFileChange:
    """A side file that a patch writes or removes in a copy.

    Attributes:
        name: path below the model's folder.
        change: what happens to it.
    """

    name: str
    change: Literal["added", "removed", "changed"]


def _shards(model: Checkpoint) -> list[str]:
    return list(model.shards) if model.is_folder else [_SINGLE]


def _side_names(model: Checkpoint) -> set[str]:
    copied, _ = model.side_files()
    return {path.as_posix() for path in copied}


def content_of(model: Checkpoint, name: str, is_header: bool) -> bytes | None:
    """Read a file of a model whole, or a shard's header; None where it is missing.

    Raises:
        CheckpointError: it cannot be read.
        UnsupportedInputError: it is larger than a patch carries.
    """
    if is_header:
        shard = model.shards.get(name) if model.is_folder else next(iter(model.shards.values()))
        return None if shard is None else model.read_header(shard.name)
    path = model.path / name
    try:
        if not path.exists() and not path.is_symlink():
            return None
        if not path.is_file():
            raise CheckpointError(
                f"{path}: not a regular file; remove it or replace it, then run again"
            )
        if path.stat().st_size > MAX_FILE:
            raise UnsupportedInputError(
                f"{path} differs and has more than the {MAX_FILE:,} bytes that a patch carries of "
                "a file; move it elsewhere, or give --weights-only"
            )
        return read_regular(path, MAX_FILE)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error


def in_the_way(model: Checkpoint, name: str) -> str | None:
    """Say what is in the place of a side file, or of its folder, and no file; None: nothing is."""
    path = model.path / name
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir may raise)
        return "a folder"
    for place in (path, *list(path.parents)[: name.count("/")]):
        if os.path.islink(place) and not os.path.exists(place):  # noqa: PTH110, PTH114
            return "a link that leads nowhere"
        if place != path and os.path.isfile(place):  # noqa: PTH113
            return f"missing, and {place.name!r} is not a folder"
    return None


def size_of(path: Path) -> int:
    """The bytes of a file; 0 where there is none.

    Raises:
        CheckpointError: it cannot be looked at.
    """
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error


def start_of(path: Path, count: int) -> bytes:
    """Read the first bytes of a file.

    Raises:
        CheckpointError: it cannot be read.
    """
    with _open(path) as file:
        return file.read(count)


def _is_same(left: Path, right: Path) -> bool:
    """Whether two files have the same content; compares in small blocks."""
    if not (left.is_file() and right.is_file()):
        return False
    with _open(left) as one, _open(right) as other:
        if os.fstat(one.fileno()).st_size != os.fstat(other.fileno()).st_size:
            return False
        while block := one.read(_BLOCK_BYTES):
            if block != other.read(_BLOCK_BYTES):
                return False
    return True


def _open(path: Path) -> BinaryIO:
    try:
        return os.fdopen(open_regular(path), "rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error
