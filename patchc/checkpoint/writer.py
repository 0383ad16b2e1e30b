"""A copy of a checkpoint whose tensors are written one range of words at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint.checkpoint import Checkpoint
from patchc.checkpoint.header import Shard, TensorInfo, read_shard, size_by_header
from patchc.checkpoint.tensor_copies import MERGE
from patchc.durability import set_mode, sync
from patchc.errors import CheckpointError, OutputError, UnsupportedInputError
from patchc.files import copy_file

_BLOCK = 1 << 20

NEW_FILE = 0o644
"""The permission bits of a file that the source does not have."""


class HeaderError(CheckpointError):
    """The header that a shard of the copy should have is malformed."""


class CheckpointCopy:
    """The safetensors files of ``source``, created anew with their headers copied byte for byte.

    A context manager: the caller writes all words of all tensors inside the block. On a clean exit
    the files get the source's permission bits and are synced. Names, tensor order, metadata and
    sharding stay the same, except for the shards in ``headers``. Copies of tensors that do not
    count (:class:`TensorCopies`) are copied as they are.

    Attributes:
        tensors: tensor name → its place in the copy.

    Args:
        source: the checkpoint to copy.
        target: an existing folder if the source is a folder, otherwise the path of a file.
        headers: shard name → its header in the copy, or None if the copy does not have the shard. A
            shard that the source does not have gets those of :data:`NEW_FILE` that the source's
            first has.

    Raises:
        HeaderError: a header is malformed, or a tensor would be stored twice.
        UnsupportedInputError: the source has copies of tensors, and headers change, or the index
            places a tensor in a copy that would not be written.
        OutputError: two names of the copy are one on its file system.
        OSError: the operating system refused.
    """

    def __init__(
        self, source: Checkpoint, target: Path, headers: Mapping[str, bytes | None] | None = None
    ) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self._source = source
        self._target = target
        self._headers = headers or {}
        self._shadowed = {(one.name, one.shard) for one in source.copies.shadowed}
        refuse_copies(source, self._headers)
        self._descriptors: dict[str, int] = {}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        copied = [name for name in self._source.shards if name not in self._headers]
        new = [name for name, header in self._headers.items() if header is not None]
        with self._files:
            for name in [*copied, *new]:
                for tensor in self._open_shard(name).tensors:
                    if (tensor.name, tensor.shard) in self._shadowed:
                        self._write_shadowed(tensor)
                    elif self.tensors.setdefault(tensor.name, tensor) is not tensor:
                        raise HeaderError(f"shard {name!r}: tensor {tensor.name!r} is stored twice")
            self._files = self._files.pop_all()
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        with self._files:
            if error is None:
                self._finish()

    def write_words(self, name: str, first: int, words: NDArray[np.unsignedinteger]) -> None:
        """Write a tensor's words from word ``first`` on; safe to call from several threads."""
        tensor = self.tensors[name]
        write_all(self._descriptors[tensor.shard], tensor.offset_of(first), words)

    def copy_side_files(self, but: frozenset[str] = frozenset()) -> None:
        """Copy the folder's index and side files (see :meth:`Checkpoint.side_files`)."""
        for relative in self._source.side_files()[0]:
            if relative.as_posix() not in but:
                target = self._target / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                with _created(relative.as_posix()):
                    copy_file(self._source.path / relative, target)

    def write_side_file(self, name: str, content: bytes) -> None:
        """Create a side file with the permission bits of the source's file of that name.

        A file that the source does not have may be read by all and written by its owner, and run by
        nobody.
        """
        target = self._target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        model = self._source.path / name
        with _created(name), target.open("xb") as file:
            file.write(content)
            file.flush()
            mode = stat.S_IMODE(model.stat().st_mode) if model.exists() else NEW_FILE
            set_mode(file.fileno(), mode)
            sync(file.fileno())

    def _open_shard(self, name: str) -> Shard:
        header = self._headers.get(name)
        if header is None:
            header = self._source.read_header(name)
        try:
            descriptor = self._open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.ftruncate(descriptor, size_by_header(header))
            write_all(descriptor, 0, np.frombuffer(header, np.uint8))
            return read_shard(self._path(name), name)
        except (CheckpointError, UnsupportedInputError) as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from error
            raise HeaderError(f"shard {name!r}: {error}") from error

    def _write_shadowed(self, tensor: TensorInfo) -> None:
        """Copy the bytes of a tensor that does not count; its place is the same in the source."""
        block = np.empty(min(_BLOCK, tensor.nbytes), np.uint8)
        for first in range(0, tensor.nbytes, _BLOCK):
            part = block[: tensor.nbytes - first]
            self._source.read_bytes(tensor.shard, tensor.offset + first, part)
            write_all(self._descriptors[tensor.shard], tensor.offset + first, part)

    def _path(self, name: str) -> Path:
        return self._target / name if self._source.is_folder else self._target

    def _open(self, name: str, flags: int) -> int:
        with _created(name):
            descriptor = os.open(self._path(name), flags, 0o600)
        self._files.callback(os.close, descriptor)
        self._descriptors[name] = descriptor
        return descriptor

    def _mode_of(self, name: str) -> int:
        """The permission bits of a shard of the source.

        A new one is run by nobody, and read by nobody who may not read the source's first.
        """
        is_new = name not in self._source.shards
        first = next(iter(self._source.shards))
        mode = stat.S_IMODE(self._source.stat(first if is_new else name).st_mode)
        return mode & NEW_FILE if is_new else mode

    def _finish(self) -> None:
        for name, descriptor in self._descriptors.items():
            set_mode(descriptor, self._mode_of(name))
            sync(descriptor)


class JoinedCopy(CheckpointCopy):
    """The same copy in another process, which writes into the files that the first one created.

    On a clean exit its own writes are synced. The process that created the files sets their
    permission bits.
    """

    def _open_shard(self, name: str) -> Shard:
        self._open(name, os.O_WRONLY)
        return read_shard(self._path(name), name)

    def _write_shadowed(self, tensor: TensorInfo) -> None:
        """The process that created the files copies it."""

    def _finish(self) -> None:
        for descriptor in self._descriptors.values():
            sync(descriptor)


def refuse_copies(source: Checkpoint, headers: Collection[str]) -> None:
    """Refuse to write a copy in which it would depend on the loader which tensors count.

    Raises:
        UnsupportedInputError: as :class:`CheckpointCopy`.
    """
    copies = source.copies
    if copies.indexed or (headers and copies.shadowed):
        one = (*copies.indexed, *copies.shadowed)[0]
        why = "the index places it there" if copies.indexed else "the patch changes headers"
        raise UnsupportedInputError(
            f"{source.path}: tensor {one.name[:80]!r} is stored in {one.shard} and in "
            f"{copies.taken[one.name].shard}, which is loaded after it, and {why}; {MERGE}"
        )


@contextmanager
def _created(name: str) -> Iterator[None]:
    """Tell of a file that is there already, in a copy that was empty at first."""
    try:
        yield
    except FileExistsError as error:
        raise OutputError(
            f"file {name!r} and another one of the model are one file on this file system, which "
            "does not tell their names apart; choose an output elsewhere"
        ) from error


def write_all(descriptor: int, offset: int, data: NDArray[np.generic]) -> None:
    """Write an array's bytes at an offset of a file, in as many calls as needed."""
    view = data.view(np.uint8).data
    while view:
        count = os.pwrite(descriptor, view, offset)
        view = view[count:]
        offset += count
