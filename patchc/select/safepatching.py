"""SafePatching (arXiv 2405.13820) as a stream of changes to a base.

Seeded random retention of each component, exact top-k of its scores, a set operation on the two top
sets, scaled addition of the two deltas where they are retained.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.errors import NumericError
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.kernels.merge import add_scaled_delta, load_fp32, round_masked
from patchc.kernels.ulp import undo_small_steps
from patchc.recipe import Recipe
from patchc.select.component import Component
from patchc.select.selection import Selection, select_globally, select_in_tensor
from patchc.select.sets import combine
from patchc.select.untouched import UntouchedTensor
from patchc.stream import Chunk, Workers, scratch
from patchc.stream.compile import Words


class SafePatchingChanges:
    """The changes of a build.

    Implements :class:`patchc.stream.compile.ChangeSource` and, with the deltas before their scales,
    :class:`patchc.stream.additive.DeltaSource`.

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
        self._global: list[dict[str, Selection]] = []
        self.statistics: dict[str, dict[str, int]] = {}
        self.input_digests: dict[str, list[tuple[str, bytes]]] = {}

    def open_tensor(self, tensor: TensorInfo, chunks: list[Chunk]) -> UntouchedTensor | _Merged:
        """See :class:`patchc.stream.compile.ChangeSource`."""
        if tensor.name not in self._candidates:
            return UntouchedTensor(self._base, tensor)
        return _Merged(self, tensor, chunks, self._select(tensor, chunks))

    def metadata(self) -> Mapping[str, Any]:
        """See :class:`patchc.stream.compile.ChangeSource`."""
        for component in self._components:
            # Scores are read several times over: the cut and the marks must have seen the same.
            component.scores.check_unchanged()
        inputs = {name: model_digest(pairs).hex() for name, pairs in self.input_digests.items()}
        return {**self._provenance, "inputs": inputs, "statistics": self.statistics}

    def _select(self, tensor: TensorInfo, chunks: list[Chunk]) -> tuple[Selection, ...]:
        if self._recipe.scope == "global":
            return tuple(found[tensor.name] for found in self._select_globally())
        return tuple(
            select_in_tensor(component, tensor, chunks, self._workers)
            for component in self._components
        )

    def _select_globally(self) -> list[dict[str, Selection]]:
        if not self._global:
            tensors = [self._base.tensors[name] for name in self._candidates]
            self._global = [
                select_globally(component, tensors, self._chunk_words, self._workers)
                for component in self._components
            ]
        return self._global

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


class _Merged:
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
        self._scales = [component.scale(tensor.name) for component in source.components]
        names = [f"{c.name} {kind}" for c in source.components for kind in ("tuned", "scores")]
        self._digests = {name: [b""] * len(chunks) for name in names}
        self._counts = np.zeros((len(chunks), 2 * len(selections) + 1), np.int64)

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        base, masks = self._select(chunk)
        return base, self._merge(chunk, base, masks)

    def read_deltas(self, chunk: Chunk) -> tuple[Words, list[NDArray[np.float32]]]:
        base, masks = self._select(chunk)
        deltas = []
        for component, mask in zip(self._source.components, masks, strict=True):
            delta = scratch(f"{component.name} delta", chunk.count, np.float32)
            delta[:] = 0
            self._add(component, chunk, base, mask, np.float32(1), delta)
            deltas.append(delta)
        return base, deltas

    def _select(self, chunk: Chunk) -> tuple[Words, list[NDArray[np.bool_]]]:
        base = scratch("base", chunk.count, self._tensor.dtype.word)
        self._source.base.read_words(self._tensor, chunk.first, base)
        masks = [
            self._mark(component, selection, chunk)
            for component, selection in zip(self._source.components, self._selections, strict=True)
        ]
        overlap = reduce(np.logical_and, masks)
        tops = [np.count_nonzero(mask) for mask in (*masks, overlap)]
        combine(self._source.recipe.sets, masks, overlap)
        if self._source.recipe.rank_among == "all":
            for component, mask in zip(self._source.components, masks, strict=True):
                component.keep_retained(self._tensor.name, chunk, mask)
        self._counts[chunk.number] = [*tops, *map(np.count_nonzero, masks)]
        return base, masks

    def finish(self) -> None:
        name = self._tensor.name
        counts = [int(n) for n in self._counts.sum(axis=0)]
        parts = self._source.components
        labels = [*(p.name for p in parts), "overlap", *(f"{p.name} applied" for p in parts)]
        found = dict(zip(labels, counts, strict=True))
        if len(parts) == 1:
            del found["overlap"]
        self._source.statistics[name] = found
        for component in parts:
            for kind, checkpoint in (("tuned", component.tuned), ("scores", component.scores)):
                label = f"{component.name} {kind}"
                info = checkpoint.tensors[name]
                digest = tensor_digest(info.dtype.name, info.shape, self._digests[label])
                self._source.input_digests.setdefault(label, []).append((name, digest))

    def _mark(self, component: Component, selection: Selection, chunk: Chunk) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = scratch(f"{component.name} mask", chunk.count, np.bool_)
        bits = selection.mark(chunk, mask)
        self._digests[f"{component.name} scores"][chunk.number] = chunk_digest(bits)
        return mask

    def _merge(self, chunk: Chunk, base: Words, masks: list[NDArray[np.bool_]]) -> Words:
        code = self._tensor.dtype.code
        either = reduce(np.logical_or, masks)
        merged: NDArray[np.float32] = scratch("merged", chunk.count, np.float32)
        load_fp32(base, code, either, merged)
        for component, mask, scale in zip(
            self._source.components, masks, self._scales, strict=True
        ):
            self._add(component, chunk, base, mask, scale, merged)
        result: Words = scratch("result", chunk.count, base.dtype)
        fault = round_masked(base, code, either, merged, result)
        if fault >= 0:
            raise self._fault(chunk, fault, "the merged model (too large for its dtype)")
        if self._source.recipe.least_step > 1:
            total_order = self._tensor.dtype.total_order
            undo_small_steps(base, result, total_order, self._source.recipe.least_step)
        return result

    def _add(
        self,
        component: Component,
        chunk: Chunk,
        base: Words,
        mask: NDArray[np.bool_],
        scale: np.float32,
        merged: NDArray[np.float32],
    ) -> None:
        code = self._tensor.dtype.code
        info = component.tuned.tensors[self._tensor.name]
        tuned = scratch("tuned", chunk.count, info.dtype.word)
        component.tuned.read_words(info, chunk.first, tuned)
        self._digests[f"{component.name} tuned"][chunk.number] = chunk_digest(tuned)
        fault = add_scaled_delta(base, code, tuned, info.dtype.code, mask, scale, merged)
        if fault >= 0:
            raise self._fault(chunk, fault, f"the base or the {component.name} model")

    def _fault(self, chunk: Chunk, position: int, where: str) -> NumericError:
        return NumericError(
            f"tensor {self._tensor.name!r}, flat index {chunk.first + position}: the value in "
            f"{where} is not finite; exclude the tensor, or lower alpha and beta"
        )
