"""Whether a model is a patch's base or its result: by its tensors, and chunk by chunk."""

from __future__ import annotations

from patchc.checkpoint import Checkpoint
from patchc.errors import WrongBaseError
from patchc.formats import Patch
from patchc.hashing import chunk_digest, short
from patchc.patching.model_walk import ChunkDigests, Job, WalkedDigests, unsound, walk, wrong
from patchc.patching.tensor_sides import read_side, words_on
from patchc.progress import Progress
from patchc.runtime.workers import Workers
from patchc.sides import Side


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


def find_states(
    patch: Patch, model: Checkpoint, workers: Workers, progress: Progress
) -> WalkedDigests:
    """Find out which of the changing chunks hold the base and which the result.

    A chunk in the result state is taken back in memory, so that the whole base's identity is
    checked, the chunks that the patch does not touch included. Tensors that only one side has are
    compared as they are. The ``result`` digest of the answer is that of the model as it was found.

    Raises:
        WrongBaseError: naming the first tensor that is neither.
        ResultMismatchError: a chunk does not go back to its base; the patch is not sound.
        PatchFormatError: a body that applies to what was found is damaged.
    """
    side = find_side(patch, model)

    def run(job: Job) -> ChunkDigests:
        record, chunk = job.record, job.chunk
        words = read_side(model, record, chunk, side, "words")
        row = patch.index.find(record, chunk.number)
        here, before = words_on(record, chunk, side), words_on(record, chunk, "base")
        found = chunk_digest(words[:here])
        if row is None:
            base = found if here == before else chunk_digest(words[:before])
            return ChunkDigests(base, found, None)
        if here == before and short(found) == row.base_digest:
            if patch.needs_words(row):
                patch.change_words(record, row, words)
            return ChunkDigests(found, found, "base")
        if short(found) != row.result_digest:
            raise wrong(patch, model, record.name, f"its chunk {row.number} differs")
        if record.only:
            return ChunkDigests(found, found, "result")
        patch.change_words(record, row, words, "base")
        return ChunkDigests(chunk_digest(words[:before]), found, "result")

    records = [patch.index.tensors_on(side)[name] for name in model.tensors]
    walked = walk(patch, model, records, run, "verify", workers, progress)
    if side == "base" and walked.base != patch.index.base_digest:
        raise unsound(patch)
    patched = side == "result" and not walked.chunks_at_base
    if patched and walked.result != patch.index.result_digest:
        raise unsound(patch)
    return walked


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
