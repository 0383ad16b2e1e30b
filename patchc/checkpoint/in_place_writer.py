"""Writes into a checkpoint's own files, and notices when somebody else does."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint.checkpoint import Checkpoint, changed_meanwhile
from patchc.checkpoint.header import Stamp, stamp_of
from patchc.checkpoint.visitors import Visitors
from patchc.checkpoint.writer import write_all
from patchc.durability import close, sync_content
from patchc.errors import CheckpointError
from patchc.system_errors import storage_errors


class InPlaceWriter:
    """The shards of a model, open for writing; a context manager that closes them.

    Attributes:
        files: shard name → the file that is written, with symbolic links resolved.

    Args:
        model: an open checkpoint. Its reads see what is written here.
        shards: names of the shards to open.

    Raises:
        StorageError: a file may not be written.
        CheckpointError: a file was replaced since ``model`` was opened.
    """

    def __init__(self, model: Checkpoint, shards: Iterable[str]) -> None:
        self.files: dict[str, Path] = {}
        self._model = model
        self._descriptors: dict[str, int] = {}
        self._unsynced: set[str] = set()
        self._index = self._stamp_of_index()
        self.check()
        written = model.has_other_writers()
        with ExitStack() as opened:
            for shard in shards:
                path = model.shards[shard].path
                with storage_errors(path, "write to"):
                    self._descriptors[shard] = os.open(path, os.O_WRONLY)
                opened.callback(close, self._descriptors[shard])
                self.files[shard] = path.resolve()
            paths = [shard.path for shard in model.shards.values()]
            self._visitors = opened.enter_context(Visitors(paths, written))
            self.check()
            self._opened = opened.pop_all()

    def __enter__(self) -> InPlaceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def visited(self) -> bool:
        """Whether another process had a shard open to write, or has opened one meanwhile."""
        return self._visitors.seen()

    def check(self) -> None:
        """Check that the model's files are still those that were opened, as they were then.

        Raises:
            CheckpointError: a file was replaced, removed, cut or written by another process.
        """
        for shard in self._model.shards:
            self._check(shard)
        if self._index != self._stamp_of_index():
            raise changed_meanwhile(self._model.index)

    def write_words(self, name: str, first: int, words: NDArray[np.unsignedinteger]) -> None:
        """Write a tensor's words from word ``first`` on; :meth:`sync` makes them durable.

        Raises:
            CheckpointError: as :meth:`check`, for the file of the tensor.
            StorageError: the write failed, and may be incomplete.
        """
        tensor = self._model.tensors[name]
        shard = tensor.shard
        self._check(shard)
        self._unsynced.add(shard)
        with storage_errors(self.files[shard], "write"):
            write_all(self._descriptors[shard], tensor.offset_of(first), words)
        self._model.restamp(shard)

    def sync(self) -> None:
        """Make all that was written durable.

        Raises:
            StorageError: the operating system refused; what was written may be lost.
        """
        for shard in sorted(self._unsynced):
            with storage_errors(self.files[shard], "make durable"):
                sync_content(self._descriptors[shard])
        self._unsynced.clear()

    def _stamp_of_index(self) -> Stamp | None:
        with suppress(OSError):
            return stamp_of(self._model.index.stat()) if self._model.index else None
        return None

    def _check(self, shard: str) -> None:
        path = self._model.shards[shard].path
        try:
            state = os.stat(path)  # noqa: PTH116 (Path.stat costs more, and this is for each write)
        except OSError as error:
            raise CheckpointError(
                f"{path}: was removed while in use, by another program ({error.strerror}); bring "
                "it back, then run again when nothing else writes to the model"
            ) from error
        if state.st_size != self._model.shards[shard].size:
            raise CheckpointError(
                f"{path}: was cut or made longer while in use, by another program; restore it, "
                "then run again when nothing else writes to the model"
            )
        if self._model.is_unchanged(shard, state):
            return
        if not os.path.samestat(state, self._model.stat(shard)):
            raise CheckpointError(
                f"{path}: was replaced while in use, by another program; what this run wrote is "
                "not in the new file. Run verify, then run again when nothing else writes to it"
            )
        raise changed_meanwhile(path)
