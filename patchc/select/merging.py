"""Task arithmetic, DARE, magnitude pruning and TIES as a stream of changes to a base.

θ + λ · Σ wᵢ τᵢ over the kept entries; TIES puts the mean of the agreeing entries in place of the
sum. The arithmetic is that of :mod:`patchc.kernels.task_vectors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import TensorInfo
from patchc.errors import NumericError
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.kernels.task_vectors import (
    add_scaled,
    add_total,
    add_votes,
    average_elected,
    count_signs,
)
from patchc.recipe import MergeRecipe
from patchc.select.task_vectors import TaskVector, keep_entries
from patchc.select.top import TopSet
from patchc.select.untouched import UntouchedTensor
from patchc.stream import Chunk, Workers, grid, scratch
from patchc.stream.compile import TensorChanges, Words
from patchc.stream.parts import Finding
from patchc.stream.rows import deal_rows, plain_rows
from patchc.stream.team import ALONE, Team

Floats = NDArray[np.float32]


class MergeChanges:
    """The changes of a merge; implements :class:`patchc.stream.compile.ChangeSource`.

    Args:
        vectors: one task vector a tuned model.
        recipe: the method and its parameters.
        candidates: tensors that take part, sorted by the bytes of their names; the plan has
            checked them.
        provenance: metadata to which the inputs' digests and the statistics are added.
        workers: threads for the passes before the merge.
        chunk_words: words in a chunk of the grid.
    """

    def __init__(
        self,
        vectors: tuple[TaskVector, ...],
        recipe: MergeRecipe,
        candidates: Sequence[TensorInfo],
        provenance: Mapping[str, Any],
        workers: Workers,
        chunk_words: int,
    ) -> None:
        self.vectors = vectors
        self.recipe = recipe
        self.base = vectors[0].base
        self._statistics: dict[str, dict[str, int]] = {}
        self._inputs: dict[str, list[tuple[str, bytes]]] = {}
        self._names = frozenset(tensor.name for tensor in candidates)
        self._provenance = provenance
        self._workers = workers
        self._chunk_words = chunk_words
        self._global: dict[str, _Merger] = {}
        if recipe.scope == "global":
            rows = deal_rows(plain_rows(self.base), workers.team.size)[workers.team.rank]
            mine = {row.name for row in rows}
            own = [tensor for tensor in candidates if tensor.name in mine]
            words = sum(tensor.words for tensor in candidates)
            self._global = self._prepare(own, words, workers.team)

    def open_tensor(self, tensor: TensorInfo, chunks: list[Chunk]) -> TensorChanges:
        """See :class:`patchc.stream.compile.ChangeSource`."""
        if tensor.name not in self._names:
            return UntouchedTensor(self.base, tensor)
        if self.recipe.scope == "tensor":
            return _Merged(self, self._prepare([tensor], tensor.words)[tensor.name], chunks)
        return _Merged(self, self._global[tensor.name], chunks)

    def note(self, tensor: str, finding: Finding) -> None:
        """See :class:`patchc.stream.compile.ChangeSource`."""
        if finding:
            self._statistics[tensor] = finding["statistics"]
            for name, digest in finding["inputs"].items():
                self._inputs.setdefault(name, []).append((tensor, bytes.fromhex(digest)))

    def metadata(self) -> Mapping[str, Any]:
        """See :class:`patchc.stream.compile.ChangeSource`."""
        for checkpoint in (self.base, *(vector.tuned for vector in self.vectors)):
            # Read several times over: the cut and the sums must have seen the same values.
            checkpoint.check_unchanged()
        inputs = {name: model_digest(pairs).hex() for name, pairs in self._inputs.items()}
        return {**self._provenance, "inputs": inputs, "statistics": self._statistics}

    def _prepare(
        self, tensors: Sequence[TensorInfo], words: int, team: Team = ALONE
    ) -> dict[str, _Merger]:
        """Cut, and for ties count the majority, over several tensors together."""
        kept = [
            keep_entries(
                vector, self.recipe, tensors, self._chunk_words, self._workers, words, team
            )
            for vector in self.vectors
        ]
        mergers = [
            _Merger(self.vectors, tensor, tops, self.recipe)
            for tensor, tops in zip(tensors, zip(*kept, strict=True), strict=True)
        ]
        if self.recipe.method == "ties" and len(self.vectors) > 1:
            votes = team.sum("majority", lambda: np.array([self._count_majority(mergers)]))
            majority = int(votes[0])
            for merger in mergers:
                merger.majority = majority
        return {merger.tensor.name: merger for merger in mergers}

    def _count_majority(self, mergers: Iterable[_Merger]) -> int:
        jobs = (
            (merger, chunk)
            for merger in mergers
            for chunk in grid(merger.tensor.words, self._chunk_words)
        )
        return sum(self._workers.map(lambda job: job[0].count_signs(job[1]), jobs))


class _Merger:
    """The arithmetic of one candidate tensor, chunk by chunk, from any thread."""

    def __init__(
        self,
        vectors: tuple[TaskVector, ...],
        tensor: TensorInfo,
        tops: tuple[TopSet, ...],
        recipe: MergeRecipe,
    ) -> None:
        self.tensor = tensor
        self.majority = 0
        self._vectors = vectors
        self._tops = tops
        self._elects = recipe.method == "ties"
        self._lambda = np.float32(recipe.lambda_)

    def merge(
        self, chunk: Chunk, digests: list[bytes], kept: NDArray[np.int64]
    ) -> tuple[Words, Words]:
        """The chunk's words before and after.

        Args:
            chunk: which words.
            digests: gets one digest of the tuned words a model.
            kept: gets the number of kept entries that are not zero, one a model.

        Raises:
            NumericError: an input or the outcome is not finite, or overflows the base's dtype.
        """
        base = self._read_base(chunk)
        total = _zeros("total", (chunk.count,))
        if self._elects:
            sums, weights = (_zeros(slot, (2, chunk.count)) for slot in ("sums", "weights"))
        for number, vector in enumerate(self._vectors):
            tuned = vector.read_tuned(self.tensor, chunk)
            digests.append(chunk_digest(tuned))
            delta, mask = self._trim(number, chunk, base, tuned)
            if self._elects:
                kept[number] = add_votes(delta, mask, vector.scale, total, sums, weights)
            else:
                kept[number] = add_scaled(delta, mask, vector.scale, total)
        fault = average_elected(total, sums, weights, self.majority) if self._elects else -1
        result: Words = scratch("result", chunk.count, base.dtype)
        if fault < 0:
            fault = add_total(base, self.tensor.dtype.code, total, self._lambda, result)
        if fault >= 0:
            raise NumericError(
                f"tensor {self.tensor.name!r}, flat index {chunk.first + fault}: the merged value "
                "is too large for its dtype; exclude the tensor, or lower weight and lambda"
            )
        return base, result

    def count_signs(self, chunk: Chunk) -> int:
        """How many more sums of kept entries are positive than negative."""
        base = self._read_base(chunk)
        total = _zeros("total", (chunk.count,))
        for number, vector in enumerate(self._vectors):
            tuned = vector.read_tuned(self.tensor, chunk)
            delta, mask = self._trim(number, chunk, base, tuned)
            add_scaled(delta, mask, vector.scale, total)
        return count_signs(total)

    def _read_base(self, chunk: Chunk) -> Words:
        base: Words = scratch("base", chunk.count, self.tensor.dtype.word)
        self._vectors[0].base.read_words(self.tensor, chunk.first, base)
        return base

    def _trim(
        self, number: int, chunk: Chunk, base: Words, tuned: Words
    ) -> tuple[Floats, NDArray[np.bool_]]:
        delta = self._vectors[number].subtract(self.tensor, chunk, base, tuned)
        mask: NDArray[np.bool_] = scratch("mask", chunk.count, np.bool_)
        self._tops[number].mark(delta.view(np.uint32), chunk, mask)
        return delta, mask


class _Merged:
    """A candidate tensor; implements :class:`patchc.stream.compile.TensorChanges`."""

    def __init__(self, source: MergeChanges, merger: _Merger, chunks: list[Chunk]) -> None:
        self._source = source
        self._merger = merger
        self._digests: list[list[bytes]] = [[] for _ in chunks]
        self._kept = np.zeros((len(chunks), len(source.vectors)), np.int64)

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        digests, kept = self._digests[chunk.number], self._kept[chunk.number]
        return self._merger.merge(chunk, digests, kept)

    def finish(self) -> Finding:
        name = self._merger.tensor.name
        kept = self._kept.sum(axis=0)
        vectors = self._source.vectors
        inputs = {}
        for number, vector in enumerate(vectors):
            info = vector.tuned.tensors[name]
            digests = (chunk[number] for chunk in self._digests)
            inputs[vector.name] = tensor_digest(info.dtype.name, info.shape, digests).hex()
        counts = {v.name: int(n) for v, n in zip(vectors, kept, strict=True)}
        return {"statistics": counts, "inputs": inputs}


def _zeros(slot: str, shape: tuple[int, ...]) -> Floats:
    values: Floats = scratch(slot, int(np.prod(shape)), np.float32).reshape(shape)
    values.fill(0)
    return values
