"""SafePatching (arXiv 2405.13820) as a stream of changes to a base.

A build retains random entries of the safety enhancement (SE) and the over-safety mitigation (OSM)
component, takes the top entries of each by score, combines the two top sets, and adds the scaled
deltas of the entries that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.compiler.rank_messages import TensorReport
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.hashing import tensor_digest
from patchc.kernels.bitmask import Bitmask, count, unpack
from patchc.kernels.rounding.cpu import load_fp32, round_masked
from patchc.kernels.safepatching_merge.cpu import add_scaled_delta, merge_components
from patchc.kernels.tiles import new_tiles
from patchc.kernels.topk.sampled import keep_retained
from patchc.kernels.ulp_steps.cpu import undo_small_steps
from patchc.recipe import Recipe
from patchc.recipe.safepatching import SetOperation
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.runtime import Runtime
from patchc.selection.build_source import BuildSource
from patchc.selection.safepatching.component import Component
from patchc.selection.safepatching.scopes import RowSelection, Search, Selection, search_flat
from patchc.selection.tuned_words import TunedTensor


class SafePatchingChanges(BuildSource["MergedTensor"]):
    """The changes of a SafePatching build.

    Implements :class:`patchc.compiler.steps.ChangeSource` and, with the deltas before the scales
    that the patch states, :class:`patchc.compiler.additive_deltas.DeltaSource`.

    ``components`` are the SE and the OSM component, in this order, or one of them. Other arguments
    are those of :class:`BuildSource`.
    """

    def __init__(
        self,
        base: Checkpoint,
        components: tuple[Component, ...],
        recipe: Recipe,
        candidates: Sequence[TensorInfo],
        provenance: Mapping[str, Any],
        runtime: Runtime,
        chunk_words: int,
    ) -> None:
        super().__init__(base, candidates, provenance, runtime, chunk_words)
        self.components = components
        self.recipe = recipe
        self._words = sum(tensor.words for tensor in candidates)
        everywhere = recipe.scope == "global"
        self._selections = self._select_everywhere() if everywhere else self._select_each()

    def open_candidate(self, tensor: TensorInfo, chunks: list[Chunk]) -> MergedTensor:
        """See :class:`BuildSource`."""
        return self._merge(tensor, chunks, next(self._selections))

    def read_from(self) -> Iterable[Checkpoint]:
        """See :class:`BuildSource`."""
        read = [(component.scores, component.tuned) for component in self.components]
        return [self.base, *(checkpoint for pair in read for checkpoint in pair)]

    def _select_everywhere(self) -> Iterator[tuple[Selection, ...]]:
        """The selections of each own candidate; those of all ranks are ranked together."""
        # In this scope no override sets a share, so any name gives it.
        searches = self._search(self.own, "", self._words, self.runtime.ranks)
        found = [search() for search in searches]
        return iter([tuple(selections[one.name] for selections in found) for one in self.own])

    def _select_each(self) -> Iterator[tuple[Selection, ...]]:
        """The selections of each own candidate, in the order of the bytes of their names.

        A tensor's scores are read while the one before it is merged and coded.
        """
        if self.recipe.scope == "row":
            for tensor in self.own:
                yield self._select_rows(tensor)
            return
        ahead: Sequence[Search] = []
        for tensor, following in zip_longest(self.own, self.own[1:]):
            searches = ahead or self._search([tensor], tensor.name, tensor.words)
            ahead = []
            if following:
                ahead = self._search([following], following.name, following.words)
            yield tuple(search()[tensor.name] for search in searches)

    def _merge(
        self, tensor: TensorInfo, chunks: list[Chunk], selections: tuple[Selection, ...]
    ) -> MergedTensor:
        return MergedTensor(self, tensor, chunks, selections)

    def _select_rows(self, tensor: TensorInfo) -> tuple[Selection, ...]:
        return tuple(RowSelection(component, tensor) for component in self.components)

    def _search(
        self, tensors: list[TensorInfo], name: str, words: int, ranks: Ranks = ALONE
    ) -> Sequence[Search]:
        return [
            search_flat(
                component,
                component.top_count(name, words),
                tensors,
                self.chunk_words,
                self.runtime,
                ranks,
            )
            for component in self.components
        ]


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
        components = source.components
        self._scales = np.array([one.scale(tensor.name) for one in components], np.float32)
        tuned = [one.tuned for one in components]
        self.tuned = TunedTensor(tuned, tensor.name, source.runtime.buffers)
        self._used = [one.used(one.tuned, tensor.name) for one in components]
        self._tuned_digests: list[list[bytes]] = [[b""] * len(chunks) for _ in selections]
        self._counts = np.zeros((len(chunks), 2 * len(selections) + 1), np.int64)

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """See :class:`patchc.compiler.steps.TensorChanges`."""
        base, bitmasks = self.select(chunk)
        return base, self._result(chunk, base, bitmasks)

    def read_deltas(self, chunk: Chunk) -> tuple[Words, list[NDArray[np.float32]]]:
        """See :class:`patchc.compiler.additive_deltas.TensorDeltas`."""
        base, bitmasks = self.select(chunk)
        deltas = []
        for number, component in enumerate(self._source.components):
            delta = self._source.runtime.buffers.deltas[number](chunk.count, np.float32)
            delta[:] = 0
            words = self.tuned.read(number, chunk)
            self._tuned_digests[number][chunk.number] = self._used[number].digest(chunk, words)
            mask = unpack(bitmasks[number], chunk.count)
            scale = component.stored_scale(self._tensor.name)
            self._add(number, chunk, base, words, mask, scale, delta)
            deltas.append(delta)
        return base, deltas

    def select(self, chunk: Chunk) -> tuple[Words, list[Bitmask]]:
        """See :class:`patchc.selection.selected_entries.Selected`."""
        base: Words = self._source.runtime.buffers.base(chunk.count, self._tensor.dtype.word)
        self._source.base.read_words(self._tensor, chunk.first, base)
        bitmasks = [selection.bitmask(chunk) for selection in self._selections]
        overlap = reduce(np.bitwise_and, bitmasks)
        tops = [count(each) for each in (*bitmasks, overlap)]
        _combine(self._source.recipe.sets, bitmasks, overlap)
        if self._source.recipe.rank_among == "all":
            for component, each in zip(self._source.components, bitmasks, strict=True):
                retention = component.retention(self._tensor.name)
                keep_retained(each, chunk.count, chunk.first, retention)
        self._counts[chunk.number] = [*tops, *map(count, bitmasks)]
        return base, bitmasks

    def finish(self) -> TensorReport:
        """See :class:`patchc.compiler.steps.TensorChanges`."""
        name, components = self._tensor.name, self._source.components
        names = [one.name for one in components]
        labels = [*names, "overlap", *(f"{one} applied" for one in names)]
        found = dict(zip(labels, self._counts.sum(axis=0).tolist(), strict=True))
        if len(components) == 1:
            del found["overlap"]
        inputs = {}
        each = zip(components, self._selections, self._tuned_digests, strict=True)
        for component, selection, tuned in each:
            scores = [selection.digests[number] for number in range(len(tuned))]
            inputs[f"{component.name} tuned"] = _digest(component.tuned.tensors[name], tuned)
            inputs[f"{component.name} scores"] = _digest(component.scores.tensors[name], scores)
        return {"statistics": found, "inputs": inputs}

    def _result(self, chunk: Chunk, base: Words, bitmasks: list[Bitmask]) -> Words:
        result: Words = self._source.runtime.buffers.result(chunk.count, base.dtype)
        hashers = [one.hasher() for one in self._used]
        for piece in self.tuned.pieces(chunk, bitmasks, hashers):
            if merge_components(
                base[piece.own], self._tensor.dtype.code, piece.words, self.tuned.codes,
                piece.bitmasks, self._scales, result[piece.own], new_tiles(),
            ):  # fmt: skip
                raise self._find_fault(chunk, base, bitmasks)
        for digests, hasher in zip(self._tuned_digests, hashers, strict=True):
            digests[chunk.number] = hasher.digest()
        if self._source.recipe.least_step > 1:
            total_order = self._tensor.dtype.total_order
            undo_small_steps(base, result, total_order, self._source.recipe.least_step)
        return result

    def _find_fault(self, chunk: Chunk, base: Words, bitmasks: list[Bitmask]) -> NumericError:
        """Merge again, component by component, to name the first faulty value."""
        code = self._tensor.dtype.code
        masks = [unpack(each, chunk.count) for each in bitmasks]
        either = reduce(np.logical_or, masks)
        merged = np.zeros(chunk.count, np.float32)
        load_fp32(base, code, either, merged)
        for number, mask in enumerate(masks):
            words = self.tuned.read(number, chunk)
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
        tuned_code = self.tuned.infos[number].dtype.code
        code = self._tensor.dtype.code
        fault = add_scaled_delta(base, code, tuned, tuned_code, mask, scale, merged)
        if fault >= 0:
            raise self._fault(chunk, fault, number)

    def _fault(self, chunk: Chunk, position: int, number: int) -> NumericError:
        """The error for a value of component ``number``; if there is none, of the merged model."""
        where = "the merged model (too large for its dtype)"
        if number < len(self._selections):
            where = f"the base or the {self._source.components[number].name} model"
        return NumericError(
            f"tensor {self._tensor.name!r}, flat index {chunk.first + position}: the value in "
            f"{where} is not finite; exclude the tensor, or lower alpha and beta"
        )


def _combine(operation: SetOperation, bitmasks: Sequence[Bitmask], overlap: Bitmask) -> None:
    """Turn the components' top sets, in place, into the entries that each is applied to."""
    if operation == "difference":
        for own in bitmasks:
            own &= ~overlap
    elif operation == "intersection":
        for own in bitmasks:
            own[:] = overlap


def _digest(info: TensorInfo, chunks: list[bytes]) -> str:
    return tensor_digest(info.dtype.name, info.shape, chunks).hex()
