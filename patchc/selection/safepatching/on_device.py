"""The SafePatching source on a device: top sets and merges by its kernels, digests by the CPU.

The scores of a tensor are uploaded once and stay until it is merged, where they find room. Where
they do not, and where all tensors are ranked together, the CPU finds the top set in one pass over
the scores and only its mask is uploaded, a quarter of their bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk, grid
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.hashing import chunk_digest
from patchc.kernels.bitmask import Bitmask, pack, unpack
from patchc.kernels.launch import MOST_ENTRIES, tensor_dtype
from patchc.kernels.safepatching_merge import Part, RankedScores, select_changes
from patchc.kernels.topk import TopSearch, mark_top, top_mask
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.recipe import Recipe
from patchc.runtime.device_pool import DevicePool, StagedChunk
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.selection.candidates import row_length
from patchc.selection.safepatching.changes import MergedTensor, SafePatchingChanges
from patchc.selection.safepatching.component import Component
from patchc.selection.safepatching.scopes import RowSelection, Search, Selection
from patchc.selection.topk.histogram_search import check_scores

if TYPE_CHECKING:
    from torch import Tensor

_SCORE_BYTES = 4
_LARGEST_ROW = 4
"""Rows longer than a chunk over this are ranked by the CPU, so that buffers stay small."""
WORD_BYTES = 28
"""Bytes on the device for each word of a thread's chunk: the base's, two tuned, scores of rows."""


class DeviceChanges(SafePatchingChanges):
    """As :class:`SafePatchingChanges`, bit for bit, with ``staging`` to compute on.

    The deltas of additive values (:meth:`MergedTensor.read_deltas`) are computed by the CPU.
    """

    def __init__(
        self,
        staging: DevicePool,
        base: Checkpoint,
        components: tuple[Component, ...],
        recipe: Recipe,
        candidates: frozenset[str],
        provenance: Mapping[str, Any],
        workers: Workers,
        chunk_words: int,
    ) -> None:
        self.staging = staging
        self._kept: WeakSet[DeviceTop] = WeakSet()
        super().__init__(base, components, recipe, candidates, provenance, workers, chunk_words)

    def _merge(
        self, tensor: TensorInfo, chunks: list[Chunk], selections: tuple[Selection, ...]
    ) -> MergedTensor:
        return _MergedOnDevice(self, tensor, chunks, selections)

    def _select_rows(self, tensor: TensorInfo) -> tuple[Selection, ...]:
        if _LARGEST_ROW * row_length(tensor.shape) > self._chunk_words:
            return super()._select_rows(tensor)
        return tuple(DeviceRows(part, tensor, self.staging) for part in self._components)

    def _search(
        self, tensors: list[TensorInfo], name: str, words: int, ranks: Ranks = ALONE
    ) -> Sequence[Search]:
        held = sum(top.nbytes for top in self._kept)
        needed = len(self._components) * _SCORE_BYTES * words
        fits = words <= MOST_ENTRIES and held + needed <= self.staging.room
        if self._recipe.scope == "global" or not fits:
            return super()._search(tensors, name, words, ranks)
        found = [
            DeviceTop(part, tensors[0], self._chunk_words, self._workers, self.staging)
            for part in self._components
        ]
        self._kept.update(found)
        return found


class DeviceTop:
    """One component's top set in a tensor whose scores are kept on the device.

    Implements :class:`Search` and :class:`Selection`; the upload begins at once.

    Args:
        component: which one.
        tensor: the tensor.
        chunk_words: words in a chunk of the grid.
        workers: threads that read, upload and digest the scores.
        staging: the device.
    """

    def __init__(
        self,
        component: Component,
        tensor: TensorInfo,
        chunk_words: int,
        workers: Workers,
        staging: DevicePool,
    ) -> None:
        import torch

        self.digests: dict[int, bytes] = {}
        self._component = component
        self._tensor = tensor
        self._staging = staging
        self._chunks = grid(tensor.words, chunk_words)
        self._ranked = component.ranked(tensor.name)
        self._scores = staging.empty(tensor.words, torch.float32)
        self._uploads = workers.submit(self._upload, self._chunks)

    @property
    def nbytes(self) -> int:
        """Bytes of the scores on the device."""
        return self._scores.nbytes

    def result(self) -> Mapping[str, Selection]:
        """See :class:`Search`."""
        for upload in self._uploads:
            upload.result()
        count = math.floor(self._component.top(self._tensor.name) * self._tensor.words)
        with self._staging.computing():
            search = TopSearch(count, str(self._staging.device))
            search.count_high(self._scores, 0, self._ranked)
            search.narrow()
            search.count_low(self._scores, 0, self._ranked)
            self._cut = search.cut()
            try:
                search.check(self._component.source(self._tensor.name))
            except NumericError:
                self._name_fault()
                raise
            self._taken = self._ties_before()
        return {self._tensor.name: self}

    def top(self, chunk: Chunk) -> RankedScores:
        """The chunk's scores, which :func:`select_changes` ranks; to be taken once."""
        return RankedScores(self._of(chunk), self._cut, self._taken[chunk.number])

    def mark(self, chunk: Chunk) -> Bitmask:
        """See :class:`Selection`."""
        import torch

        with self._staging.computing():
            mask = torch.empty(chunk.count, dtype=torch.bool, device=self._staging.device)
            top = self.top(chunk)
            mark_top(top.scores, chunk.first, self._ranked, top.cut, top.taken, mask)
            return pack(mask.cpu().numpy())

    def _of(self, chunk: Chunk) -> Tensor:
        return self._scores[chunk.first : chunk.first + chunk.count]

    def _upload(self, chunk: Chunk) -> None:
        staged = _stage_scores(self._component, self._tensor, chunk, self._staging)
        staged.upload_to(self._of(chunk))
        self.digests[chunk.number] = chunk_digest(staged.words)
        staged.wait()

    def _ties_before(self) -> Tensor:
        """For each chunk, one row: entries before it that equal the key; 0 if all such are in."""
        import torch

        before = torch.zeros((len(self._chunks), 1), dtype=torch.int64, device=self._staging.device)
        _, ties, available = self._cut.tolist()
        if ties < available:
            taken = torch.zeros_like(self._cut[:1])
            for chunk in self._chunks:
                before[chunk.number] = taken
                mask = torch.empty(chunk.count, dtype=torch.bool, device=self._staging.device)
                mark_top(self._of(chunk), chunk.first, self._ranked, self._cut, taken, mask)
        return before

    def _name_fault(self) -> None:
        for chunk in self._chunks:
            bits = self._component.read_scores(self._tensor, chunk)
            check_scores(bits, chunk, self._component.source(self._tensor.name))


class DeviceRows:
    """One component's top set in each row of a tensor; implements :class:`Selection`."""

    def __init__(self, component: Component, tensor: TensorInfo, staging: DevicePool) -> None:
        self.digests: dict[int, bytes] = {}
        self._component = component
        self._tensor = tensor
        self._staging = staging

    def top(self, chunk: Chunk) -> Tensor:
        """The chunk's mask, on the device.

        Raises:
            NumericError: a score is negative or not finite.
        """
        import torch

        part, name = self._component, self._tensor.name
        rows, own = RowSelection(part, self._tensor).rows(chunk)
        staged = _stage_scores(part, self._tensor, rows, self._staging)
        scores = staged.upload(torch.float32)
        self.digests[chunk.number] = chunk_digest(staged.words[own])
        length = row_length(self._tensor.shape)
        count = math.floor(part.top(name) * length)
        with self._staging.computing():
            try:
                return top_mask(scores, count, part.ranked(name), length, rows.first)[own]
            except NumericError:
                check_scores(staged.words, rows, part.source(name))
                raise

    def mark(self, chunk: Chunk) -> Bitmask:
        """See :class:`Selection`."""
        mask = self.top(chunk)
        with self._staging.computing():
            return pack(mask.cpu().numpy())


class _MergedOnDevice(MergedTensor):
    """A candidate tensor whose chunks the fused kernel merges."""

    def __init__(
        self,
        source: DeviceChanges,
        tensor: TensorInfo,
        chunks: list[Chunk],
        selections: tuple[Selection, ...],
    ) -> None:
        super().__init__(source, tensor, chunks, selections)
        self._staging = source.staging

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """See :class:`patchc.compiler.steps.TensorChanges`."""
        recipe, dtype = self._source.recipe, self._tensor.dtype
        base = self._staging.words("base", chunk.count, dtype.word)
        self._source.base.read_words(self._tensor, chunk.first, base.words)
        there = base.upload(tensor_dtype(dtype))
        parts = [self._stage(number, chunk) for number in range(len(self._selections))]
        with self._staging.computing():
            rank_all = recipe.rank_among == "all"
            changes = select_changes(
                there, parts, chunk.first, recipe.sets, rank_all, recipe.least_step
            )
            positions, steps = changes.positions.cpu().numpy(), changes.steps.cpu().numpy()
        if changes.fault:
            number, position = changes.fault
            raise self._fault(chunk, position, number)
        overlap = changes.tops if len(parts) == 1 else ()
        self._counts[chunk.number] = [*changes.tops, *overlap, *changes.applied]
        result: Words = scratch("result", chunk.count, dtype.word)
        result[:] = base.words
        add_steps(result, positions, steps, dtype.total_order, False)
        return base.words, result

    def _stage(self, number: int, chunk: Chunk) -> Part:
        """Read and upload what a component has in a chunk."""
        component, name = self._source.components[number], self._tensor.name
        info = component.tuned.tensors[name]
        staged = self._staging.words(f"{component.name} tuned", chunk.count, info.dtype.word)
        component.tuned.read_words(info, chunk.first, staged.words)
        tuned = staged.upload(tensor_dtype(info.dtype))
        self._tuned_digests[number][chunk.number] = chunk_digest(staged.words)
        top, scale = self._top(number, chunk), float(self._scales[number])
        return Part(tuned, top, component.retention(name), scale)

    def _top(self, number: int, chunk: Chunk) -> RankedScores | Tensor:
        selection = self._selections[number]
        if isinstance(selection, DeviceTop | DeviceRows):
            return selection.top(chunk)
        import torch

        slot = f"{self._source.components[number].name} mask"
        mask = unpack(selection.mark(chunk), chunk.count)
        return self._staging.send(slot, mask, torch.bool)


def _stage_scores(
    component: Component, tensor: TensorInfo, chunk: Chunk, staging: DevicePool
) -> StagedChunk:
    staged = staging.words(f"{component.name} scores", chunk.count, np.uint32)
    component.scores.read_words(component.scores.tensors[tensor.name], chunk.first, staged.words)
    return staged
