"""Streams the tensors of a patched model to the loader of an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import torch

from patchc.chunks import Chunk
from patchc.errors import AlreadyPatchedError
from patchc.formats import TensorRecord
from patchc.hub_models import takes_models
from patchc.patching.digest_pass import ModelDigests, TensorDigests, pass_over_tensors
from patchc.patching.transition import ChunkDigests, OtherSideError, Transition, unsound
from patchc.progress import Progress, ignore_progress
from patchc.signing.trust import ANYBODY, Trust
from patchc.torch.preparation import opened_with_base
from patchc.torch.tensors import torch_dtype, words_of


@takes_models("base")
def patched_tensors(
    patch: str | os.PathLike[str],
    base: str | os.PathLike[str],
    *,
    threads: int | None = None,
    trust: Trust = ANYBODY,
    progress: Progress = ignore_progress,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the patched model, in the base's order, from files and on the CPU.

    Each tensor is identified and its changes are checked before it is yielded. The digests of the
    whole model are checked after the last one, so serve nothing before the iterator has ended.
    Memory holds the current tensor and those that are read ahead: a few chunks, and the whole of
    the tensor that the last of them belongs to.

    Args:
        patch: a patch file of exact steps.
        base: the checkpoint that it was made for, a folder or a file.
        threads: worker threads; None means one per core.
        trust: who must have signed the patch; see :func:`patchc.apply`.
        progress: called with the bytes done.

    Raises:
        WrongBaseError: ``base`` is not the patch's; names the first tensor that differs.
        AlreadyPatchedError: ``base`` holds the patch already, at least in some chunks.
        UnsupportedInputError: the patch is additive or an update, or torch lacks a dtype.
        PatchFormatError, UnsupportedPatchError, CheckpointError: a file cannot be read.
        ResultMismatchError: the outcome is not the promised one.
        SignatureError, MissingExtraError: as :func:`patchc.apply`, about a policy.
    """
    with opened_with_base(patch, base, threads, trust, progress) as (opened, model, runtime):
        records = [opened.index.tensors[name] for name in model.tensors]
        dtypes = {record.name: torch_dtype(record.dtype, record.name) for record in records}
        tensors: dict[str, torch.Tensor] = {}
        transition = Transition(opened, model.path)

        def tensor_of(record: TensorRecord) -> torch.Tensor:
            if record.name not in tensors:
                new = torch.empty(record.shape, dtype=dtypes[record.name], device="cpu")
                tensors.setdefault(record.name, new)
            return tensors[record.name]

        def take(record: TensorRecord, chunk: Chunk) -> ChunkDigests:
            words = words_of(tensor_of(record)).numpy().view(record.dtype.word)
            own = words[chunk.first : chunk.first + chunk.count]
            model.read_words(model.tensors[record.name], chunk.first, own)
            try:
                return transition.take(record, chunk, own, "result")
            except OtherSideError as error:
                raise AlreadyPatchedError(
                    f"{model.path}: tensor {record.name!r} already holds {opened.path}; give the "
                    "base, or load this checkpoint as it is"
                ) from error

        passed: list[TensorDigests] = []
        with closing(pass_over_tensors(opened, model, records, take, "apply", runtime)) as in_order:
            for tensor in in_order:
                passed.append(tensor)
                tensor_of(tensor.record)
                yield tensor.record.name, tensors.pop(tensor.record.name)
        opened.check_bodies()
        if not ModelDigests.of(passed).is_promised_by(opened):
            raise unsound(opened)
