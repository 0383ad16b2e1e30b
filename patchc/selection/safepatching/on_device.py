"""SafePatching on a device: its kernels find top sets and merge, the CPU computes digests.

The scores of a tensor are uploaded once and stay on the device until the tensor is merged. If they
do not fit, or if all tensors are ranked together, the CPU finds the top set and only its mask is
uploaded, which takes a quarter of the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from patchc.checkpoint import TensorInfo
from patchc.chunks import Chunk, grid
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.kernels.bitmask import Bitmask, pack, unpack
from patchc.kernels.launch import MOST_ENTRIES, tensor_dtype
from patchc.kernels.safepatching_merge import ComponentTile, RankedScores, select_changes
from patchc.kernels.topk import TopSearch, mark_top, top_mask
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.runtime.device_pool import DevicePool, StagedChunk
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.runtime import Runtime
from patchc.selection.candidates import row_length
from patchc.selection.safepatching.changes import MergedTensor, SafePatchingChanges
from patchc.selection.safepatching.component import Component
from patchc.selection.safepatching.scopes import RowSelection, Search, Selection
from patchc.selection.topk.histogram_search import check_scores

if TYPE_CHECKING:
    from torch import Tensor

_SCORE_BYTES = 4
_LARGEST_ROW = 4
"""Rows longer than a chunk divided by this are ranked by the CPU, to keep buffers small."""
WORD_BYTES = 28
"""Bytes on the device for each word of a thread's chunk: base, two tuned words, scores of rows."""


class DeviceChanges(SafePatchingChanges):
    """The same changes as :class:`SafePatchingChanges`, bit for bit, computed on the device.

    The CPU computes the deltas of additive values (:meth:`MergedTensor.read_deltas`).
    """

    @property
    def pool(self) -> DevicePool:
        """The device."""
        if self.runtime.pool is None:
            raise RuntimeError("the runtime has no device")
        return self.runtime.pool

    @cached_property
    def _resident(self) -> WeakSet[DeviceTop]:
        """The searches whose scores lie on the device."""
        return WeakSet()

    def _merge(
        self, tensor: TensorInfo, chunks: list[Chunk], selections: tuple[Selection, ...]
    ) -> MergedTensor:
        return _MergedOnDevice(self, tensor, chunks, selections)

    def _select_rows(self, tensor: TensorInfo) -> tuple[Selection, ...]:
        if _LARGEST_ROW * row_length(tensor.shape) > self.chunk_words:
            return super()._select_rows(tensor)
        return tuple(DeviceRows(one, tensor, self.pool) for one in self.components)

    def _search(
        self, tensors: list[TensorInfo], name: str, words: int, ranks: Ranks = ALONE
    ) -> Sequence[Search]:
        held = sum(top.nbytes for top in self._resident)
        needed = len(self.components) * _SCORE_BYTES * words
        fits = words <= MOST_ENTRIES and held + needed <= self.pool.room
        if self.recipe.scope == "global" or not fits:
            return super()._search(tensors, name, words, ranks)
        found = [
            DeviceTop(one, tensors[0], self.chunk_words, self.runtime, self.pool)
            for one in self.components
        ]
        self._resident.update(found)
        return [top.result for top in found]


class DeviceTop:
    """One component's top set in a tensor whose scores stay on the device.

    Implements :class:`Selection`, and :class:`Search` by :meth:`result`. The threads of ``runtime``
    begin at once to read, upload and digest the scores.
    """

    def __init__(
        self,
        component: Component,
        tensor: TensorInfo,
        chunk_words: int,
        runtime: Runtime,
        pool: DevicePool,
    ) -> None:
        import torch

        self.digests: dict[int, bytes] = {}
        self._component = component
        self._tensor = tensor
        self._pool = pool
        self._chunks = grid(tensor.words, chunk_words)
        self._ranked = component.ranked(tensor.name)
        self._used = component.used(component.scores, tensor.name)
        self._scores = pool.empty(tensor.words, torch.float32)
        self._uploads = runtime.submit(self._upload, self._chunks)

    @property
    def nbytes(self) -> int:
        """Bytes of the scores on the device."""
        return self._scores.nbytes

    def result(self) -> Mapping[str, Selection]:
        """See :class:`Search`."""
        for upload in self._uploads:
            upload.result()
        count = self._component.top_count(self._tensor.name, self._tensor.words)
        with self._pool.computing():
            search = TopSearch(count, str(self._pool.device))
            search.count_high(self._scores, 0, self._ranked)
            search.narrow()
            search.count_low(self._scores, 0, self._ranked)
            self._cut = search.cut()
            source = self._component.source(self._tensor.name)
            try:
                search.check(source)
            except NumericError:
                for chunk in self._chunks:  # the CPU names the flat index
                    check_scores(self._component.read_scores(self._tensor, chunk), chunk, source)
                raise
            self._taken = self._ties_before()
        return {self._tensor.name: self}

    def top(self, chunk: Chunk) -> RankedScores:
        """The chunk's scores for :func:`select_changes`, which ranks them; asked for once."""
        return RankedScores(self._of(chunk), self._cut, self._taken[chunk.number])

    def bitmask(self, chunk: Chunk) -> Bitmask:
        """See :class:`Selection`."""
        import torch

        with self._pool.computing():
            mask = torch.empty(chunk.count, dtype=torch.bool, device=self._pool.device)
            top = self.top(chunk)
            mark_top(top.scores, chunk.first, self._ranked, top.cut, top.taken, mask)
            return pack(mask.cpu().numpy())

    def _of(self, chunk: Chunk) -> Tensor:
        return self._scores[chunk.first : chunk.first + chunk.count]

    def _upload(self, chunk: Chunk) -> None:
        staged = _stage_scores(self._component, self._tensor, chunk, self._pool)
        staged.upload_to(self._of(chunk))
        self.digests[chunk.number] = self._used.digest(chunk, staged.words)
        staged.wait()

    def _ties_before(self) -> Tensor:
        """Earlier entries that equal the cut, [chunks, 1]; 0 if all of these are in the set."""
        import torch

        before = torch.zeros((len(self._chunks), 1), dtype=torch.int64, device=self._pool.device)
        _, ties, available = self._cut.tolist()
        if ties < available:
            taken = torch.zeros_like(self._cut[:1])
            for chunk in self._chunks:
                before[chunk.number] = taken
                mask = torch.empty(chunk.count, dtype=torch.bool, device=self._pool.device)
                mark_top(self._of(chunk), chunk.first, self._ranked, self._cut, taken, mask)
        return before


@dataclass(frozen=True)
class DeviceRows:
    """One component's top set in each row of a tensor; implements :class:`Selection`."""

    component: Component
    tensor: TensorInfo
    pool: DevicePool
    digests: dict[int, bytes] = field(default_factory=dict)

    def top(self, chunk: Chunk) -> Tensor:
        """The chunk's mask, on the device.

        Raises:
            NumericError: a score is negative or not finite.
        """
        import torch

        component, name = self.component, self.tensor.name
        rows, own = RowSelection(component, self.tensor).rows(chunk)
        staged = _stage_scores(component, self.tensor, rows, self.pool)
        scores = staged.upload(torch.float32)
        used = component.used(component.scores, name)
        self.digests[chunk.number] = used.digest(chunk, staged.words[own])
        length = row_length(self.tensor.shape)
        count = component.top_count(name, length)
        with self.pool.computing():
            try:
                return top_mask(scores, count, component.ranked(name), length, rows.first)[own]
            except NumericError:
                check_scores(staged.words, rows, component.source(name))
                raise

    def bitmask(self, chunk: Chunk) -> Bitmask:
        """See :class:`Selection`."""
        mask = self.top(chunk)
        with self.pool.computing():
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
        self._pool = source.pool

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """See :class:`patchc.compiler.steps.TensorChanges`."""
        recipe, dtype = self._source.recipe, self._tensor.dtype
        base = self._pool.words("base", chunk.count, dtype.word)
        self._source.base.read_words(self._tensor, chunk.first, base.words)
        there = base.upload(tensor_dtype(dtype))
        tiles = [self._stage(number, chunk) for number in range(len(self._selections))]
        with self._pool.computing():
            rank_all = recipe.rank_among == "all"
            changes = select_changes(
                there, tiles, chunk.first, recipe.sets, rank_all, recipe.least_step
            )
            positions, steps = changes.positions.cpu().numpy(), changes.steps.cpu().numpy()
        if changes.fault:
            number, position = changes.fault
            raise self._fault(chunk, position, number)
        overlap = changes.tops if len(tiles) == 1 else ()
        self._counts[chunk.number] = [*changes.tops, *overlap, *changes.applied]
        result: Words = self._source.runtime.buffers.result(chunk.count, dtype.word)
        result[:] = base.words
        add_steps(result, positions, steps, dtype.total_order, False)
        return base.words, result

    def _stage(self, number: int, chunk: Chunk) -> ComponentTile:
        """Read and upload a component's words and scores of a chunk."""
        component, name = self._source.components[number], self._tensor.name
        info = component.tuned.tensors[name]
        staged = self._pool.words(f"{component.name} tuned", chunk.count, info.dtype.word)
        component.tuned.read_words(info, chunk.first, staged.words)
        tuned = staged.upload(tensor_dtype(info.dtype))
        self._tuned_digests[number][chunk.number] = self._used[number].digest(chunk, staged.words)
        top, scale = self._top(number, chunk), float(self._scales[number])
        return ComponentTile(tuned, top, component.retention(name), scale)

    def _top(self, number: int, chunk: Chunk) -> RankedScores | Tensor:
        selection = self._selections[number]
        if isinstance(selection, DeviceTop | DeviceRows):
            return selection.top(chunk)
        import torch

        slot = f"{self._source.components[number].name} mask"
        mask = unpack(selection.bitmask(chunk), chunk.count)
        return self._pool.send(slot, mask, torch.bool)


def _stage_scores(
    component: Component, tensor: TensorInfo, chunk: Chunk, pool: DevicePool
) -> StagedChunk:
    staged = pool.words(f"{component.name} scores", chunk.count, np.uint32)
    component.scores.read_words(component.scores.tensors[tensor.name], chunk.first, staged.words)
    return staged
