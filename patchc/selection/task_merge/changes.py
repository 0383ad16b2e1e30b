"""Task arithmetic, DARE, magnitude pruning and TIES as a stream of changes to a base.

The result is θ + λ · Σ wᵢ τᵢ over the retained entries. TIES takes the mean of the entries that
agree in sign instead of the sum. :mod:`patchc.kernels.task_merge.reference` has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk, grid
from patchc.compiler.rank_messages import TensorReport
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.hashing import tensor_digest
from patchc.kernels.bitmask import Bitmask, unpack
from patchc.kernels.task_merge.cpu import count_signs, merge_task_vectors
from patchc.kernels.task_merge.reference import add_scaled, add_total, add_votes, average_elected
from patchc.kernels.tiles import new_tiles
from patchc.recipe import MergeRecipe
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.runtime import Buffers, Runtime
from patchc.selection.build_source import BuildSource
from patchc.selection.task_merge.retained_entries import (
    ChunkBitmask,
    PendingBitmasks,
    retain_entries,
)
from patchc.selection.task_merge.task_vectors import TaskVector, task_scales
from patchc.selection.tuned_words import TunedTensor

_MOST_AHEAD = 1 << 26
"""The most entries of a tensor, over all models, that are searched ahead."""


class MergeChanges(BuildSource["_Merged"]):
    """The changes of a merge; implements :class:`patchc.compiler.steps.ChangeSource`.

    There is one task vector per tuned model. Other arguments are those of :class:`BuildSource`.
    """

    def __init__(
        self,
        vectors: tuple[TaskVector, ...],
        recipe: MergeRecipe,
        candidates: Sequence[TensorInfo],
        provenance: Mapping[str, Any],
        runtime: Runtime,
        chunk_words: int,
    ) -> None:
        super().__init__(vectors[0].base, candidates, provenance, runtime, chunk_words)
        self.vectors = vectors
        self.recipe = recipe
        if recipe.scope == "global":
            words = sum(tensor.words for tensor in candidates)
            self._mergers = self._prepare_everywhere(words)
        else:
            self._mergers = self._prepare_each()

    def open_candidate(self, _tensor: TensorInfo, chunks: list[Chunk]) -> _Merged:
        """See :class:`BuildSource`."""
        return _Merged(self, self.next_merger(), chunks)

    def next_merger(self) -> Merger:
        """The arithmetic of the next candidate, in the order of the names' bytes."""
        return next(self._mergers)

    def read_from(self) -> Iterable[Checkpoint]:
        """See :class:`BuildSource`."""
        return [self.base, *(vector.tuned for vector in self.vectors)]

    def _prepare_everywhere(self, words: int) -> Iterator[Merger]:
        """The mergers of the own candidates; those of all ranks are cut together."""
        ranks = self.runtime.ranks
        return iter(self._prepare(self.own, self._search(self.own, words, ranks), ranks))

    def _prepare_each(self) -> Iterator[Merger]:
        """The mergers of the own candidates, in the order of the bytes of their names.

        A tensor is searched while the one before it is merged and coded, unless it is so large
        that the bitmasks and lists of all models would take too much memory.
        """
        ahead: list[PendingBitmasks] = []
        for tensor, following in zip_longest(self.own, self.own[1:]):
            mergers = self._prepare([tensor], ahead or self._search([tensor], tensor.words))
            ahead = self._search_ahead(following) if following else []
            yield from mergers

    def _search_ahead(self, tensor: TensorInfo) -> list[PendingBitmasks]:
        """Begin all searches of a tensor; none if they have to wait for their turn."""
        if len(self.vectors) * tensor.words > _MOST_AHEAD:
            return []
        try:
            return list(self._search([tensor], tensor.words))
        except NumericError:
            # The search in its turn names the first of several faults.
            return []

    def _search(
        self, tensors: Sequence[TensorInfo], words: int, ranks: Ranks = ALONE
    ) -> Iterator[PendingBitmasks]:
        """Begin the search of each model when it is asked for."""
        for vector in self.vectors:
            yield retain_entries(
                vector, self.recipe, tensors, self.chunk_words, self.runtime, words, ranks
            )

    def _prepare(
        self,
        tensors: Sequence[TensorInfo],
        pending: Iterable[PendingBitmasks],
        ranks: Ranks = ALONE,
    ) -> list[Merger]:
        """Find the retained entries, and for TIES the majority sign over all tensors."""
        bitmasks = zip(*(found() for found in pending), strict=True)
        mergers = [
            Merger(self.vectors, tensor, each, self.recipe, self.runtime.buffers)
            for tensor, each in zip(tensors, bitmasks, strict=True)
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
            for chunk in grid(merger.tensor.words, self.chunk_words)
        )
        return sum(self.runtime.map(lambda job: job[0].count_signs(job[1]), jobs))


class Merger:
    """The arithmetic of one candidate tensor, chunk by chunk, from any thread."""

    def __init__(
        self,
        vectors: tuple[TaskVector, ...],
        tensor: TensorInfo,
        bitmasks: tuple[ChunkBitmask, ...],
        recipe: MergeRecipe,
        buffers: Buffers,
    ) -> None:
        self.tensor = tensor
        self._buffers = buffers
        self.majority = 0
        own = recipe.for_tensor(tensor.name)
        self._vectors = vectors
        self._used = [vector.used(own, tensor.name) for vector in vectors]
        self._bitmasks = bitmasks
        self._elects = own.method == "ties"
        self._lambda = np.float32(own.lambda_)
        self._scales = task_scales(own, len(vectors))
        self.tuned = TunedTensor([vector.tuned for vector in vectors], tensor.name, buffers)

    def merge(self, chunk: Chunk, retained: NDArray[np.int64]) -> tuple[Words, Words, list[bytes]]:
        """The chunk's words before and after, and a digest of the tuned words of each model.

        ``retained``, int64 [models], gets the numbers of retained entries that are not zero.

        Raises:
            NumericError: an input or the outcome is not finite, or overflows the base's dtype.
        """
        base = self._read_base(chunk)
        result: Words = self._buffers.result(chunk.count, base.dtype)
        hashers = [one.hasher() for one in self._used]
        for piece in self.tuned.pieces(chunk, self._retained(chunk), hashers):
            if merge_task_vectors(
                base[piece.own], self.tensor.dtype.code, piece.words, self.tuned.codes,
                piece.bitmasks, self._scales, self._elects, self.majority, self._lambda,
                result[piece.own], retained, new_tiles(),
            ):  # fmt: skip
                raise self._find_fault(chunk, base)
        return base, result, [hasher.digest() for hasher in hashers]

    def select(self, chunk: Chunk) -> tuple[Words, list[Bitmask]]:
        """See :class:`patchc.selection.selected_entries.Selected`."""
        return self._read_base(chunk), self._retained(chunk)

    def count_signs(self, chunk: Chunk) -> int:
        """How many more sums of retained entries are positive than negative."""
        base, code, codes = self._read_base(chunk), self.tensor.dtype.code, self.tuned.codes
        return sum(
            count_signs(base[p.own], code, p.words, codes, p.bitmasks, self._scales, new_tiles())
            for p in self.tuned.pieces(chunk, self._retained(chunk))
        )

    def _retained(self, chunk: Chunk) -> list[Bitmask]:
        return [bitmask(chunk) for bitmask in self._bitmasks]

    def _read_base(self, chunk: Chunk) -> Words:
        base: Words = self._buffers.base(chunk.count, self.tensor.dtype.word)
        self._vectors[0].base.read_words(self.tensor, chunk.first, base)
        return base

    def _find_fault(self, chunk: Chunk, base: Words) -> NumericError:
        """Merge again, model by model, to name the first faulty value."""
        total = np.zeros(chunk.count, np.float32)
        sums, weights = np.zeros((2, 2, chunk.count), np.float32)
        for number, (vector, scale, bitmask) in enumerate(
            zip(self._vectors, self._scales, self._retained(chunk), strict=True)
        ):
            delta = vector.subtract(self.tensor, chunk, base, self.tuned.read(number, chunk))
            mask = unpack(bitmask, chunk.count) & (delta != 0)
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
        self._retained = np.zeros((len(chunks), len(source.vectors)), np.int64)

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        base, result, digests = self._merger.merge(chunk, self._retained[chunk.number])
        self._digests[chunk.number] = digests
        return base, result

    def finish(self) -> TensorReport:
        name, vectors = self._merger.tensor.name, self._source.vectors
        inputs = {}
        for number, vector in enumerate(vectors):
            info = vector.tuned.tensors[name]
            digests = (chunk[number] for chunk in self._digests)
            inputs[vector.name] = tensor_digest(info.dtype.name, info.shape, digests).hex()
        retained = self._retained.sum(axis=0).tolist()
        counts = {vector.name: n for vector, n in zip(vectors, retained, strict=True)}
        return {"statistics": counts, "inputs": inputs}
