"""What a patch changes, as engines take sparse updates: names, flat positions, new values."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import UsageError
from patchc.formats import Patch, TensorRecord
from patchc.hub_models import takes_models
from patchc.patching.chunk_images import ChunkImage
from patchc.patching.digest_pass import ModelDigests, TensorDigests, pass_over_tensors
from patchc.patching.tensor_sides import read_side
from patchc.patching.transition import ChunkDigests, Transition, unsound
from patchc.progress import Progress, ignore_progress
from patchc.runtime.runtime import Runtime
from patchc.sides import Side
from patchc.signing.trust import ANYBODY, Trust
from patchc.torch.preparation import opened_with_base
from patchc.torch.tensors import torch_dtype, words_of

_SCATTERED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Dtypes that engines scatter. They mark what stays by NaN, which integers do not have, and for
8-bit floats torch has no scatter on the CPU."""

_INT32_WORDS = 1 << 31


@dataclass(frozen=True, eq=False)
class SparseUpdate:
    """New values in one tensor of a checkpoint.

    Attributes:
        name: the tensor's name in the checkpoint.
        shape: its shape there.
        dtype: its dtype there.
        values: one-dimensional, on the CPU, in memory of their own: the values at ``positions``,
            or those of the whole tensor.
        positions: places in the flattened tensor, ascending, each once; int32, or int64 where the
            tensor has more than 2³¹ elements. None for the whole tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    values: torch.Tensor
    positions: torch.Tensor | None


@takes_models("base")
def sparse_updates(
    patch: str | os.PathLike[str],
    base: str | os.PathLike[str],
    *,
    target: Side = "result",
    threads: int | None = None,
    trust: Trust = ANYBODY,
    progress: Progress = ignore_progress,
) -> Iterator[SparseUpdate]:
    """What a patch changes, as an engine's sparse update takes it: one update per changed chunk.

    Tensors come in the base's order, their chunks by position; a tensor that does not change does
    not come. Values are those of the files, bit for bit, and only where bits change: −0 instead of
    0 is a change.

    A tensor comes whole, in one update, if its dtype is not float64, float32, float16 or bfloat16,
    or if one of its new values is NaN: engines take NaN for "stays as it is".

    The whole base is read and identified. A tensor is identified and its changes are checked before
    its first update comes; the digests of the whole model are checked after the last one. So serve
    nothing before the iterator has ended, and after an error restore the engine. That the engine
    holds the other side cannot be checked here: ask it for checksums, or reload it.

    Memory holds the changes of the current tensor (four bytes and a value each), or all of it where
    it comes whole, and a few chunks that are read ahead.

    Args:
        patch: a patch file of exact steps.
        base: the checkpoint that it was made for, or the patched one; a folder or a file.
        target: the side whose values come: ``"result"`` to patch an engine that loaded the base,
            ``"base"`` to take the patch back.
        threads: worker threads; None means one per core.
        trust: who must have signed the patch; see :func:`patchc.apply`.
        progress: called with the bytes done.

    Raises:
        WrongBaseError: ``base`` is on neither side; names the first tensor that differs.
        UnsupportedInputError: the patch is additive or an update, or torch lacks the dtype of a
            tensor that changes, as the packed ones; before the first update.
        UsageError: ``target`` is no side.
        PatchFormatError, UnsupportedPatchError, CheckpointError: a file cannot be read.
        ResultMismatchError: the outcome is not the promised one.
        SignatureError, MissingExtraError: as :func:`patchc.apply`, about a policy.
    """
    if target not in ("base", "result"):
        raise UsageError(f"target is {target!r:.80}; it must be result or base")
    with opened_with_base(patch, base, threads, trust, progress) as (opened, model, runtime):
        records = [opened.index.tensors[name] for name in model.tensors]
        changes = _Changes(opened, model, target, runtime)
        changes.choose_forms(records)
        passed: list[TensorDigests] = []
        with closing(changes.pass_over(records, "apply")) as in_order:
            for tensor in in_order:
                passed.append(tensor)
                if changes.come_whole_for_nan(tensor.record):
                    list(changes.pass_over([tensor.record], "read a tensor whole"))
                yield from changes.updates(tensor.record)
        opened.check_bodies()
        if not ModelDigests.of(passed).is_promised_by(opened):
            raise unsound(opened)


@dataclass(frozen=True)
class _Changes:
    """What changes, collected by the threads of a pass and taken away tensor by tensor.

    Attributes:
        patch: of exact steps.
        model: on either of its sides.
        target: the side whose values are collected.
        runtime: the threads and their buffers.
    """

    patch: Patch
    model: Checkpoint
    target: Side
    runtime: Runtime
    _dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    _come_whole: set[str] = field(default_factory=set)
    _whole: dict[str, torch.Tensor] = field(default_factory=dict)
    _chunks: dict[str, dict[int, SparseUpdate]] = field(default_factory=dict)

    def choose_forms(self, records: list[TensorRecord]) -> None:
        """Find out which tensors come whole because of their dtypes.

        Raises:
            UnsupportedInputError: torch lacks the dtype of a tensor that changes; names it.
        """
        for record in records:
            if record.chunks:
                self._chunks[record.name] = {}
                self._dtypes[record.name] = torch_dtype(record.dtype, record.name)
                if self._dtypes[record.name] not in _SCATTERED:
                    self._come_whole.add(record.name)

    def pass_over(
        self, records: list[TensorRecord], stage: str
    ) -> Generator[TensorDigests, None, None]:
        """Collect the changes of ``records``, and yield the digests of each when it is identified.

        Raises:
            WrongBaseError, ResultMismatchError, PatchFormatError: as :func:`sparse_updates`.
        """
        work = self._collect
        return pass_over_tensors(self.patch, self.model, records, work, stage, self.runtime)

    def come_whole_for_nan(self, record: TensorRecord) -> bool:
        """Whether a tensor has to be collected again, whole, because a new value is NaN."""
        chunks = self._chunks.get(record.name, {})
        if not any(bool(update.values.isnan().any()) for update in chunks.values()):
            return False
        self._come_whole.add(record.name)
        chunks.clear()
        return True

    def updates(self, record: TensorRecord) -> Iterator[SparseUpdate]:
        """Take away what was collected of a tensor."""
        chunks = self._chunks.pop(record.name, {})
        for number in sorted(chunks):
            yield chunks.pop(number)
        if record.name in self._whole:
            yield self._update(record, self._whole.pop(record.name))

    def _collect(self, record: TensorRecord, chunk: Chunk) -> ChunkDigests:
        words = read_side(self.model, record, chunk, "base", self.runtime.buffers.words)
        change = self.patch.index.find(record, chunk.number)
        image = ChunkImage.empty(change.entries if change else 0, record.dtype.word)
        digests = Transition(self.patch, self.model.path).flip(record, chunk, words, image)
        if digests.found_on == self.target:
            image.restore(words)
        if record.name in self._come_whole:
            own = self._whole_words(record)
            own[chunk.first : chunk.first + chunk.count] = words
        elif change:
            kind = np.int32 if record.words <= _INT32_WORDS else np.int64
            positions = torch.from_numpy(image.positions.astype(kind)).add_(chunk.first)
            values = torch.empty(change.entries, dtype=self._dtypes[record.name], device="cpu")
            words_of(values).numpy().view(record.dtype.word)[:] = words[image.positions]
            self._chunks[record.name][chunk.number] = self._update(record, values, positions)
        return digests

    def _whole_words(self, record: TensorRecord) -> Words:
        """The words of a tensor that comes whole, to be filled."""
        if record.name not in self._whole:
            new = torch.empty(record.words, dtype=self._dtypes[record.name], device="cpu")
            self._whole.setdefault(record.name, new)
        words: Words = words_of(self._whole[record.name]).numpy().view(record.dtype.word)
        return words

    def _update(
        self, record: TensorRecord, values: torch.Tensor, positions: torch.Tensor | None = None
    ) -> SparseUpdate:
        return SparseUpdate(record.name, record.shape, values.dtype, values, positions)
