"""Finds the top set of one component in a tensor, and gives it as bitmasks chunk by chunk.

The scope says which entries are ranked together: those of a row, a tensor, or the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from patchc.checkpoint import TensorInfo
from patchc.chunks import Chunk, grid, pieces
from patchc.kernels.bitmask import Bitmask, pack
from patchc.kernels.topk import cpu as topk
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.runtime import Runtime
from patchc.selection.candidates import row_length
from patchc.selection.safepatching.component import Component
from patchc.selection.topk.histogram_search import Piece, ScoredTensor, TopSet, check_scores
from patchc.selection.topk.search import TopSearch


class Selection(Protocol):
    """A top set; gives bitmasks of chunks in any order, from several threads."""

    @property
    def digests(self) -> dict[int, bytes]:
        """Chunk number → digest of the ranked scores, for each chunk that was asked for."""

    def bitmask(self, chunk: Chunk) -> Bitmask:
        """The chunk's entries in the set; the caller may change the bitmask.

        Raises:
            NumericError: a score is negative or not finite.
        """


Search = Callable[[], Mapping[str, Selection]]
"""Waits for a component's selection in each tensor, by name; raises NumericError as those do."""


@dataclass(frozen=True)
class FlatSelection:
    """A top set with one cut for all entries of the tensor (scopes "tensor" and "global")."""

    component: Component
    tensor: TensorInfo
    top: TopSet
    digests: dict[int, bytes]

    def bitmask(self, chunk: Chunk) -> Bitmask:
        """See :class:`Selection`."""
        read = partial(self.component.read_scores, self.tensor)
        return self.top.bitmask(chunk, read, self.component.buffers.mask)


@dataclass(frozen=True)
class RowSelection:
    """A top set in every output row; reads all of each row that a chunk touches."""

    component: Component
    tensor: TensorInfo
    digests: dict[int, bytes] = field(default_factory=dict)

    def bitmask(self, chunk: Chunk) -> Bitmask:
        """See :class:`Selection`."""
        length, name = row_length(self.tensor.shape), self.tensor.name
        rows, own = self.rows(chunk)
        bits = self.component.read_scores(self.tensor, rows)
        check_scores(bits, rows, self.component.source(name))
        mask = self.component.buffers.mask(rows.count, np.bool_)
        taken = self.component.top_count(name, length)
        ranked = self.component.ranked(name)
        topk.mark_top_rows(bits, rows.first, length, taken, ranked, mask)
        used = self.component.used(self.component.scores, name)
        self.digests[chunk.number] = used.digest(chunk, bits[own])
        return pack(mask[own])

    def rows(self, chunk: Chunk) -> tuple[Chunk, slice]:
        """The whole rows that a chunk touches, and the slice of them that is the chunk."""
        length = row_length(self.tensor.shape)
        before = chunk.first % length
        count = -(-(before + chunk.count) // length) * length
        rows = Chunk(chunk.number, chunk.first - before, count)
        return rows, slice(before, before + chunk.count)


def search_flat(
    component: Component,
    count: int,
    tensors: Sequence[TensorInfo],
    chunk_words: int,
    runtime: Runtime,
    ranks: Ranks = ALONE,
) -> Search:
    """Begin to search for a component's top set in several tensors taken together.

    All ``ranks`` search together for ``count`` entries. Equal scores go to the tensor that comes
    first, with tensors of earlier ranks first, then to the lower flat index.
    """
    digests: list[dict[int, bytes]] = [{} for _ in tensors]
    scored = [
        ScoredTensor(
            component.source(tensor.name),
            partial(component.read_scores, tensor),
            grid(tensor.words, chunk_words),
            component.ranked(tensor.name),
            partial(_scan, component, tensor, own),
        )
        for tensor, own in zip(tensors, digests, strict=True)
    ]
    search = TopSearch(scored, count, runtime, ranks)

    def result() -> dict[str, Selection]:
        found = zip(tensors, search.result(), digests, strict=True)
        return {one.name: FlatSelection(component, one, top, own) for one, top, own in found}

    return result


def _scan(
    component: Component, tensor: TensorInfo, digests: dict[int, bytes], chunk: Chunk
) -> Iterator[Piece]:
    hasher = component.used(component.scores, tensor.name).hasher()
    for piece in pieces(chunk):
        bits = component.read_scores(tensor, piece)
        hasher.add(bits, piece.first)
        yield piece, bits
    digests[chunk.number] = hasher.digest()
