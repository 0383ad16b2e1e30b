"""Takes a model from base to result or back, chunk by chunk, and checks every step on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from patchc.checkpoint import Checkpoint
from patchc.dtypes import Words
from patchc.errors import PatchcError
from patchc.formats import Patch
from patchc.hashing import chunk_digest, short
from patchc.patching.additive_merge import EntryCount, merge_chunk
from patchc.patching.model_walk import ChunkDigests, Job, take_step, unsound, walk, wrong
from patchc.patching.states import match_tensors
from patchc.patching.tensor_sides import read_side, words_on
from patchc.progress import Progress
from patchc.runtime.device_pool import DevicePool
from patchc.runtime.ranks import Ranks
from patchc.runtime.workers import Workers
from patchc.sides import OTHER, Side

WriteWords = Callable[[str, int, Words], None]
"""Takes a tensor's name, its first word and the words from there on; called in worker threads."""


class OtherStateError(PatchcError):
    """A chunk already holds what the patch would write; the caller finds out about the rest."""


def rewrite(
    patch: Patch,
    model: Checkpoint,
    write: WriteWords,
    revert: bool,
    workers: Workers,
    progress: Progress,
) -> None:
    """Read every chunk of the model, take it to the result (or back to the base) and write it.

    Checked on the way: each chunk before it changes and after, each tensor's identity, and at the
    end the digest over all bodies and both model digests in full.

    Raises:
        PatchFormatError: a body is damaged or was replaced.
        WrongBaseError: the first tensor, in the model's order, that is not the expected one.
        OtherStateError: a chunk already holds the other state.
        ResultMismatchError: the output would not be what the patch promises.
    """
    source: Side = "result" if revert else "base"
    target = OTHER[source]

    def run(job: Job) -> ChunkDigests:
        record, chunk = job.record, job.chunk
        words = read_side(model, record, chunk, source, "words")
        here, there = words_on(record, chunk, source), words_on(record, chunk, target)
        row = patch.index.find(record, chunk.number)
        found = chunk_digest(words[:here])
        if row is None:
            reached = found if here == there else chunk_digest(words[:there])
        else:
            expected, other = row.base_digest, row.result_digest
            if revert:
                expected, other = other, expected
            if short(found) != expected:
                if short(found) == other:
                    raise OtherStateError(record.name)
                raise wrong(patch, model, record.name, f"its chunk {row.number} differs")
            reached = take_step(patch, record, row, words, there, target)
        if there:
            write(record.name, chunk.first, words[:there])
        state = source if row else None
        if revert:
            return ChunkDigests(reached, found, state)
        return ChunkDigests(found, reached, state)

    records = [patch.index.tensors_on(source)[name] for name in model.tensors]
    records += [record for record in patch.index.records if record.only == target]
    match_tensors(patch, model, source)
    walked = walk(patch, model, records, run, "revert" if revert else "apply", workers, progress)
    _check_bodies(patch, workers.ranks)
    if walked.base != patch.index.base_digest or walked.result != patch.index.result_digest:
        raise unsound(patch)


def merge(
    patch: Patch,
    model: Checkpoint,
    write: WriteWords,
    scales: Sequence[float],
    onto_descendant: bool,
    workers: Workers,
    progress: Progress,
    staging: DevicePool | None = None,
) -> tuple[str, ...]:
    """Read every chunk of the model, add an additive patch to it with these scales, and write it.

    Args:
        patch: an additive patch.
        model: its base; with ``onto_descendant`` any model with the same names, dtypes and shapes.
        write: takes every chunk.
        scales: a factor for each component, rounded to fp32 here.
        onto_descendant: go on where a tensor is not the base's.
        workers, progress: threads; called with the bytes done.
        staging: a device to add on; words that change pass through its buffers.

    Returns:
        Names of the tensors that are not the base's, in the model's order.

    Raises:
        WrongBaseError: the first tensor, in the model's order, that is not the base's.
        NumericError: a merged value is not finite; names tensor and flat index.
        PatchFormatError: a body is damaged, or the chunks hold other entries than are claimed.
    """
    count = EntryCount(patch)

    def run(job: Job) -> ChunkDigests:
        row = patch.index.find(job.record, job.chunk.number)
        staged = None
        if staging and row is not None:
            staged = staging.words("words", job.chunk.count, job.record.dtype.word)
            words = staged.words
            model.read_words(model.tensors[job.record.name], job.chunk.first, words)
        else:
            words = read_side(model, job.record, job.chunk, "base", "words")
        found = chunk_digest(words)
        if row is not None:
            if short(found) != row.base_digest and not onto_descendant:
                raise wrong(patch, model, job.record.name, f"its chunk {row.number} differs")
            merge_chunk(patch, job.record, row, words, scales, count, staged)
        write(job.record.name, job.chunk.first, words)
        return ChunkDigests(found, found, None)

    match_tensors(patch, model)
    records = [patch.index.tensors[name] for name in model.tensors]
    walked = walk(patch, model, records, run, "apply", workers, progress, onto_descendant)
    if walked.base != patch.index.base_digest and not walked.differing:
        raise unsound(patch)
    _check_bodies(patch, workers.ranks)
    count.check(workers.ranks)
    return walked.differing


def _check_bodies(patch: Patch, ranks: Ranks) -> None:
    """Check all bodies as they were read, by whichever rank."""
    for read in ranks.gather("bodies", patch.bodies.pack):
        patch.bodies.add(read)
    patch.check_bodies()
