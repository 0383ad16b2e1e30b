"""Takes a model from base to result or back, chunk by chunk, and checks every step on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint
from patchc.errors import PatchcError, ResultMismatchError, WrongBaseError
from patchc.formats import OTHER, ChunkRecord, Patch, Side, TensorRecord
from patchc.hashing import chunk_digest, model_digest, short, tensor_digest
from patchc.kernels.ulp import add_steps
from patchc.progress import Progress, ProgressEvent
from patchc.stream.grid import Chunk, grid
from patchc.stream.merge import EntryCount, merge_chunk
from patchc.stream.rows import read_row, words_on
from patchc.stream.workers import Workers

Words = NDArray[np.unsignedinteger]
WriteWords = Callable[[str, int, Words], None]
"""Takes a tensor's name, its first word and the words from there on; called in worker threads."""


class OtherStateError(PatchcError):
    """A chunk already holds what the patch would write; the caller finds out about the rest."""


@dataclass(frozen=True)
class _Job:
    record: TensorRecord
    chunk: Chunk


@dataclass(frozen=True)
class ChunkDigests:
    """Full digests of one chunk in the base and in the result.

    ``state`` is the one that it was found in; a chunk that the patch does not touch has none.
    """

    base: bytes
    result: bytes
    state: Side | None

    def on(self, side: Side) -> bytes:
        """The digest on one side."""
        return self.base if side == "base" else self.result


@dataclass(frozen=True)
class FoldedDigests:
    """Full digests of the base model and the result model, of the tensors that were walked over.

    ``chunks_at_base`` and ``chunks_at_result`` count the changing chunks found in each state;
    ``differing`` names the tensors that are not those of the patch's base, where that is allowed.
    """

    base: bytes
    result: bytes
    chunks_at_base: int
    chunks_at_result: int
    differing: tuple[str, ...] = ()


def match_tensors(patch: Patch, model: Checkpoint, side: Side = "base") -> None:
    """Check that the model has the tensors of one of the patch's sides: names, dtypes and shapes.

    Raises:
        WrongBaseError: naming the first tensor that differs.
    """
    records = patch.index.tensors_on(side)
    of_side = f"the patch's {'base' if patch.index.keeps_tensors else side}"
    for tensor in model.tensors.values():
        record = records.get(tensor.name)
        if record is None:
            raise wrong(patch, model, tensor.name, f"{of_side} does not have it")
        shape = record.shape_on(side)
        if (record.dtype, shape) != (tensor.dtype, tensor.shape):
            raise wrong(
                patch, model, tensor.name,
                f"it is {tensor.dtype.name} {list(tensor.shape)} and {of_side} has "
                f"{record.dtype.name} {list(shape or ())}",
            )  # fmt: skip
    for name in records:
        if name not in model.tensors:
            raise wrong(patch, model, name, "the model does not have it")


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

    def run(job: _Job) -> ChunkDigests:
        record, chunk = job.record, job.chunk
        words = read_row(model, record, chunk, source, "words")
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
            _step(patch, record, row, words, revert)
            reached = chunk_digest(words[:there])
            if short(reached) != other:
                raise ResultMismatchError(
                    f"{patch.path}: tensor {record.name!r}, chunk {row.number}: the outcome is "
                    "not the promised one; the patch is not sound, fetch or build it again"
                )
        if there:
            write(record.name, chunk.first, words[:there])
        state = source if row else None
        if revert:
            return ChunkDigests(reached, found, state)
        return ChunkDigests(found, reached, state)

    records = [patch.index.tensors_on(source)[name] for name in model.tensors]
    records += [record for record in patch.index.records if record.only == target]
    match_tensors(patch, model, source)
    folded = _fold(patch, model, records, run, "revert" if revert else "apply", workers, progress)
    patch.check_bodies()
    if folded.base != patch.index.base_digest or folded.result != patch.index.result_digest:
        raise _unsound(patch)


def find_states(
    patch: Patch, model: Checkpoint, workers: Workers, progress: Progress
) -> FoldedDigests:
    """Find out which of the changing chunks hold the base and which the result.

    A chunk in the result state is taken back in memory, so that the whole base's identity is
    checked, the chunks that the patch does not touch included. Tensors that only one side has are
    compared as they are. The ``result`` digest of the answer is that of the model as it was found.

    Raises:
        WrongBaseError: naming the first tensor that is neither.
        ResultMismatchError: a chunk does not go back to its base; the patch is not sound.
    """
    side = find_side(patch, model)

    def run(job: _Job) -> ChunkDigests:
        record, chunk = job.record, job.chunk
        words = read_row(model, record, chunk, side, "words")
        row = patch.index.find(record, chunk.number)
        here, before = words_on(record, chunk, side), words_on(record, chunk, "base")
        found = chunk_digest(words[:here])
        if row is None:
            base = found if here == before else chunk_digest(words[:before])
            return ChunkDigests(base, found, None)
        if here == before and short(found) == row.base_digest:
            return ChunkDigests(found, found, "base")
        if short(found) != row.result_digest:
            raise wrong(patch, model, record.name, f"its chunk {row.number} differs")
        if record.only:
            return ChunkDigests(found, found, "result")
        _step(patch, record, row, words, revert=True)
        return ChunkDigests(chunk_digest(words[:before]), found, "result")

    records = [patch.index.tensors_on(side)[name] for name in model.tensors]
    folded = _fold(patch, model, records, run, "verify", workers, progress)
    if side == "base" and folded.base != patch.index.base_digest:
        raise _unsound(patch)
    patched = side == "result" and not folded.chunks_at_base
    if patched and folded.result != patch.index.result_digest:
        raise _unsound(patch)
    return folded


def find_side(patch: Patch, model: Checkpoint) -> Side:
    """The side whose tensors the model has by name, dtype and shape; the base where both fit.

    Raises:
        WrongBaseError: naming the first tensor that differs from the base.
    """
    try:
        match_tensors(patch, model)
    except WrongBaseError:
        if patch.index.keeps_tensors:
            raise
        try:
            match_tensors(patch, model, "result")
        except WrongBaseError:
            match_tensors(patch, model)
        return "result"
    return "base"


def merge(
    patch: Patch,
    model: Checkpoint,
    write: WriteWords,
    scales: Sequence[float],
    onto_descendant: bool,
    workers: Workers,
    progress: Progress,
) -> tuple[str, ...]:
    """Read every chunk of the model, add an additive patch to it with these scales, and write it.

    Args:
        patch: an additive patch.
        model: its base; with ``onto_descendant`` any model with the same names, dtypes and shapes.
        write: takes every chunk.
        scales: a factor for each component, rounded to fp32 here.
        onto_descendant: go on where a tensor is not the base's.
        workers, progress: threads; called with the bytes done.

    Returns:
        Names of the tensors that are not the base's, in the model's order.

    Raises:
        WrongBaseError: the first tensor, in the model's order, that is not the base's.
        NumericError: a merged value is not finite; names tensor and flat index.
        PatchFormatError: a body is damaged, or the chunks hold other entries than are claimed.
    """
    count = EntryCount(patch)

    def run(job: _Job) -> ChunkDigests:
        words = read_row(model, job.record, job.chunk, "base", "words")
        row = patch.index.find(job.record, job.chunk.number)
        found = chunk_digest(words)
        if row is not None:
            if short(found) != row.base_digest and not onto_descendant:
                raise wrong(patch, model, job.record.name, f"its chunk {row.number} differs")
            merge_chunk(patch, job.record, row, words, scales, count)
        write(job.record.name, job.chunk.first, words)
        return ChunkDigests(found, found, None)

    match_tensors(patch, model)
    records = [patch.index.tensors[name] for name in model.tensors]
    folded = _fold(patch, model, records, run, "apply", workers, progress, onto_descendant)
    if folded.base != patch.index.base_digest and not folded.differing:
        raise _unsound(patch)
    patch.check_bodies()
    count.check()
    return folded.differing


def _fold(
    patch: Patch,
    model: Checkpoint,
    records: Sequence[TensorRecord],
    run: Callable[[_Job], ChunkDigests],
    stage: str,
    workers: Workers,
    progress: Progress,
    may_differ: bool = False,
) -> FoldedDigests:
    """Run over all chunks of ``records`` and put their digests together.

    A tensor that the model has is identified by the digests that the index holds of it.
    """
    total = sum(record.words * record.dtype.word_bytes for record in records)
    models: dict[Side, list[tuple[str, bytes]]] = {"base": [], "result": []}
    states: dict[Side | None, int] = {"base": 0, "result": 0, None: 0}
    differing: list[str] = []
    done = 0
    jobs = (_Job(record, chunk) for record in records for chunk in _grid(patch, record))
    with closing(workers.map(run, jobs)) as results:
        for number, record in enumerate(records):
            chunks = _grid(patch, record)
            digests = [next(results) for _ in chunks]
            of_tensor: dict[Side, bytes] = {}
            for side, of_model in models.items():
                shape = record.shape_on(side)
                if shape is not None:
                    pairs = zip(chunks, digests, strict=True)
                    own = [d.on(side) for chunk, d in pairs if words_on(record, chunk, side)]
                    of_tensor[side] = tensor_digest(record.dtype.name, shape, own)
                    of_model.append((record.name, of_tensor[side]))
            if number < len(model.tensors) and not _is_known(patch, record, of_tensor, digests):
                if not may_differ:
                    raise wrong(patch, model, record.name, "its values differ")
                differing.append(record.name)
            for digest in digests:
                states[digest.state] += 1
            done += record.words * record.dtype.word_bytes
            progress(ProgressEvent(stage, done, total, "bytes", record.name))
    base, result = model_digest(models["base"]), model_digest(models["result"])
    return FoldedDigests(base, result, states["base"], states["result"], tuple(differing))


def _grid(patch: Patch, record: TensorRecord) -> list[Chunk]:
    return grid(record.words, patch.chunk_words)


def _is_known(
    patch: Patch,
    record: TensorRecord,
    of_tensor: Mapping[Side, bytes],
    chunks: Sequence[ChunkDigests],
) -> bool:
    side: Side = "result" if record.only == "result" else "base"
    if record.digest is not None:
        return short(of_tensor[side]) == record.digest
    rows = zip(chunks, record.chunks, strict=True)
    return all(
        short(found.on(side)) == patch.index.chunk(row).digest_on(side) for found, row in rows
    )


def _step(patch: Patch, record: TensorRecord, row: ChunkRecord, words: Words, revert: bool) -> None:
    positions, steps = patch.read_changes(record, row)
    add_steps(words, positions, steps, record.dtype.total_order, revert)


def _unsound(patch: Patch) -> ResultMismatchError:
    return ResultMismatchError(
        f"{patch.path}: every chunk matches and the model's digest does not; the patch is not "
        "sound, fetch or build it again"
    )


def wrong(patch: Patch, model: Checkpoint, tensor: str, difference: str) -> WrongBaseError:
    """The error for a model that is not the expected one."""
    return WrongBaseError(
        f"{model.path} is not the model that {patch.path} was made for: tensor {tensor!r}: "
        f"{difference}"
    )
