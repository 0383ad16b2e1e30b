"""The files of a model that a patch changes: headers of shards, and side files.

A side file is any file beside the shards, such as the tokenizer's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from blake3 import blake3

from patchc.checkpoint import Checkpoint
from patchc.checkpoint.journal_path import is_own_file
from patchc.errors import (
    CheckpointError,
    PatchFormatError,
    ResultMismatchError,
    UnsupportedInputError,
    WrongBaseError,
)
from patchc.formats import EncodedFile, FileRecord, Patch, encode_file
from patchc.formats.container.file_changes import MAX_FILE
from patchc.hashing import files_digest, short
from patchc.patching.code_names import as_windows_sees
from patchc.regular_file import open_regular, read_regular
from patchc.sides import OTHER, Side
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
            contents = [_content(model, name, name in shards) for model in (base, result)]
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


class FileChanges:
    """What a patch does to the files of a model.

    Raises:
        UnsupportedInputError: the patch changes files and the model is one file.
        PatchFormatError: it has a file with a name that patchc keeps for itself, such as a journal.
    """

    def __init__(self, patch: Patch, model: Checkpoint) -> None:
        self._patch = patch
        self._model = model
        files = patch.index.files
        whole = len(files) == 1 and files[0].is_header and files[0].in_base and files[0].in_result
        if files and not model.is_folder and not whole:
            names = ", ".join(file.name for file in files[:3])
            raise UnsupportedInputError(
                f"{patch.path} changes files of the model's folder ({names}); name the folder "
                f"in place of {model.path}"
            )
        for file in files:
            if any(is_own_file(as_windows_sees(part)) for part in file.name.split("/")):
                raise PatchFormatError(
                    f"{patch.path}: file {file.name[:80]!r} has a name that patchc keeps for its "
                    "own files, and no honest patch has one; fetch or build it again"
                )

    @property
    def names(self) -> frozenset[str]:
        """Names of the side files that the patch writes or removes."""
        return frozenset(file.name for file in self._patch.index.files if not file.is_header)

    def changes(self, target: Side) -> tuple[SideFileChange, ...]:
        """What a copy on side ``target`` has otherwise than the model."""
        return tuple(
            SideFileChange(
                file.name,
                "changed" if file.in_base and file.in_result
                else "added" if file.on(target)
                else "removed",
            )
            for file in self._patch.index.files
            if not file.is_header
        )  # fmt: skip

    def states(self, without: Collection[str] = ()) -> dict[str, Side]:
        """The side of each file, except for those that are named.

        Raises:
            WrongBaseError: naming the first file that is on neither.
            CheckpointError: a file cannot be read.
        """
        files = self._patch.index.files
        return {file.name: self._find(file)[0] for file in files if file.name not in without}

    def headers(self, target: Side) -> dict[str, bytes | None]:
        """Shard name → its header on side ``target``, for the headers that change."""
        return {
            file.name if self._model.is_folder else next(iter(self._model.shards)): content
            for file, _, content in self._contents(target, of_headers=True)
        }

    def side_files(self, target: Side) -> Iterator[tuple[FileRecord, bytes | None, bytes]]:
        """The side files to write to reach side ``target``, one at a time.

        Each comes with its content now, None where there is none, and the one to write.
        """
        for file, source, content in self._contents(target, of_headers=False):
            if content is not None:
                yield file, source, content

    def check(self) -> None:
        """Compare both sides' full digests over all changed files with those in the index.

        Raises:
            ResultMismatchError: they differ.
        """
        sides: dict[Side, list[tuple[str, bytes]]] = {"base": [], "result": []}
        for number, file in enumerate(self._patch.index.files):
            found, content = self._find(file)
            contents = {found: content}
            contents[OTHER[found]] = self._patch.read_file(number, contents[found], OTHER[found])
            for side, digests in sides.items():
                content = contents[side]
                if content is not None:
                    digests.append((file.name, blake3(content).digest()))
        whole = (files_digest(sides["base"]), files_digest(sides["result"]))
        if self._patch.index.files_digests not in (None, whole):
            raise ResultMismatchError(
                f"{self._patch.path}: every file matches and the digest over them does not; the "
                "patch is not sound, fetch or build it again"
            )

    def _contents(
        self, target: Side, of_headers: bool
    ) -> Iterator[tuple[FileRecord, bytes | None, bytes | None]]:
        for number, file in enumerate(self._patch.index.files):
            if file.is_header == of_headers:
                source = self._read(file)
                yield file, source, self._patch.read_file(number, source, target)

    def _find(self, file: FileRecord) -> tuple[Side, bytes | None]:
        content = self._read(file)
        digest = None if content is None else short(blake3(content).digest())
        for side in OTHER:
            if digest == (file.digest_on(side) if file.on(side) else None):
                return side, content
        raise self._wrong(file, "it is missing" if content is None else "its content differs")

    def _read(self, file: FileRecord) -> bytes | None:
        path = self._model.path / file.name
        largest = max(map(file.size_on, OTHER))
        if not file.is_header and path.is_file() and path.stat().st_size > largest:
            raise self._wrong(file, "its content differs")
        return _content(self._model, file.name, file.is_header)

    def _wrong(self, file: FileRecord, difference: str) -> WrongBaseError:
        return WrongBaseError(
            f"{self._model.path} is not the model that {self._patch.path} was made for: file "
            f"{file.name!r}: {difference}"
        )


def _shards(model: Checkpoint) -> list[str]:
    return list(model.shards) if model.is_folder else [_SINGLE]


def _side_names(model: Checkpoint) -> set[str]:
    copied, _ = model.side_files()
    return {path.as_posix() for path in copied}


def _content(model: Checkpoint, name: str, is_header: bool) -> bytes | None:
    if is_header:
        shard = model.shards.get(name) if model.is_folder else next(iter(model.shards.values()))
        if shard is None:
            return None
        header = np.empty(shard.data_start, np.uint8)
        model.read_bytes(shard.name, 0, header)
        return header.tobytes()
    path = model.path / name
    if not path.exists() and not path.is_symlink():
        return None
    if not path.is_file():
        raise CheckpointError(
            f"{path}: not a regular file; remove it or replace it, then run again"
        )
    try:
        if path.stat().st_size > MAX_FILE:
            raise UnsupportedInputError(
                f"{path} differs and has more than the {MAX_FILE:,} bytes that a patch carries of "
                "a file; move it elsewhere, or give --weights-only"
            )
        return read_regular(path, MAX_FILE)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error


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
