"""Takes a model from base to result or back, chunk by chunk, and checks every step on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.errors import PatchcError, ResultMismatchError, WrongBaseError
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.hashing import chunk_digest, model_digest, short, tensor_digest
from patchc.kernels.ulp import add_steps
from patchc.progress import Progress, ProgressEvent
from patchc.stream.grid import Chunk, grid
from patchc.stream.merge import EntryCount, merge_chunk
from patchc.stream.workers import Workers, scratch

Words = NDArray[np.unsignedinteger]
WriteWords = Callable[[TensorInfo, int, Words], None]
"""Takes a tensor, its first word and the words to write there; called from worker threads."""


class OtherStateError(PatchcError):
    """A chunk already holds what the patch would write; the caller finds out about the rest."""


@dataclass(frozen=True)
class _Job:
    tensor: TensorInfo
    record: TensorRecord
    chunk: Chunk


@dataclass(frozen=True)
class ChunkDigests:
    """Full digests of one chunk in the base and in the result.

    ``state`` is the one that it was found in; a chunk that the patch does not touch has none.
    """

    base: bytes
    result: bytes
    state: Literal["base", "result"] | None


@dataclass(frozen=True)
class FoldedDigests:
    """Full digests of the base model and the result model; chunks found in each state.

    ``differing`` names the tensors that are not those of the patch's base, where that is allowed.
    """

    base: bytes
    result: bytes
    chunks_at_base: int
    chunks_at_result: int
    differing: tuple[str, ...] = ()


def match_tensors(patch: Patch, model: Checkpoint) -> None:
    """Check that the model has the patch's tensors: names, dtypes and shapes.

    Raises:
        WrongBaseError: naming the first tensor that differs.
    """
    for tensor in model.tensors.values():
        record = patch.index.tensors.get(tensor.name)
        if record is None:
            raise _wrong(patch, model, tensor.name, "the patch's base does not have it")
        if (record.dtype, record.shape) != (tensor.dtype, tensor.shape):
            raise _wrong(
                patch, model, tensor.name,
                f"it is {tensor.dtype.name} {list(tensor.shape)} and the patch's base has "
                f"{record.dtype.name} {list(record.shape)}",
            )  # fmt: skip
    for name in patch.index.tensors:
        if name not in model.tensors:
            raise _wrong(patch, model, name, "the model does not have it")


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

    def run(job: _Job) -> ChunkDigests:
        words = _read(model, job)
        chunk = patch.index.find(job.record, job.chunk.number)
        found = chunk_digest(words)
        if chunk is None:
            write(job.tensor, job.chunk.first, words)
            return ChunkDigests(found, found, None)
        expected, other = chunk.base_digest, chunk.result_digest
        if revert:
            expected, other = other, expected
        if short(found) != expected:
            if short(found) == other:
                raise OtherStateError(job.tensor.name)
            raise _wrong(patch, model, job.tensor.name, f"its chunk {chunk.number} differs")
        reached = take_step(patch, job.record, chunk, words, revert)
        write(job.tensor, job.chunk.first, words)
        if revert:
            return ChunkDigests(reached, found, "result")
        return ChunkDigests(found, reached, "base")

    folded = _fold(patch, model, run, "revert" if revert else "apply", workers, progress)
    patch.check_bodies()
    if folded.result != patch.index.result_digest:
        raise _unsound(patch)


def take_step(
    patch: Patch, record: TensorRecord, chunk: ChunkRecord, words: Words, revert: bool
) -> bytes:
    """Take a chunk's words from base to result, or back, in place; their full digest then.

    Raises:
        ResultMismatchError: the outcome is not the promised one.
        PatchFormatError: the chunk's body is damaged.
    """
    reached = _step(patch, record, chunk, words, revert)
    if short(reached) != (chunk.base_digest if revert else chunk.result_digest):
        raise ResultMismatchError(
            f"{patch.path}: tensor {record.name!r}, chunk {chunk.number}: the outcome is "
            "not the promised one; the patch is not sound, fetch or build it again"
        )
    return reached


def find_states(
    patch: Patch, model: Checkpoint, workers: Workers, progress: Progress
) -> FoldedDigests:
    """Find out which of the changing chunks hold the base and which the result.

    A chunk in the result state is taken back in memory, so that the whole base's identity is
    checked, the chunks that the patch does not touch included. The ``result`` digest of the answer
    is that of the model as it was found.

    Raises:
        WrongBaseError: naming the first tensor that is neither.
        ResultMismatchError: a chunk does not go back to its base; the patch is not sound.
    """

    def run(job: _Job) -> ChunkDigests:
        words = _read(model, job)
        chunk = patch.index.find(job.record, job.chunk.number)
        found = chunk_digest(words)
        if chunk is None:
            return ChunkDigests(found, found, None)
        if short(found) == chunk.base_digest:
            return ChunkDigests(found, found, "base")
        if short(found) != chunk.result_digest:
            raise _wrong(patch, model, job.tensor.name, f"its chunk {chunk.number} differs")
        return ChunkDigests(_step(patch, job.record, chunk, words, True), found, "result")

    return _fold(patch, model, run, "verify", workers, progress)


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
        words = _read(model, job)
        chunk = patch.index.find(job.record, job.chunk.number)
        found = chunk_digest(words)
        if chunk is not None:
            if short(found) != chunk.base_digest and not onto_descendant:
                raise _wrong(patch, model, job.tensor.name, f"its chunk {chunk.number} differs")
            merge_chunk(patch, job.record, chunk, words, scales, count)
        write(job.tensor, job.chunk.first, words)
        return ChunkDigests(found, found, None)

    folded = _fold(patch, model, run, "apply", workers, progress, onto_descendant)
    patch.check_bodies()
    count.check()
    return folded.differing


def _fold(
    patch: Patch,
    model: Checkpoint,
    run: Callable[[_Job], ChunkDigests],
    stage: str,
    workers: Workers,
    progress: Progress,
    may_differ: bool = False,
) -> FoldedDigests:
    match_tensors(patch, model)
    total = sum(tensor.nbytes for tensor in model.tensors.values())
    base_model: list[tuple[str, bytes]] = []
    result_model: list[tuple[str, bytes]] = []
    states = {"base": 0, "result": 0}
    differing: list[str] = []
    done = 0
    with closing(workers.map(run, _jobs(patch, model))) as results:
        for tensor in model.tensors.values():
            digests = [next(results) for _ in grid(tensor.words, patch.chunk_words)]
            base, result = (
                tensor_digest(tensor.dtype.name, tensor.shape, side)
                for side in ((d.base for d in digests), (d.result for d in digests))
            )
            if not _is_base(patch, tensor.name, base, digests):
                if not may_differ:
                    raise _wrong(patch, model, tensor.name, "its values differ")
                differing.append(tensor.name)
            for digest in digests:
                if digest.state:
                    states[digest.state] += 1
            base_model.append((tensor.name, base))
            result_model.append((tensor.name, result))
            done += tensor.nbytes
            progress(ProgressEvent(stage, done, total, "bytes", tensor.name))
    base, result = model_digest(base_model), model_digest(result_model)
    if base != patch.index.base_digest and not differing:
        raise _unsound(patch)
    return FoldedDigests(base, result, states["base"], states["result"], tuple(differing))


def _is_base(patch: Patch, name: str, base: bytes, chunks: Sequence[ChunkDigests]) -> bool:
    record = patch.index.tensors[name]
    if record.base_digest is not None:
        return short(base) == record.base_digest
    pairs = zip(chunks, record.chunks, strict=True)
    return all(short(found.base) == patch.index.chunk(row).base_digest for found, row in pairs)


def _jobs(patch: Patch, model: Checkpoint) -> Iterator[_Job]:
    for tensor in model.tensors.values():
        record = patch.index.tensors[tensor.name]
        for chunk in grid(tensor.words, patch.chunk_words):
            yield _Job(tensor, record, chunk)


def _read(model: Checkpoint, job: _Job) -> Words:
    words = scratch("words", job.chunk.count, job.tensor.dtype.word)
    return model.read_words(job.tensor, job.chunk.first, words)


def _step(
    patch: Patch, record: TensorRecord, chunk: ChunkRecord, words: Words, revert: bool
) -> bytes:
    positions, steps = patch.read_changes(record, chunk)
    add_steps(words, positions, steps, record.dtype.total_order, revert)
    return chunk_digest(words)


def _unsound(patch: Patch) -> ResultMismatchError:
    return ResultMismatchError(
        f"{patch.path}: every chunk matches and the model's digest does not; the patch is not "
        "sound, fetch or build it again"
    )


def _wrong(patch: Patch, model: Checkpoint, tensor: str, difference: str) -> WrongBaseError:
    return WrongBaseError(
        f"{model.path} is not the model that {patch.path} was made for: tensor {tensor!r}: "
        f"{difference}"
    )
