"""Writes into a checkpoint's own files, one write at a time, each durable before the next."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint.checkpoint import Checkpoint
from patchc.checkpoint.writer import write_all
from patchc.errors import CheckpointError, OutputError, StorageError
from patchc.system_errors import storage_errors


class InPlaceWriter:
    """The shards of a model, open for writing; a context manager that closes them.

    A crash leaves at most one write incomplete: each is synced before the next one starts, and none
    starts after an error.

    Attributes:
        files: shard name → the file that is written, with symbolic links resolved.

    Args:
        model: an open checkpoint. Its reads see what is written here.
        shards: names of the shards to open.

    Raises:
        StorageError: a file may not be written.
        OutputError: a file has hard links, whose content would change with it.
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
                path = model.shards[shard].path
                with storage_errors(path, "write to"):
                    descriptor = os.open(path, os.O_WRONLY)
                opened.callback(os.close, descriptor)
                state = os.fstat(descriptor)
                if not os.path.samestat(state, model.stat(shard)):
                    raise CheckpointError(
                        f"{path}: was replaced while in use; run again when nothing writes to it"
                    )
                if state.st_nlink > 1:
                    raise OutputError(
                        f"{path} has {state.st_nlink} names (hard links), and a run in place would "
                        "change what the others show; write a copy with -o"
                    )
                self._descriptors[shard] = descriptor
                self.files[shard] = path.resolve()
            self._opened = opened.pop_all()

    def __enter__(self) -> InPlaceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # Threads may still run after an interrupt.
            self._stopped = self._stopped or StorageError("the files were closed meanwhile")
            self._opened.close()

    def write_words(self, name: str, first: int, words: NDArray[np.unsignedinteger]) -> None:
        """Write a tensor's words from word ``first`` on, and make them durable.

        Threads that call it at the same time wait for one another. After a failure nothing more is
        written.

        Raises:
            StorageError: this write or an earlier one failed; the one that failed may be
                incomplete.
        """
        tensor = self._model.tensors[name]
        descriptor = self._descriptors[tensor.shard]
        with self._lock:
            if self._stopped:
                raise self._stopped
            try:
                with storage_errors(self.files[tensor.shard], "write"):
                    write_all(descriptor, tensor.offset_of(first), words)
                    getattr(os, "fdatasync", os.fsync)(descriptor)
            except BaseException as error:
                self._stopped = error
                raise
