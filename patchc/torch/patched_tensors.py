"""A patched model as a stream of tensors, for engines whose loaders take one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import torch

from patchc.checkpoint import Checkpoint, open_checkpoint
from patchc.dtypes import Words
from patchc.errors import AlreadyPatchedError
from patchc.formats import Patch, TensorRecord, open_patch
from patchc.hashing import chunk_digest, short
from patchc.patching.model_walk import (
    ChunkDigests,
    Job,
    WalkedTensor,
    model_digests,
    take_step,
    unsound,
    walk_tensors,
    wrong,
)
from patchc.patching.states import match_tensors
from patchc.progress import Progress, ignore_progress
from patchc.runtime.workers import Workers
from patchc.torch.preparation import refuse_features
from patchc.torch.tensors import torch_dtype, words_of


def patched_tensors(
    patch: str | os.PathLike[str],
    base: str | os.PathLike[str],
    *,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the patched model, in the base's order, from files and on the CPU.

    A tensor is identified and its changes checked before it is given out; what only the end can
    show, the digests of the whole model, is checked after the last: serve nothing before the
    iterator has ended. In memory are the tensor in hand and those being read ahead of it: a
    few chunks, and all of the tensor that the last of them begins.

    Args:
        patch: a patch file of exact steps.
        base: the checkpoint that it was made for, a folder or a file.
        threads: worker threads; None means one a core.
        progress: called with the bytes done.

    Raises:
        WrongBaseError: ``base`` is not the patch's; names the first tensor that differs.
        AlreadyPatchedError: it holds the patch already, or a part of it does.
        UnsupportedInputError: the patch is additive or an update, or torch lacks a dtype.
        PatchFormatError, UnsupportedPatchError, CheckpointError: a file cannot be read.
        ResultMismatchError: the outcome is not the promised one.
    """
    with (
        open_patch(patch) as opened,
        open_checkpoint(base) as model,
        Workers(threads) as workers,
    ):
        refuse_features(opened)
        match_tensors(opened, model)
        records = [opened.index.tensors[name] for name in model.tensors]
        dtypes = {record.name: torch_dtype(record.dtype, record.name) for record in records}
        tensors: dict[str, torch.Tensor] = {}

        def tensor_of(record: TensorRecord) -> torch.Tensor:
            if record.name not in tensors:
                new = torch.empty(record.shape, dtype=dtypes[record.name], device="cpu")
                tensors.setdefault(record.name, new)
            return tensors[record.name]

        def run(job: Job) -> ChunkDigests:
            words = words_of(tensor_of(job.record)).numpy().view(job.record.dtype.word)
            own = words[job.chunk.first : job.chunk.first + job.chunk.count]
            return _read_patched(opened, model, job, own)

        walked: list[WalkedTensor] = []
        with closing(
            walk_tensors(opened, model, records, run, "apply", workers, progress)
        ) as in_order:
            for tensor in in_order:
                walked.append(tensor)
                tensor_of(tensor.record)
                yield tensor.record.name, tensors.pop(tensor.record.name)
        opened.check_bodies()
        found = model_digests(walked)
        if (found.base, found.result) != (opened.index.base_digest, opened.index.result_digest):
            raise unsound(opened)


def _read_patched(patch: Patch, model: Checkpoint, job: Job, words: Words) -> ChunkDigests:
    """Read a chunk of the base into ``words`` and take it to the result there."""
    record, chunk = job.record, job.chunk
    model.read_words(model.tensors[record.name], chunk.first, words)
    found = chunk_digest(words)
    row = patch.index.find(record, chunk.number)
    if row is None:
        return ChunkDigests(found, found, None)
    if short(found) == row.result_digest:
        raise AlreadyPatchedError(
            f"{model.path}: tensor {record.name!r} already holds {patch.path}; give the base, or "
            "load this checkpoint as it is"
        )
    if short(found) != row.base_digest:
        raise wrong(patch, model, record.name, f"its chunk {row.number} differs")
    reached = take_step(patch, record, row, words, chunk.count, "result")
    return ChunkDigests(found, reached, "base")
