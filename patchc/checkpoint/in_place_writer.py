"""Writes into a checkpoint's own files, one piece after the other, each durable before the next."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint.checkpoint import Checkpoint
from patchc.checkpoint.writer import write_all
from patchc.errors import CheckpointError, OutputError, StorageError
from patchc.files import storage_errors


class InPlaceWriter:
    """Opens shards of ``model`` for writing; a context manager that closes them.

    At no time is more than one piece torn: a piece is synced before the next one is begun, and none
    is begun after an error.

    Attributes:
        files: shard name → the file that is written, symbolic links followed.

    Args:
        model: an open checkpoint, whose reads see what is written here.
        shards: names of the shards to open.

    Raises:
        StorageError: a file may not be written.
        OutputError: a file has other names, whose content would change with it.
        CheckpointError: a file was replaced since ``model`` was opened.
    """

    def __init__(self, model: Checkpoint, shards: Iterable[str]) -> None:
        self.files: dict[str, Path] = {}
        self._model = model
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopped: BaseException | None = None
        with ExitStack() as opened:
            for shard in shards:
                self._open(shard, opened)
            self._opened = opened.pop_all()

    def __enter__(self) -> InPlaceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:  # threads may outlast an interrupted wait for them
            self._stopped = self._stopped or StorageError("the files were closed meanwhile")
            self._opened.close()

    def write_words(self, name: str, first: int, words: NDArray[np.unsignedinteger]) -> None:
        """Write a tensor's words from word ``first`` on, and make them durable.

        Safe to call from several threads, which then wait for one another. After one has failed,
        nothing more is written.

        Raises:
            StorageError: the operating system refused, this time or before; one piece may be torn.
        """
        tensor = self._model.tensors[name]
        descriptor = self._descriptors[tensor.shard]
        offset = tensor.offset + first * tensor.dtype.word_bytes
        with self._lock:
            if self._stopped:
                raise self._stopped
            try:
                with storage_errors(self.files[tensor.shard], "write"):
                    write_all(descriptor, offset, words)
                    getattr(os, "fdatasync", os.fsync)(descriptor)
            except BaseException as error:
                self._stopped = error
                raise

    def _open(self, shard: str, opened: ExitStack) -> None:
        path = self._model.shards[shard].path
        with storage_errors(path, "write to"):
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        opened.callback(os.close, descriptor)
        state = os.fstat(descriptor)
        if not os.path.samestat(state, self._model.stat(shard)):
            raise CheckpointError(
                f"{path}: was replaced while in use; run again when nothing writes to it"
            )
        if state.st_nlink > 1:
            raise OutputError(
                f"{path} has {state.st_nlink} names (hard links), and a run in place would change "
                "what the others show; write a copy with -o"
            )
        self._descriptors[shard] = descriptor
        self.files[shard] = path.resolve()
