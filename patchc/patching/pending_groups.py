"""Writes the pending chunks of a run in place, in groups that a journal can bring back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from patchc.checkpoint import Checkpoint, InPlaceWriter
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import CheckpointError, PatchFormatError, ResultMismatchError
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.hashing import chunk_digest
from patchc.patching.digest import digest_of, read_digests
from patchc.patching.in_place_journal import GROUP_BYTES, InPlaceJournal
from patchc.patching.pending_chunks import Pending, chunk_nbytes
from patchc.patching.rewrite import VERBS
from patchc.patching.transition import Transition, unsound
from patchc.runtime.runtime import Runtime

_Change = tuple[TensorRecord, ChunkRecord]
_LISTED = 64
"""Bytes of a chunk's entry in the journal beside its tensor's name, at most."""


@dataclass(frozen=True)
class PendingGroups:
    """What is left to do in a model, and the tools to do it with.

    Attributes:
        patch, model: what is written where.
        pending: as it was found, under the lock of ``journal``.
        writer: open on the shards of ``pending``.
        journal: of the model; removed when the work is done.
        runtime: reads, changes and writes chunks in threads.
    """

    patch: Patch
    model: Checkpoint
    pending: Pending
    writer: InPlaceWriter
    journal: InPlaceJournal
    runtime: Runtime

    def restore_torn(self) -> None:
        """Write the whole words of torn chunks, and make them durable.

        The images stay where they are until then, so this can be interrupted and repeated too.

        Raises:
            CheckpointError, StorageError: as :meth:`InPlaceWriter.write_words`.
        """
        for name, number in self.pending.torn.places:
            tensor = self.patch.index.tensors[name]
            chunk = self._chunk(tensor, number)
            words = self.runtime.buffers.words(chunk.count, tensor.dtype.word)
            self.writer.write_words(name, chunk.first, self.pending.torn.read(tensor, chunk, words))
        self.writer.sync()

    def write(self) -> None:
        """Write all pending chunks, and check each before it is written. Progress counts bytes.

        A group is in the journal before it is written, and durable before the next one is begun.

        Raises:
            ResultMismatchError: the outcome is not the promised one; that chunk was not written.
            CheckpointError: a file cannot be read, or another program changed or replaced it.
            StorageError: the operating system refused.
        """
        task = self.runtime.task(
            VERBS[self.pending.target], self.pending.nbytes(self.patch), "bytes"
        )
        digests = {name: list(chunks) for name, chunks in self.pending.digests.items()}
        groups = list(self._groups())
        most = max((sum(map(self._nbytes, group)) for group in groups), default=0)
        for group in groups:
            self.writer.check()
            self._journal(group, most)
            with closing(self.runtime.map(self._take, group)) as results:
                for (tensor, change), reached in zip(group, results, strict=True):
                    digests[tensor.name][change.number] = reached
                    task.advance(self._nbytes((tensor, change)), tensor.name)
            self.writer.sync()
        if digest_of(self.model, digests) != self.patch.index.digest_on(self.pending.target):
            raise unsound(self.patch)
        self._check_others(digests)

    def _groups(self) -> Iterator[list[_Change]]:
        group: list[_Change] = []
        size = 0
        for change in self.pending.chunks:
            more = self._nbytes(change) + len(change[0].name.encode()) + _LISTED
            if group and size + more > GROUP_BYTES:
                yield group
                group, size = [], 0
            group.append(change)
            size += more
        if group:
            yield group

    def _journal(self, group: list[_Change], most: int) -> None:
        listed = [
            (tensor.name, change.number, self._nbytes((tensor, change))) for tensor, change in group
        ]
        self.journal.begin(listed, most)

        def keep(job: tuple[int, _Change]) -> None:
            self.journal.write_image(job[0], self._read(*job[1]))

        _exhaust(self.runtime.map(keep, enumerate(group)))
        self.journal.commit()

    def _take(self, job: _Change) -> bytes:
        tensor, change = job
        words = self._read(tensor, change)
        transition = Transition(self.patch, self.model.path)
        try:
            reached = transition.cross(tensor, change, words, self.pending.target)
        except (ResultMismatchError, PatchFormatError):
            self._check_own(tensor, change)
            raise
        self.writer.write_words(tensor.name, self._chunk(tensor, change.number).first, words)
        return reached

    def _check_own(self, tensor: TensorRecord, change: ChunkRecord) -> None:
        """Tell a chunk that another program changed since it was checked from an unsound patch."""
        if chunk_digest(self._read(tensor, change)) != self._expected(tensor, change):
            raise self._changed(tensor.name)

    def _expected(self, tensor: TensorRecord, change: ChunkRecord) -> bytes:
        return self.pending.digests[tensor.name][change.number]

    def _check_others(self, digests: dict[str, list[bytes]]) -> None:
        """Check that no other program has written; read all again if one could have."""
        self.writer.check()
        if self.writer.visited:
            found = read_digests(self.model, self.patch.chunk_words, "check", self.runtime)
            for name, chunks in found.items():
                if chunks != digests[name]:
                    raise self._changed(name)
            self.writer.check()

    def _changed(self, tensor: str) -> CheckpointError:
        shard = self.model.tensors[tensor].shard
        return CheckpointError(
            f"{self.model.shards[shard].path}: tensor {tensor!r} was changed while in use, by "
            "another program; run verify when nothing else writes to the model"
        )

    def _read(self, tensor: TensorRecord, change: ChunkRecord) -> Words:
        chunk = self._chunk(tensor, change.number)
        words = self.runtime.buffers.words(chunk.count, tensor.dtype.word)
        return self.model.read_words(self.model.tensors[tensor.name], chunk.first, words)

    def _chunk(self, tensor: TensorRecord, number: int) -> Chunk:
        words = self.patch.words_in_chunk(tensor, number)
        return Chunk(number, number * self.patch.chunk_words, words)

    def _nbytes(self, change: _Change) -> int:
        return chunk_nbytes(self.patch, *change)


def _exhaust(results: Iterable[None]) -> None:
    for _ in results:
        pass
