"""The top set of one component in one tensor, in any scope, marked chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import TensorInfo
from patchc.kernels import topk
from patchc.kernels.topk import Bits
from patchc.select.candidates import row_length
from patchc.select.component import Component
from patchc.select.top import ScoredTensor, TopSet, check_scores, find_top_sets
from patchc.stream import Chunk, Workers, grid, scratch

Mask = NDArray[np.bool_]


class Selection(Protocol):
    """A top set; chunks can be marked in any order, from several threads."""

    def mark(self, chunk: Chunk, mask: Mask) -> Bits:
        """Write into ``mask`` which of the chunk's entries are in the set; gives their scores."""


@dataclass(frozen=True)
class FlatSelection:
    """A cut that is the same for all entries of the tensor (scopes "tensor" and "global")."""

    component: Component
    tensor: TensorInfo
    top: TopSet

    def mark(self, chunk: Chunk, mask: Mask) -> Bits:
        """See :class:`Selection`."""
        bits = self.component.read_scores(self.tensor, chunk)
        self.top.mark(bits, chunk, mask)
        return bits


@dataclass(frozen=True)
class RowSelection:
    """A cut of its own for every output row; reads the whole rows that a chunk touches."""

    component: Component
    tensor: TensorInfo

    def mark(self, chunk: Chunk, mask: Mask) -> Bits:
        """See :class:`Selection`."""
        length, name = row_length(self.tensor.shape), self.tensor.name
        before = chunk.first % length
        count = -(-(before + chunk.count) // length) * length
        rows = Chunk(chunk.number, chunk.first - before, count)
        bits = self.component.read_scores(self.tensor, rows)
        check_scores(bits, rows, self.component.source(name))
        marks = scratch("row marks", count, np.bool_)
        taken = math.floor(self.component.top(name) * length)
        ranked = self.component.ranked(name)
        topk.mark_top_rows(bits, rows.first, length, taken, ranked, marks)
        mask[:] = marks[before : before + chunk.count]
        return bits[before : before + chunk.count]


def select_in_tensor(
    component: Component, tensor: TensorInfo, chunks: list[Chunk], workers: Workers
) -> Selection:
    """The selection of a component in a tensor, in scope "tensor" or "row".

    Raises:
        NumericError: a score is negative or not finite. In scope "row" this comes with marking.
    """
    if component.recipe.scope == "row":
        return RowSelection(component, tensor)
    count = math.floor(component.top(tensor.name) * tensor.words)
    (top,) = find_top_sets([_scored(component, tensor, chunks)], count, workers)
    return FlatSelection(component, tensor, top)


def select_globally(
    component: Component, tensors: Sequence[TensorInfo], chunk_words: int, workers: Workers
) -> dict[str, Selection]:
    """The selection of a component in every tensor, by one cut over all of them.

    The share is counted over all entries; equal scores go to the tensor whose name sorts first by
    bytes, then to the lower flat index.

    Raises:
        NumericError: a score is negative or not finite.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name.encode())
    share = component.recipe.top_se if component.name == "se" else component.recipe.top_osm
    count = math.floor(share * sum(tensor.words for tensor in ordered))
    scored = [_scored(component, one, grid(one.words, chunk_words)) for one in ordered]
    tops = find_top_sets(scored, count, workers)
    return {
        tensor.name: FlatSelection(component, tensor, top)
        for tensor, top in zip(ordered, tops, strict=True)
    }


def _scored(component: Component, tensor: TensorInfo, chunks: list[Chunk]) -> ScoredTensor:
    read = partial(component.read_scores, tensor)
    name = tensor.name
    return ScoredTensor(component.source(name), read, chunks, component.ranked(name))
