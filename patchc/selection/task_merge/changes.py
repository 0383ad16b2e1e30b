"""Task arithmetic, DARE, magnitude pruning and TIES as a stream of changes to a base.

θ + λ · Σ wᵢ τᵢ over the kept entries; TIES puts the mean of the agreeing entries in place of the
sum. The arithmetic is that of :mod:`patchc.kernels.task_merge.reference`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import scratch
from patchc.checkpoint import TensorInfo
from patchc.chunks import Chunk, grid
from patchc.compiler.rank_messages import TensorReport
from patchc.compiler.steps import TensorChanges
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.hashing import ChunkHasher, tensor_digest
from patchc.kernels.bitmask import Bitmask, unpack
from patchc.kernels.task_merge.cpu import count_signs, merge_task_vectors
from patchc.kernels.task_merge.reference import add_scaled, add_total, add_votes, average_elected
from patchc.patching.tensor_sides import deal_pairs, unchanged_pairs
from patchc.recipe import MergeRecipe
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.selection.build_statistics import BuildStatistics
from patchc.selection.identity_tensor import IdentityTensor
from patchc.selection.task_merge.kept_entries import Kept, Marker, keep_entries
from patchc.selection.task_merge.task_vectors import TaskVector, task_scales
from patchc.selection.tuned_words import TunedTensor

_MOST_AHEAD = 1 << 26
"""Entries, those of all models counted, that are searched ahead."""


class MergeChanges:
    """The changes of a merge; implements :class:`patchc.compiler.steps.ChangeSource`.

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
        self._findings = BuildStatistics()
        self._names = frozenset(tensor.name for tensor in candidates)
        self._provenance = provenance
        self._workers = workers
        self._chunk_words = chunk_words
        part = deal_pairs(unchanged_pairs(self.base), workers.ranks.size)[workers.ranks.rank]
        mine = {row.name for row in part}
        own = [tensor for tensor in candidates if tensor.name in mine]
        if recipe.scope == "global":
            words = sum(tensor.words for tensor in candidates)
            self._mergers = self._prepare_everywhere(own, words)
        else:
            self._mergers = self._prepare_each(own)

    def open_tensor(self, tensor: TensorInfo, chunks: list[Chunk]) -> TensorChanges:
        """See :class:`patchc.compiler.steps.ChangeSource`."""
        if tensor.name not in self._names:
            return IdentityTensor(self.base, tensor)
        return _Merged(self, self.open_candidate(), chunks)

    def open_candidate(self) -> Merger:
        """Prepare the next tensor that takes part, in the order of the names' bytes."""
        return next(self._mergers)

    def note(self, tensor: str, finding: TensorReport) -> None:
        """See :class:`patchc.compiler.steps.ChangeSource`."""
        self._findings.note(tensor, finding)

    def metadata(self) -> Mapping[str, Any]:
        """See :class:`patchc.compiler.steps.ChangeSource`."""
        for checkpoint in (self.base, *(vector.tuned for vector in self.vectors)):
            # Read several times over: the cut and the sums must have seen the same values.
            checkpoint.check_unchanged()
        return {**self._provenance, **self._findings.metadata()}

    def _prepare_everywhere(self, own: Sequence[TensorInfo], words: int) -> Iterator[Merger]:
        """The mergers of the own candidates where all are cut together, over all ranks."""
        ranks = self._workers.ranks
        return iter(self._prepare(own, self._search(own, words, ranks), ranks))

    def _prepare_each(self, own: Sequence[TensorInfo]) -> Iterator[Merger]:
        """The mergers of the own candidates, in the order of the bytes of their names.

        A tensor is searched while the one before it is merged and coded, unless it is so large
        that the marks and lists of all models at once would weigh.
        """
        ahead: list[Kept] = []
        for tensor, following in zip_longest(own, own[1:]):
            mergers = self._prepare([tensor], ahead or self._search([tensor], tensor.words))
            ahead = self._search_ahead(following) if following else []
            yield from mergers

    def _search_ahead(self, tensor: TensorInfo) -> list[Kept]:
        """The searches of a tensor, all begun; none where they are to wait for their turn."""
        if len(self.vectors) * tensor.words > _MOST_AHEAD:
            return []
        try:
            return list(self._search([tensor], tensor.words))
        except NumericError:
            # Of several faults, the first one in order is named: by the search in its turn.
            return []

    def _search(
        self, tensors: Sequence[TensorInfo], words: int, ranks: Ranks = ALONE
    ) -> Iterator[Kept]:
        """Begin the search of each model when it is asked for."""
        for vector in self.vectors:
            yield keep_entries(
                vector, self.recipe, tensors, self._chunk_words, self._workers, words, ranks
            )

    def _prepare(
        self, tensors: Sequence[TensorInfo], kept: Iterable[Kept], ranks: Ranks = ALONE
    ) -> list[Merger]:
        """Cut, and for ties count the majority, over several tensors together."""
        markers = zip(*(found() for found in kept), strict=True)
        mergers = [
            Merger(self.vectors, tensor, each, self.recipe)
            for tensor, each in zip(tensors, markers, strict=True)
        ]
        if self.recipe.method == "ties" and len(self.vectors) > 1:
            votes = ranks.sum("majority", lambda: np.array([self._count_majority(mergers)]))
            for merger in mergers:
                merger.majority = int(votes[0])
        return mergers

    def _count_majority(self, mergers: Sequence[Merger]) -> int:
        jobs = (
            (merger, chunk)
            for merger in mergers
            for chunk in grid(merger.tensor.words, self._chunk_words)
        )
        return sum(self._workers.map(lambda job: job[0].count_signs(job[1]), jobs))


class Merger:
    """The arithmetic of one candidate tensor, chunk by chunk, from any thread."""

    def __init__(
        self,
        vectors: tuple[TaskVector, ...],
        tensor: TensorInfo,
        markers: tuple[Marker, ...],
        recipe: MergeRecipe,
    ) -> None:
        self.tensor = tensor
        self.majority = 0
        self._vectors = vectors
        self._markers = markers
        own = recipe.for_tensor(tensor.name)
        self._elects = own.method == "ties"
        self._lambda = np.float32(own.lambda_)
        self._scales = task_scales(own, len(vectors))
        self._tuned = TunedTensor([vector.tuned for vector in vectors], tensor.name)

    def merge(self, chunk: Chunk, kept: NDArray[np.int64]) -> tuple[Words, Words, list[bytes]]:
        """The chunk's words before and after, and a digest of the tuned words of each model.

        Args:
            chunk: which words.
            kept: gets the number of kept entries that are not zero, one a model.

        Raises:
            NumericError: an input or the outcome is not finite, or overflows the base's dtype.
        """
        base = self._read_base(chunk)
        result: Words = scratch("result", chunk.count, base.dtype)
        hashers = [ChunkHasher() for _ in self._vectors]
        for piece in self._tuned.pieces(chunk, self._mark(chunk), hashers):
            if merge_task_vectors(
                base[piece.own], self.tensor.dtype.code, piece.words, self._tuned.codes,
                piece.marks, self._scales, self._elects, self.majority, self._lambda,
                result[piece.own], kept,
            ):  # fmt: skip
                raise self._find_fault(chunk, base)
        return base, result, [hasher.digest() for hasher in hashers]

    def select(self, chunk: Chunk) -> tuple[Words, list[Bitmask]]:
        """See :class:`patchc.selection.selected_entries.Selected`."""
        return self._read_base(chunk), self._mark(chunk)

    def read_tuned(self, number: int, chunk: Chunk) -> Words:
        """See :class:`patchc.selection.selected_entries.Selected`."""
        return self._tuned.read(number, chunk)

    def count_signs(self, chunk: Chunk) -> int:
        """How many more sums of kept entries are positive than negative."""
        base, code, codes = self._read_base(chunk), self.tensor.dtype.code, self._tuned.codes
        return sum(
            count_signs(base[p.own], code, p.words, codes, p.marks, self._scales)
            for p in self._tuned.pieces(chunk, self._mark(chunk))
        )

    def _mark(self, chunk: Chunk) -> list[Bitmask]:
        return [marker(chunk) for marker in self._markers]

    def _read_base(self, chunk: Chunk) -> Words:
        base: Words = scratch("base", chunk.count, self.tensor.dtype.word)
        self._vectors[0].base.read_words(self.tensor, chunk.first, base)
        return base

    def _find_fault(self, chunk: Chunk, base: Words) -> NumericError:
        """Merge again, one model after the other, to name the first value at fault."""
        total = np.zeros(chunk.count, np.float32)
        sums, weights = np.zeros((2, 2, chunk.count), np.float32)
        for number, (vector, scale, marks) in enumerate(
            zip(self._vectors, self._scales, self._mark(chunk), strict=True)
        ):
            delta = vector.subtract(self.tensor, chunk, base, self._tuned.read(number, chunk))
            mask = unpack(marks, chunk.count) & (delta != 0)
            if self._elects:
                add_votes(delta, mask, scale, total, sums, weights)
            else:
                add_scaled(delta, mask, scale, total)
        fault = average_elected(total, sums, weights, self.majority) if self._elects else -1
        if fault < 0:
            code = self.tensor.dtype.code
            fault = add_total(base, code, total, self._lambda, np.empty_like(base))
        return NumericError(
            f"tensor {self.tensor.name!r}, flat index {chunk.first + fault}: the merged value "
            "is too large for its dtype; exclude the tensor, or lower weight and lambda"
        )


class _Merged:
    """A candidate tensor; implements :class:`patchc.compiler.steps.TensorChanges`."""

    def __init__(self, source: MergeChanges, merger: Merger, chunks: list[Chunk]) -> None:
        self._source = source
        self._merger = merger
        self._digests: list[list[bytes]] = [[] for _ in chunks]
        self._kept = np.zeros((len(chunks), len(source.vectors)), np.int64)

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        base, result, digests = self._merger.merge(chunk, self._kept[chunk.number])
        self._digests[chunk.number] = digests
        return base, result

    def finish(self) -> TensorReport:
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
