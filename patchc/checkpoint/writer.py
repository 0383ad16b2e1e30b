"""A copy of a checkpoint with the same layout, whose tensors are written piece by piece."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint.checkpoint import Checkpoint
from patchc.checkpoint.header import Shard, TensorInfo
from patchc.files import copy_file

_HEADER_PIECE = 1 << 20


class CheckpointCopy:
    """Creates every safetensors file of ``source`` anew, headers copied byte for byte.

    A context manager: the caller writes all words of all tensors inside the block; on a clean exit
    files get the source's permission bits and are synced. Names, tensor order, metadata and
    sharding stay as they are.

    Args:
        source: the checkpoint to copy.
        target: a folder that exists for a folder, a file's path for a file.

    Raises:
        OSError: the operating system refused.
    """

    def __init__(self, source: Checkpoint, target: Path) -> None:
        self._source = source
        self._target = target
        self._descriptors: dict[str, int] = {}

    def __enter__(self) -> CheckpointCopy:
        try:
            for shard in self._source.shards.values():
                self._create(shard)
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

    def write_words(
        self, tensor: TensorInfo, first: int, words: NDArray[np.unsignedinteger]
    ) -> None:
        """Write a tensor's words from word ``first`` on; safe to call from several threads."""
        offset = tensor.offset + first * tensor.dtype.word_bytes
        _write_all(self._descriptors[tensor.shard], offset, words)

    def copy_side_files(self) -> None:
        """Copy the folder's index and side files (see :meth:`Checkpoint.side_files`)."""
        kept, _ = self._source.side_files()
        for relative in kept:
            target = self._target / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(self._source.path / relative, target)

    def _create(self, shard: Shard) -> None:
        path = self._target / shard.name if self._source.is_folder else self._target
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self._descriptors[shard.name] = descriptor
        os.ftruncate(descriptor, shard.size)
        for start in range(0, shard.data_start, _HEADER_PIECE):
            piece = np.empty(min(_HEADER_PIECE, shard.data_start - start), np.uint8)
            self._source.read_bytes(shard.name, start, piece)
            _write_all(descriptor, start, piece)

    def _finish(self) -> None:
        for shard in self._source.shards.values():
            descriptor = self._descriptors[shard.name]
            os.fchmod(descriptor, stat.S_IMODE(shard.path.stat().st_mode))
            os.fsync(descriptor)

    def _close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


def _write_all(descriptor: int, offset: int, data: NDArray[np.generic]) -> None:
    view = data.view(np.uint8).data
    while view:
        count = os.pwrite(descriptor, view, offset)
        view = view[count:]
        offset += count
