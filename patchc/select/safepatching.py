"""SafePatching (arXiv 2405.13820) as a stream of changes to a base.

Per tensor: seeded random retention of each component, exact top-k of its scores among the retained
entries, the difference of the two sets both ways, scaled addition of the two deltas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.errors import NumericError
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.kernels.merge import add_scaled_delta, load_fp32, round_masked
from patchc.kernels.philox import retention_stream, retention_threshold
from patchc.kernels.topk import Bits, Retention
from patchc.select.top import TopSet, find_top_set
from patchc.stream import Chunk, Workers, scratch
from patchc.stream.compile import Words


@dataclass(frozen=True)
class Component:
    """One of the two patches: its tuned weights, its scores, and how it enters.

    Attributes:
        name: "se" or "osm"; part of the retention stream.
        tuned: the tuned model's checkpoint.
        scores: fp32 scores under the same tensor names.
        retain: probability p that an entry is retained.
        top: share of a tensor's entries taken among the retained.
        scale: factor of the delta, α or β.
        seed: 64-bit seed of the retention draws.
    """

    name: str
    tuned: Checkpoint
    scores: Checkpoint
    retain: float
    top: float
    scale: float
    seed: int

    def retention(self, tensor: str) -> Retention:
        """The retention of one tensor."""
        return Retention(
            self.seed, retention_stream(self.name, tensor), retention_threshold(self.retain)
        )


class SafePatchingChanges:
    """The changes of a build.

    Implements :class:`patchc.stream.compile.ChangeSource` and, with the deltas before their scales,
    :class:`patchc.stream.additive.DeltaSource`.

    Args:
        base: the aligned model.
        components: the safety-enhancement and the over-safety-mitigation component.
        candidates: names of the tensors that take part; the plan has checked them.
        provenance: metadata to which the inputs' digests and the statistics are added.
        workers: threads for the passes that find the cuts.
    """

    def __init__(
        self,
        base: Checkpoint,
        components: tuple[Component, Component],
        candidates: frozenset[str],
        provenance: Mapping[str, Any],
        workers: Workers,
    ) -> None:
        self._base = base
        self._components = components
        self._candidates = candidates
        self._provenance = provenance
        self._workers = workers
        self.statistics: dict[str, dict[str, int]] = {}
        self.input_digests: dict[str, list[tuple[str, bytes]]] = {}

    def open_tensor(self, tensor: TensorInfo, chunks: list[Chunk]) -> _Untouched | _Merged:
        """See :class:`patchc.stream.compile.ChangeSource`."""
        if tensor.name not in self._candidates:
            return _Untouched(self._base, tensor)
        tops = []
        for component in self._components:
            try:
                tops.append(_find_top_set(component, tensor, chunks, self._workers))
            except NumericError as error:
                raise NumericError(
                    f"{component.scores.path}: tensor {tensor.name!r}: {error}"
                ) from error
        return _Merged(self, tensor, chunks, tuple(tops))

    def metadata(self) -> Mapping[str, Any]:
        """See :class:`patchc.stream.compile.ChangeSource`."""
        for component in self._components:
            # Scores are read several times over: the cut and the marks must have seen the same.
            component.scores.check_unchanged()
        inputs = {name: model_digest(pairs).hex() for name, pairs in self.input_digests.items()}
        return {**self._provenance, "inputs": inputs, "statistics": self.statistics}

    @property
    def base(self) -> Checkpoint:
        """The aligned model."""
        return self._base

    @property
    def components(self) -> tuple[Component, Component]:
        """The safety-enhancement and the over-safety-mitigation component."""
        return self._components


class _Untouched:
    """A tensor that is only identified; implements :class:`TensorChanges` and `TensorDeltas`."""

    def __init__(self, base: Checkpoint, tensor: TensorInfo) -> None:
        self._base = base
        self._tensor = tensor

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        words = scratch("base", chunk.count, self._tensor.dtype.word)
        self._base.read_words(self._tensor, chunk.first, words)
        return words, words

    def read_deltas(self, chunk: Chunk) -> tuple[Words, tuple[()]]:
        return self.read(chunk)[0], ()

    def finish(self) -> None:
        """Nothing to record."""


class _Merged:
    """A candidate tensor; implements :class:`TensorChanges` and `TensorDeltas`."""

    def __init__(
        self,
        source: SafePatchingChanges,
        tensor: TensorInfo,
        chunks: list[Chunk],
        tops: tuple[TopSet, ...],
    ) -> None:
        self._source = source
        self._tensor = tensor
        self._tops = tops
        names = [f"{c.name} {kind}" for c in source.components for kind in ("tuned", "scores")]
        self._digests = {name: [b""] * len(chunks) for name in names}
        self._counts = np.zeros((len(chunks), 3), np.int64)

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
            self._mark(component, top, chunk)
            for component, top in zip(self._source.components, self._tops, strict=True)
        ]
        overlap = masks[0] & masks[1]
        self._counts[chunk.number] = [np.count_nonzero(m) for m in (*masks, overlap)]
        for mask in masks:
            mask &= ~overlap
        return base, masks

    def finish(self) -> None:
        se, osm, overlap = (int(n) for n in self._counts.sum(axis=0))
        name = self._tensor.name
        self._source.statistics[name] = {"se": se, "osm": osm, "overlap": overlap}
        for component in self._source.components:
            for kind, checkpoint in (("tuned", component.tuned), ("scores", component.scores)):
                label = f"{component.name} {kind}"
                info = checkpoint.tensors[name]
                digest = tensor_digest(info.dtype.name, info.shape, self._digests[label])
                self._source.input_digests.setdefault(label, []).append((name, digest))

    def _mark(self, component: Component, top: TopSet, chunk: Chunk) -> NDArray[np.bool_]:
        bits = _read_scores(component, self._tensor, chunk)
        self._digests[f"{component.name} scores"][chunk.number] = chunk_digest(bits)
        mask: NDArray[np.bool_] = scratch(f"{component.name} mask", chunk.count, np.bool_)
        top.mark(bits, chunk, mask)
        return mask

    def _merge(self, chunk: Chunk, base: Words, masks: list[NDArray[np.bool_]]) -> Words:
        code = self._tensor.dtype.code
        either = masks[0] | masks[1]
        merged: NDArray[np.float32] = scratch("merged", chunk.count, np.float32)
        load_fp32(base, code, either, merged)
        for component, mask in zip(self._source.components, masks, strict=True):
            self._add(component, chunk, base, mask, np.float32(component.scale), merged)
        result: Words = scratch("result", chunk.count, base.dtype)
        fault = round_masked(base, code, either, merged, result)
        if fault >= 0:
            raise self._fault(chunk, fault, "the merged model (too large for its dtype)")
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


def _find_top_set(
    component: Component, tensor: TensorInfo, chunks: list[Chunk], workers: Workers
) -> TopSet:
    return find_top_set(
        lambda chunk: _read_scores(component, tensor, chunk),
        chunks,
        component.top,
        component.retention(tensor.name),
        workers,
    )


def _read_scores(component: Component, tensor: TensorInfo, chunk: Chunk) -> Bits:
    bits: Bits = scratch("scores", chunk.count, np.uint32)
    component.scores.read_words(component.scores.tensors[tensor.name], chunk.first, bits)
    return bits
