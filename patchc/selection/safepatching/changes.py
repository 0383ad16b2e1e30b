"""SafePatching (arXiv 2405.13820) as a stream of changes to a base.

Seeded random retention of each component, exact top-k of its scores, a set operation on the two top
sets, scaled addition of the two deltas where they are retained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.compiler.rank_messages import TensorReport
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.hashing import ChunkHasher, chunk_digest, tensor_digest
from patchc.kernels.bitmask import Bitmask, count, unpack
from patchc.kernels.safepatching_merge.cpu import merge_components
from patchc.kernels.safepatching_merge.reference import add_scaled_delta, load_fp32, round_masked
from patchc.kernels.ulp_steps.cpu import undo_small_steps
from patchc.patching.tensor_sides import deal_pairs, unchanged_pairs
from patchc.recipe import Recipe
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.selection.build_statistics import BuildStatistics
from patchc.selection.identity_tensor import IdentityTensor
from patchc.selection.safepatching.component import Component
from patchc.selection.safepatching.scopes import FlatSearch, RowSelection, Search, Selection
from patchc.selection.safepatching.sets import combine
from patchc.selection.tuned_words import TunedTensor


class SafePatchingChanges:
    """The changes of a build.

    Implements :class:`patchc.compiler.steps.ChangeSource` and, with the deltas before the scales
    that the patch states, :class:`patchc.compiler.additive_deltas.DeltaSource`.

    Args:
        base: the aligned model.
        components: the safety-enhancement and the over-safety-mitigation component, in this order,
            or one of them.
        recipe: parameters of the selection.
        candidates: names of the tensors that take part; the plan has checked them.
        provenance: metadata to which the inputs' digests and the statistics are added.
        workers: threads for the passes that find the cuts.
        chunk_words: words in a chunk of the grid.
    """

    def __init__(
        self,
        base: Checkpoint,
        components: tuple[Component, ...],
        recipe: Recipe,
        candidates: frozenset[str],
        provenance: Mapping[str, Any],
        workers: Workers,
        chunk_words: int,
    ) -> None:
        self._base = base
        self._components = components
        self._recipe = recipe
        self._candidates = candidates
        self._provenance = provenance
        self._workers = workers
        self._chunk_words = chunk_words
        own = deal_pairs(unchanged_pairs(base), workers.ranks.size)[workers.ranks.rank]
        self._own = [base.tensors[row.name] for row in own if row.name in candidates]
        everywhere = recipe.scope == "global"
        self._selections = self._select_everywhere() if everywhere else self._select_each()
        self._findings = BuildStatistics()

    def open_tensor(self, tensor: TensorInfo, chunks: list[Chunk]) -> IdentityTensor | MergedTensor:
        """See :class:`patchc.compiler.steps.ChangeSource`."""
        if tensor.name not in self._candidates:
            return IdentityTensor(self._base, tensor)
        return self.open_candidate(tensor, chunks)

    def open_candidate(self, tensor: TensorInfo, chunks: list[Chunk]) -> MergedTensor:
        """Prepare a tensor that takes part; they come in the order of their names' bytes."""
        return self._merge(tensor, chunks, next(self._selections))

    def note(self, tensor: str, finding: TensorReport) -> None:
        """See :class:`patchc.compiler.steps.ChangeSource`."""
        self._findings.note(tensor, finding)

    def metadata(self) -> Mapping[str, Any]:
        """See :class:`patchc.compiler.steps.ChangeSource`."""
        for component in self._components:
            # Scores are read several times over: the cut and the marks must have seen the same.
            component.scores.check_unchanged()
        return {**self._provenance, **self._findings.metadata()}

    def _select_everywhere(self) -> Iterator[tuple[Selection, ...]]:
        """The selections of each own candidate where all are ranked together, over all ranks."""
        words = sum(self._base.tensors[name].words for name in self._candidates)
        # In this scope no override sets a share, so that any name gives it.
        searches = self._search(self._own, "", words, self._workers.ranks)
        found = [search.result() for search in searches]
        return iter([tuple(selections[one.name] for selections in found) for one in self._own])

    def _select_each(self) -> Iterator[tuple[Selection, ...]]:
        """The selections of each own candidate, in the order of the bytes of their names.

        A tensor's scores are read while the one before it is merged and coded.
        """
        if self._recipe.scope == "row":
            for tensor in self._own:
                yield self._select_rows(tensor)
            return
        ahead: Sequence[Search] = []
        for tensor, following in zip_longest(self._own, self._own[1:]):
            searches = ahead or self._search([tensor], tensor.name, tensor.words)
            ahead = []
            if following:
                ahead = self._search([following], following.name, following.words)
            yield tuple(search.result()[tensor.name] for search in searches)

    def _merge(
        self, tensor: TensorInfo, chunks: list[Chunk], selections: tuple[Selection, ...]
    ) -> MergedTensor:
        return MergedTensor(self, tensor, chunks, selections)

    def _select_rows(self, tensor: TensorInfo) -> tuple[Selection, ...]:
        return tuple(RowSelection(component, tensor) for component in self._components)

    def _search(
        self, tensors: list[TensorInfo], name: str, words: int, ranks: Ranks = ALONE
    ) -> Sequence[Search]:
        return [
            FlatSearch(
                component,
                math.floor(component.top(name) * words),
                tensors,
                self._chunk_words,
                self._workers,
                ranks,
            )
            for component in self._components
        ]

    @property
    def base(self) -> Checkpoint:
        """The aligned model."""
        return self._base

    @property
    def components(self) -> tuple[Component, ...]:
        """The components that take part."""
        return self._components

    @property
    def recipe(self) -> Recipe:
        """Parameters of the selection."""
        return self._recipe


class MergedTensor:
    """A candidate tensor; implements :class:`TensorChanges` and `TensorDeltas`."""

    def __init__(
        self,
        source: SafePatchingChanges,
        tensor: TensorInfo,
        chunks: list[Chunk],
        selections: tuple[Selection, ...],
    ) -> None:
        self._source = source
        self._tensor = tensor
        self._selections = selections
        parts = source.components
        self._scales = np.array([part.scale(tensor.name) for part in parts], np.float32)
        self._tuned = TunedTensor([part.tuned for part in parts], tensor.name)
        self._tuned_digests: list[list[bytes]] = [[b""] * len(chunks) for _ in selections]
        self._counts = np.zeros((len(chunks), 2 * len(selections) + 1), np.int64)

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """See :class:`patchc.compiler.steps.TensorChanges`."""
        base, marks = self.select(chunk)
        return base, self._result(chunk, base, marks)

    def read_deltas(self, chunk: Chunk) -> tuple[Words, list[NDArray[np.float32]]]:
        """See :class:`patchc.compiler.additive_deltas.TensorDeltas`."""
        base, marks = self.select(chunk)
        deltas = []
        for number, component in enumerate(self._source.components):
            delta = scratch(f"{component.name} delta", chunk.count, np.float32)
            delta[:] = 0
            words = self._tuned.read(number, chunk)
            self._tuned_digests[number][chunk.number] = chunk_digest(words)
            mask = unpack(marks[number], chunk.count)
            scale = component.stored_scale(self._tensor.name)
            self._add(number, chunk, base, words, mask, scale, delta)
            deltas.append(delta)
        return base, deltas

    def select(self, chunk: Chunk) -> tuple[Words, list[Bitmask]]:
        """See :class:`patchc.selection.selected_entries.Selected`."""
        base = scratch("base", chunk.count, self._tensor.dtype.word)
        self._source.base.read_words(self._tensor, chunk.first, base)
        marks = [selection.mark(chunk) for selection in self._selections]
        overlap = reduce(np.bitwise_and, marks)
        tops = [count(each) for each in (*marks, overlap)]
        combine(self._source.recipe.sets, marks, overlap)
        if self._source.recipe.rank_among == "all":
            for component, each in zip(self._source.components, marks, strict=True):
                component.keep_retained(self._tensor.name, chunk, each)
        self._counts[chunk.number] = [*tops, *map(count, marks)]
        return base, marks

    def read_tuned(self, number: int, chunk: Chunk) -> Words:
        """See :class:`patchc.selection.selected_entries.Selected`."""
        return self._tuned.read(number, chunk)

    def finish(self) -> TensorReport:
        """See :class:`patchc.compiler.steps.TensorChanges`."""
        name = self._tensor.name
        counts = [int(n) for n in self._counts.sum(axis=0)]
        parts = self._source.components
        labels = [*(p.name for p in parts), "overlap", *(f"{p.name} applied" for p in parts)]
        found = dict(zip(labels, counts, strict=True))
        if len(parts) == 1:
            del found["overlap"]
        inputs = {}
        for part, selection, tuned in zip(
            parts, self._selections, self._tuned_digests, strict=True
        ):
            scores = [selection.digests[number] for number in range(len(tuned))]
            inputs[f"{part.name} tuned"] = _digest(part.tuned.tensors[name], tuned)
            inputs[f"{part.name} scores"] = _digest(part.scores.tensors[name], scores)
        return {"statistics": found, "inputs": inputs}

    def _result(self, chunk: Chunk, base: Words, marks: list[Bitmask]) -> Words:
        result: Words = scratch("result", chunk.count, base.dtype)
        hashers = [ChunkHasher() for _ in marks]
        for piece in self._tuned.pieces(chunk, marks, hashers):
            if merge_components(
                base[piece.own], self._tensor.dtype.code, piece.words, self._tuned.codes,
                piece.marks, self._scales, result[piece.own],
            ):  # fmt: skip
                raise self._find_fault(chunk, base, marks)
        for digests, hasher in zip(self._tuned_digests, hashers, strict=True):
            digests[chunk.number] = hasher.digest()
        if self._source.recipe.least_step > 1:
            total_order = self._tensor.dtype.total_order
            undo_small_steps(base, result, total_order, self._source.recipe.least_step)
        return result

    def _find_fault(self, chunk: Chunk, base: Words, marks: list[Bitmask]) -> NumericError:
        """Merge again, one component after the other, to name the first value at fault."""
        code = self._tensor.dtype.code
        masks = [unpack(each, chunk.count) for each in marks]
        either = reduce(np.logical_or, masks)
        merged = np.zeros(chunk.count, np.float32)
        load_fp32(base, code, either, merged)
        for number, mask in enumerate(masks):
            words = self._tuned.read(number, chunk)
            self._add(number, chunk, base, words, mask, self._scales[number], merged)
        fault = round_masked(base, code, either, merged, np.empty_like(base))
        return self._fault(chunk, fault, len(masks))

    def _add(
        self,
        number: int,
        chunk: Chunk,
        base: Words,
        tuned: Words,
        mask: NDArray[np.bool_],
        scale: np.float32,
        merged: NDArray[np.float32],
    ) -> None:
        component = self._source.components[number]
        tuned_code = component.tuned.tensors[self._tensor.name].dtype.code
        code = self._tensor.dtype.code
        fault = add_scaled_delta(base, code, tuned, tuned_code, mask, scale, merged)
        if fault >= 0:
            raise self._fault(chunk, fault, number)

    def _fault(self, chunk: Chunk, position: int, number: int) -> NumericError:
        """The error for a value of a component, or where there is none, of the merged model."""
        where = "the merged model (too large for its dtype)"
        if number < len(self._selections):
            where = f"the base or the {self._source.components[number].name} model"
        return NumericError(
            f"tensor {self._tensor.name!r}, flat index {chunk.first + position}: the value in "
            f"{where} is not finite; exclude the tensor, or lower alpha and beta"
        )


def _digest(info: TensorInfo, chunks: list[bytes]) -> str:
    return tensor_digest(info.dtype.name, info.shape, chunks).hex()
