"""A copy of a checkpoint, whose tensors are written piece by piece."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint.checkpoint import Checkpoint
from patchc.checkpoint.header import Shard, TensorInfo, read_shard, size_by_header
from patchc.errors import CheckpointError, UnsupportedInputError
from patchc.files import copy_file

_HEADER_PIECE = 1 << 20


class HeaderError(CheckpointError):
    """A header that a shard of the copy should have is not sound."""


class CheckpointCopy:
    """Creates the safetensors files of ``source`` anew, headers copied byte for byte.

    A context manager: the caller writes all words of all tensors inside the block; on a clean exit
    files get the source's permission bits and are synced. Names, tensor order, metadata and
    sharding stay as they are, but for the shards in ``headers``.

    Attributes:
        tensors: tensor name → where it lies in the copy.

    Args:
        source: the checkpoint to copy.
        target: a folder that exists for a folder, a file's path for a file.
        headers: shard name → its header in the copy, None where the copy does not have it. A shard
            that the source does not have gets the permission bits of the source's first.

    Raises:
        HeaderError: a header is not sound, or a tensor would be stored twice.
        OSError: the operating system refused.
    """

    def __init__(
        self, source: Checkpoint, target: Path, headers: Mapping[str, bytes | None] | None = None
    ) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self._source = source
        self._target = target
        self._headers = headers or {}
        self._descriptors: dict[str, int] = {}

    def __enter__(self) -> CheckpointCopy:
        try:
            for shard in self._source.shards.values():
                if shard.name not in self._headers:
                    self._copy_header(shard)
            for name, header in self._headers.items():
                if header is not None:
                    self._write_header(name, header)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._close()

    def write_words(self, name: str, first: int, words: NDArray[np.unsignedinteger]) -> None:
        """Write a tensor's words from word ``first`` on; safe to call from several threads."""
        tensor = self.tensors[name]
        offset = tensor.offset + first * tensor.dtype.word_bytes
        write_all(self._descriptors[tensor.shard], offset, words)

    def copy_side_files(self, but: frozenset[str] = frozenset()) -> None:
        """Copy the folder's index and side files (see :meth:`Checkpoint.side_files`)."""
        kept, _ = self._source.side_files()
        for relative in kept:
            if relative.as_posix() not in but:
                target = self._target / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_file(self._source.path / relative, target)

    def write_side_file(self, name: str, content: bytes) -> None:
        """Create a side file, with the permission bits that it has in the source.

        One that the source does not have gets those of the source's first shard.
        """
        target = self._target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        model = self._source.path / name
        with target.open("xb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), self._mode(model if model.exists() else None))
            os.fsync(file.fileno())

    def _copy_header(self, shard: Shard) -> None:
        descriptor = self._create(shard.name, shard.size)
        for start in range(0, shard.data_start, _HEADER_PIECE):
            piece = np.empty(min(_HEADER_PIECE, shard.data_start - start), np.uint8)
            self._source.read_bytes(shard.name, start, piece)
            write_all(descriptor, start, piece)
        self._place(shard)

    def _write_header(self, name: str, header: bytes) -> None:
        try:
            descriptor = self._create(name, size_by_header(header))
            write_all(descriptor, 0, np.frombuffer(header, np.uint8))
            shard = read_shard(self._path(name), name)
        except (CheckpointError, UnsupportedInputError) as error:
            raise HeaderError(f"shard {name!r}: {error}") from error
        self._place(shard)

    def _place(self, shard: Shard) -> None:
        for tensor in shard.tensors:
            if tensor.name in self.tensors:
                raise HeaderError(f"shard {shard.name!r}: tensor {tensor.name!r} is stored twice")
            self.tensors[tensor.name] = tensor

    def _path(self, name: str) -> Path:
        return self._target / name if self._source.is_folder else self._target

    def _create(self, name: str, size: int) -> int:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        descriptor = os.open(self._path(name), flags, 0o600)
        self._descriptors[name] = descriptor
        os.ftruncate(descriptor, size)
        return descriptor

    def _mode(self, path: Path | None) -> int:
        model = path or next(iter(self._source.shards.values())).path
        return stat.S_IMODE(model.stat().st_mode)

    def _finish(self) -> None:
        for name, descriptor in self._descriptors.items():
            shard = self._source.shards.get(name)
            os.fchmod(descriptor, self._mode(shard.path if shard else None))
            os.fsync(descriptor)

    def _close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


class JoinedCopy(CheckpointCopy):
    """The same copy in another process, which writes tensors into files that were created.

    On a clean exit its own writes are synced; permission bits are the creator's to set.
    """

    def __enter__(self) -> JoinedCopy:
        kept = [name for name in self._source.shards if name not in self._headers]
        new = [name for name, header in self._headers.items() if header is not None]
        try:
            for name in [*kept, *new]:
                flags = os.O_WRONLY | os.O_CLOEXEC
                self._descriptors[name] = os.open(self._path(name), flags)
                self._place(read_shard(self._path(name), name))
        except BaseException:
            self._close()
            raise
        return self

    def _finish(self) -> None:
        for descriptor in self._descriptors.values():
            os.fsync(descriptor)


def write_all(descriptor: int, offset: int, data: NDArray[np.generic]) -> None:
    """Write an array's bytes at an offset, with as many calls as it takes."""
    view = data.view(np.uint8).data
    while view:
        count = os.pwrite(descriptor, view, offset)
        view = view[count:]
        offset += count
