"""The top set of one component in one tensor, in any scope, marked chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from patchc.buffers import scratch
from patchc.checkpoint import TensorInfo
from patchc.chunks import Chunk, grid, pieces
from patchc.hashing import ChunkHasher, chunk_digest
from patchc.kernels.bitmask import Bitmask, pack
from patchc.kernels.topk import cpu as topk
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.selection.candidates import row_length
from patchc.selection.safepatching.component import Component
from patchc.selection.topk.histogram_search import Piece, ScoredTensor, TopSet, check_scores
from patchc.selection.topk.search import TopSearch


class Selection(Protocol):
    """A top set; chunks can be marked in any order, from several threads."""

    @property
    def digests(self) -> dict[int, bytes]:
        """By its number, the digest of each marked chunk's scores."""

    def mark(self, chunk: Chunk) -> Bitmask:
        """Which of the chunk's entries are in the set; the caller may change the marks."""


class Search(Protocol):
    """A search for one component's top sets, under way."""

    def result(self) -> Mapping[str, Selection]:
        """Wait for the selection in each tensor, by its name.

        Raises:
            NumericError: a score is negative or not finite.
        """


@dataclass(frozen=True)
class FlatSelection:
    """A cut that is the same for all entries of the tensor (scopes "tensor" and "global")."""

    component: Component
    tensor: TensorInfo
    top: TopSet
    digests: dict[int, bytes]

    def mark(self, chunk: Chunk) -> Bitmask:
        """See :class:`Selection`."""
        if self.top.marks is not None:
            return self.top.marks[chunk.number]
        mask = scratch("mask", chunk.count, np.bool_)
        self.top.mark(self.component.read_scores(self.tensor, chunk), chunk, mask)
        return pack(mask)


@dataclass(frozen=True)
class RowSelection:
    """A cut of its own for every output row; reads the whole rows that a chunk touches."""

    component: Component
    tensor: TensorInfo
    digests: dict[int, bytes] = field(default_factory=dict)

    def mark(self, chunk: Chunk) -> Bitmask:
        """See :class:`Selection`.

        Raises:
            NumericError: a score is negative or not finite.
        """
        length, name = row_length(self.tensor.shape), self.tensor.name
        rows, own = self.rows(chunk)
        bits = self.component.read_scores(self.tensor, rows)
        check_scores(bits, rows, self.component.source(name))
        mask = scratch("mask", rows.count, np.bool_)
        taken = math.floor(self.component.top(name) * length)
        ranked = self.component.ranked(name)
        topk.mark_top_rows(bits, rows.first, length, taken, ranked, mask)
        self.digests[chunk.number] = chunk_digest(bits[own])
        return pack(mask[own])

    def rows(self, chunk: Chunk) -> tuple[Chunk, slice]:
        """The whole rows that a chunk touches, and where it lies in them."""
        length = row_length(self.tensor.shape)
        before = chunk.first % length
        count = -(-(before + chunk.count) // length) * length
        rows = Chunk(chunk.number, chunk.first - before, count)
        return rows, slice(before, before + chunk.count)


class FlatSearch:
    """The search for one component's top sets in several tensors taken together, under way.

    Equal scores go to the tensor that comes first, then to the lower flat index.

    Args:
        component: which one.
        count: how many entries are taken.
        tensors: in the order of the bytes of their names.
        chunk_words: words in a chunk of the grid.
        workers: threads for the passes.
        ranks: the ranks whose tensors, those of earlier ranks first, are taken together.
    """

    def __init__(
        self,
        component: Component,
        count: int,
        tensors: Sequence[TensorInfo],
        chunk_words: int,
        workers: Workers,
        ranks: Ranks = ALONE,
    ) -> None:
        self._component = component
        self._tensors = tensors
        self._digests: list[dict[int, bytes]] = [{} for _ in tensors]
        scored = [
            ScoredTensor(
                component.source(tensor.name),
                partial(component.read_scores, tensor),
                grid(tensor.words, chunk_words),
                component.ranked(tensor.name),
                partial(_scan, component, tensor, digests),
            )
            for tensor, digests in zip(tensors, self._digests, strict=True)
        ]
        self._search = TopSearch(scored, count, workers, ranks)

    def result(self) -> dict[str, Selection]:
        """Wait for the selection in each tensor, by its name.

        Raises:
            NumericError: a score is negative or not finite.
        """
        found = zip(self._tensors, self._search.result(), self._digests, strict=True)
        return {
            tensor.name: FlatSelection(self._component, tensor, top, digests)
            for tensor, top, digests in found
        }


def _scan(
    component: Component, tensor: TensorInfo, digests: dict[int, bytes], chunk: Chunk
) -> Iterator[Piece]:
    hasher = ChunkHasher()
    for piece in pieces(chunk):
        bits = component.read_scores(tensor, piece)
        hasher.add(bits)
        yield piece, bits
    digests[chunk.number] = hasher.digest()
