"""Writes the pending chunks of a run in place, in groups that a journal can bring back.

Threads read chunks, take them to the other side and check them. The calling thread alone writes,
group by group, while they go on with the chunks of the next one.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass

from patchc.buffers import BufferPool
from patchc.checkpoint import Checkpoint, InPlaceWriter
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import CheckpointError, PatchFormatError, ResultMismatchError
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.hashing import chunk_digest
from patchc.patching.chunk_images import ChunkImage, image_nbytes
from patchc.patching.digest import digest_of, read_digests
from patchc.patching.in_place_journal import MOST_LISTED, InPlaceJournal
from patchc.patching.pending_chunks import Pending, chunk_nbytes
from patchc.patching.rewrite import VERBS
from patchc.patching.transition import Transition, unsound
from patchc.runtime.runtime import Runtime

GROUP_BYTES = 16 << 20
"""Bytes of the chunks of a group, and of their images; one larger chunk is a group too."""

COPIES = 3
"""Copies of a chunk that each thread takes: one that it works on, and two that wait."""

_LISTED_BYTES = 64  # of a chunk's entry in the journal beside its tensor's name, at most


@dataclass(frozen=True)
class _Taken:
    """A chunk on the target side in memory, and the image that brings its old content back."""

    tensor: TensorRecord
    change: ChunkRecord
    words: Words
    image: ChunkImage
    digest: bytes


@dataclass(frozen=True)
class PendingGroups:
    """What is left to do in a model, and the tools to do it with.

    Attributes:
        patch, model: what is written where.
        pending: as it was found, under the lock of ``journal``.
        writer: open on the shards of ``pending``.
        journal: of the model.
        runtime: its threads read and change chunks.
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
            whole = self.pending.torn.read(tensor, chunk, words)
            if chunk_digest(whole) != self.pending.digests[name][number]:
                raise CheckpointError(
                    f"tensor {name!r}, chunk {number}: what it is restored from was changed while "
                    "in use, by another program; run again when nothing writes to it"
                )
            self.writer.write_words(name, chunk.first, whole)
        self.writer.sync()

    def write(self) -> None:
        """Write all pending chunks, and check each before it is written. Progress counts bytes.

        A group is in the journal before it is written, and durable before the next one is.

        Raises:
            ResultMismatchError: the outcome is not the promised one; that chunk was not written.
            CheckpointError: a file cannot be read, or another program changed or replaced it.
            StorageError: the operating system refused.
        """
        groups = self._groups()
        if groups:
            self.journal.reserve(max(map(self._journal_bytes, groups)))
        target, pool = self.pending.target, BufferPool()
        task = self.runtime.task(VERBS[target], self.pending.nbytes(self.patch), "bytes")
        digests = {name: list(chunks) for name, chunks in self.pending.digests.items()}
        taken = self.runtime.map(lambda change: self._take(change, pool), self.pending.chunks)
        with closing(taken):
            for group in groups:
                chunks = [next(taken) for _ in group]
                self._write_group(chunks)
                for one in chunks:
                    digests[one.tensor.name][one.change.number] = one.digest
                    task.advance(one.words.nbytes, one.tensor.name)
                    pool.give_back(one.words)
        if digest_of(self.model, digests) != self.patch.index.digest_on(target):
            raise unsound(self.patch)
        self._check_others(digests)

    def _groups(self) -> list[list[tuple[TensorRecord, ChunkRecord]]]:
        groups: list[list[tuple[TensorRecord, ChunkRecord]]] = []
        size = images = listed = GROUP_BYTES
        for tensor, change in self.pending.chunks:
            size += chunk_nbytes(self.patch, tensor, change)
            images += _image_nbytes(tensor, change)
            listed += _listed_nbytes(tensor)
            if max(size, images) > GROUP_BYTES or listed > MOST_LISTED:
                groups.append([])
                size = chunk_nbytes(self.patch, tensor, change)
                images, listed = _image_nbytes(tensor, change), _listed_nbytes(tensor)
            groups[-1].append((tensor, change))
        return groups

    def _journal_bytes(self, group: list[tuple[TensorRecord, ChunkRecord]]) -> int:
        """The most that the journal takes for a group."""
        return 1024 + sum(
            _image_nbytes(tensor, change) + _listed_nbytes(tensor) for tensor, change in group
        )

    def _take(self, job: tuple[TensorRecord, ChunkRecord], pool: BufferPool) -> _Taken:
        tensor, change = job
        chunk = self._chunk(tensor, change.number)
        words = pool.take(chunk.count, tensor.dtype.word)
        stored = self.model.tensors[tensor.name]
        self.model.read_words(stored, chunk.first, words)
        image = ChunkImage.empty(change.entries, tensor.dtype.word)
        try:
            transition = Transition(self.patch, self.model.path)
            digest = transition.cross(tensor, change, words, self.pending.target, image=image)
        except (ResultMismatchError, PatchFormatError):
            self._check_own(tensor, change, self.model.read_words(stored, chunk.first, words))
            raise
        return _Taken(tensor, change, words, image, digest)

    def _write_group(self, chunks: list[_Taken]) -> None:
        self.writer.check()
        self.journal.record([(one.tensor.name, one.change.number, one.image) for one in chunks])
        for one in chunks:
            first = self._chunk(one.tensor, one.change.number).first
            self.writer.write_words(one.tensor.name, first, one.words)
        self.writer.sync()

    def _check_own(self, tensor: TensorRecord, change: ChunkRecord, words: Words) -> None:
        """Tell a chunk that another program changed since it was checked from an unsound patch."""
        if chunk_digest(words) != self.pending.digests[tensor.name][change.number]:
            raise self._changed(tensor.name)

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

    def _chunk(self, tensor: TensorRecord, number: int) -> Chunk:
        words = self.patch.words_in_chunk(tensor, number)
        return Chunk(number, number * self.patch.chunk_words, words)


def _image_nbytes(tensor: TensorRecord, change: ChunkRecord) -> int:
    return image_nbytes(change.entries, tensor.dtype.word_bytes)


def _listed_nbytes(tensor: TensorRecord) -> int:
    """Bytes of a chunk's entry in the journal's list, at most."""
    return len(json.dumps(tensor.name)) + _LISTED_BYTES
