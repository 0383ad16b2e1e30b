"""Takes a model to its other state where it lies: a look at everything, then what has to change.

The look decides: the digest of the whole model is the base's or the result's, or chunk by
chunk it is one or the other, as an interrupted run leaves it. So a run can always be repeated.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint
from patchc.dtypes import Words
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.hashing import chunk_digest, short
from patchc.patching.digest import chunk_digests, digest_of
from patchc.patching.model_walk import ChunkDigests, Job, take_step, unsound, walk, wrong
from patchc.patching.rewrite import WriteWords
from patchc.patching.states import find_states, match_tensors
from patchc.patching.tensor_sides import read_side
from patchc.progress import Progress, ProgressEvent
from patchc.runtime.workers import Workers
from patchc.sides import OTHER, Side


@dataclass(frozen=True)
class Pending:
    """What is left to do to reach side ``target``.

    Attributes:
        target: the side to reach.
        chunks: the chunks to write, in the model's order.
        kept: number of changing chunks that hold the target already.
        digests: tensor name → full digests of its chunks, as they were found.
    """

    target: Side
    chunks: list[tuple[TensorRecord, ChunkRecord]]
    kept: int
    digests: dict[str, list[bytes]]

    def nbytes(self, patch: Patch) -> int:
        """Bytes of the chunks to write."""
        return sum(_nbytes(patch, record, row) for record, row in self.chunks)

    def shards(self, model: Checkpoint) -> list[str]:
        """Names of the shards that hold them."""
        return sorted({model.tensors[record.name].shard for record, _ in self.chunks})


def everything(patch: Patch, model: Checkpoint, target: Side) -> Pending:
    """All changing chunks of a model whose contents are not looked at."""
    rows = [
        (record, patch.index.chunk(row))
        for record in map(patch.index.tensors.__getitem__, model.tensors)
        for row in record.chunks
    ]
    return Pending(target, rows, 0, {})


def find_pending(
    patch: Patch, model: Checkpoint, target: Side, workers: Workers, progress: Progress
) -> Pending:
    """Read all of a model and all of a patch, and say which chunks do not hold ``target`` yet.

    Args:
        patch: exact steps that keep tensors and files.
        model: its base, its result, or anything between.
        target: the side to reach.
        workers, progress: threads; called with the bytes read.

    Raises:
        WrongBaseError: naming the first tensor with a chunk on neither side.
        ResultMismatchError: the patch's own digests contradict each other.
        PatchFormatError: a body is damaged.
        CheckpointError: a file cannot be read, or was changed while in use.
    """
    match_tensors(patch, model)
    digests = chunk_digests(model, workers, patch.chunk_words, progress)
    found = digest_of(model, digests)
    if found not in (patch.index.base_digest, patch.index.result_digest):
        _check_between(patch, model, target, workers, progress)
    model.check_unchanged()
    patch.check_bodies()
    rows = everything(patch, model, target).chunks
    chunks = []
    if found != patch.index.digest_on(target):
        chunks = [
            (record, row)
            for record, row in rows
            if short(digests[record.name][row.number]) != row.digest_on(target)
        ]
    return Pending(target, chunks, len(rows) - len(chunks), digests)


def _check_between(
    patch: Patch, model: Checkpoint, target: Side, workers: Workers, progress: Progress
) -> None:
    """Check a model that is partly on ``target`` by taking the rest there in memory.

    No body of a chunk that is there already is decoded: a patch with one that does not decode has
    stopped before it, and has to go back.
    """

    def run(job: Job) -> ChunkDigests:
        record, chunk = job.record, job.chunk
        words = read_side(model, record, chunk, target, "words")
        row = patch.index.find(record, chunk.number)
        found = chunk_digest(words)
        if row and short(found) != row.digest_on(target):
            if short(found) != row.digest_on(OTHER[target]):
                raise wrong(patch, model, record.name, f"its chunk {row.number} differs")
            found = take_step(patch, record, row, words, chunk.count, target)
        return ChunkDigests(found, found, None)

    records = [patch.index.tensors[name] for name in model.tensors]
    walked = walk(patch, model, records, run, "verify", workers, progress, may_differ=True)
    if walked.result != patch.index.digest_on(target):
        find_states(patch, model, workers, progress)  # names the tensor
        raise unsound(patch)


def rewrite_pending(
    patch: Patch,
    model: Checkpoint,
    pending: Pending,
    write: WriteWords,
    workers: Workers,
    progress: Progress,
) -> None:
    """Write the chunks that are pending, each checked before it is written.

    Args:
        patch, model: as for :func:`find_pending`, which has just looked at them.
        pending: its answer.
        write: called in worker threads with a chunk's words; makes them durable, one at a time.
        workers, progress: threads; called with the bytes written.

    Raises:
        ResultMismatchError: an outcome is not the promised one; that chunk was not written.
        CheckpointError: a file became unreadable.
        StorageError: whatever ``write`` raises.
    """
    revert = pending.target == "base"

    def run(job: tuple[TensorRecord, ChunkRecord]) -> bytes:
        record, row = job
        first, count = row.number * patch.chunk_words, patch.words_in_chunk(record, row.number)
        words: Words = scratch("words", count, record.dtype.word)
        model.read_words(model.tensors[record.name], first, words)
        reached = take_step(patch, record, row, words, count, pending.target)
        write(record.name, first, words)
        return reached

    stage = "revert" if revert else "apply"
    total, done = pending.nbytes(patch), 0
    digests = {name: list(chunks) for name, chunks in pending.digests.items()}
    with closing(workers.map(run, pending.chunks)) as results:
        for (record, row), reached in zip(pending.chunks, results, strict=True):
            digests[record.name][row.number] = reached
            done += _nbytes(patch, record, row)
            progress(ProgressEvent(stage, done, total, "bytes", record.name))
    if digest_of(model, digests) != patch.index.digest_on(pending.target):
        raise unsound(patch)


def _nbytes(patch: Patch, record: TensorRecord, row: ChunkRecord) -> int:
    return patch.words_in_chunk(record, row.number) * record.dtype.word_bytes
