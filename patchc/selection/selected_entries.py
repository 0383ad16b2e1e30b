"""What a recipe selects, gathered once, so that scales can be tried without reading models again.

The words that a scale gives are those that a build with that scale writes: the same kernels merge
the gathered entries. A gathered entry takes its position, its base word and one word a component.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import TensorInfo
from patchc.chunks import Chunk, grid
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.kernels.bitmask import Bitmask, pack, unpack
from patchc.kernels.safepatching_merge.cpu import merge_components
from patchc.kernels.task_merge.cpu import merge_task_vectors
from patchc.kernels.task_merge.reference import add_votes, average_elected
from patchc.kernels.tiles import convert, convert_row
from patchc.kernels.ulp_steps.cpu import undo_small_steps
from patchc.recipe import MergeRecipe, Recipe
from patchc.runtime.workers import Workers

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Gathered:
    """Selected entries of a tensor, or of a chunk of it, in the order of their positions.

    Attributes:
        positions: uint32 [entries], flat; uint64 in a tensor of 2³² words and more.
        base: the base's words there.
        tuned: uint8 [components, 4 · entries]; the tuned words of each, and room behind shorter
            ones.
        marks: where each component is selected, one bit an entry, one row each.
    """

    positions: NDArray[np.unsignedinteger]
    base: Words
    tuned: NDArray[np.uint8]
    marks: Bitmask

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return sum(a.nbytes for a in (self.positions, self.base, self.tuned, self.marks))


class Selected(Protocol):
    """A tensor of a build whose entries can be gathered, chunk by chunk, from any thread."""

    def select(self, chunk: Chunk) -> tuple[Words, list[Bitmask]]:
        """The base's words of a chunk, and where each component is selected."""

    def read_tuned(self, number: int, chunk: Chunk) -> Words:
        """The words of one component in a chunk; the next call may overwrite them."""


class TensorEntries:
    """The gathered entries of one tensor, and what scales make of them.

    Args:
        tensor: the base's.
        found: the entries.
        codes: the dtype of each component's words.
        recipe: the method and its parameters; its scales do not count.
        majority: TIES: the sign that stands in for that of a sum that is zero.
        weights: TIES: the weight of each model, which the election rests on.
    """

    def __init__(
        self,
        tensor: TensorInfo,
        found: Gathered,
        codes: NDArray[np.int64],
        recipe: Recipe | MergeRecipe,
        majority: int = 0,
        weights: Sequence[float] = (),
    ) -> None:
        self.tensor = tensor
        self.found = found
        self._codes = codes
        self._recipe = recipe
        self._majority = majority
        self._weights = np.array(weights, np.float32)

    @property
    def scales(self) -> int:
        """How many scales there are: one a component, or with an election λ alone."""
        return 1 if self.elects else len(self._codes)

    @property
    def elects(self) -> bool:
        """Whether one scale, λ, stands for all models, because they have been elected among."""
        return isinstance(self._recipe, MergeRecipe) and self._recipe.method == "ties"

    def merged(self, scales: Sequence[np.float32]) -> Words:
        """The words of the result at the entries' positions.

        Args:
            scales: the factor of each component's delta as a build takes it (divided by p or the
                density where the recipe rescales); of TIES λ alone.

        Raises:
            NumericError: a value is not finite, or overflows the base's dtype.
        """
        found, code = self.found, self.tensor.dtype.code
        result = np.empty_like(found.base)
        if isinstance(self._recipe, Recipe):
            faulty = merge_components(
                found.base, code, found.tuned, self._codes, found.marks,
                np.array(scales, np.float32), result,
            )  # fmt: skip
            if self._recipe.least_step > 1:
                undo_small_steps(
                    found.base, result, self.tensor.dtype.total_order, self._recipe.least_step
                )
        else:
            factor = scales[0] if self.elects else np.float32(self._recipe.lambda_)
            weights = self._weights if self.elects else np.array(scales, np.float32)
            kept = np.zeros(len(self._codes), np.int64)
            faulty = merge_task_vectors(
                found.base, code, found.tuned, self._codes, found.marks, weights, self.elects,
                self._majority, factor, result, kept,
            )  # fmt: skip
        if faulty:
            raise NumericError(
                f"tensor {self.tensor.name!r}: with the scales {[float(s) for s in scales]} a "
                "value is not finite; exclude the tensor, or keep the scales smaller"
            )
        return result

    def directions(self) -> Iterator[Floats]:
        """Of each scale, what one unit of it adds to each entry before rounding; fp32."""
        if self.elects:
            yield self._elected()
            return
        origin = self._origin()
        factor = 1.0 if isinstance(self._recipe, Recipe) else self._recipe.lambda_
        for number in range(len(self._codes)):
            delta = self._delta(number, origin)
            yield delta if factor == 1.0 else delta * np.float32(factor)

    def _origin(self) -> Floats:
        return values_of(self.found.base, self.tensor.dtype.code)

    def _delta(self, number: int, origin: Floats) -> Floats:
        delta = np.empty_like(origin)
        convert_row(self.found.tuned[number], self._codes[number], 0, delta)
        np.subtract(delta, origin, out=delta)
        delta[~unpack(self.found.marks[number], len(delta))] = 0
        return delta

    def _elected(self) -> Floats:
        origin = self._origin()
        total = np.zeros_like(origin)
        sums, weights = np.zeros((2, 2, len(origin)), np.float32)
        for number, weight in enumerate(self._weights):
            delta = self._delta(number, origin)
            add_votes(delta, delta != 0, weight, total, sums, weights)
        average_elected(total, sums, weights, self._majority)
        return total


def gather(
    tensor: TensorInfo,
    selected: Selected,
    codes: NDArray[np.int64],
    chunk_words: int,
    workers: Workers,
    keep_zeros: bool = True,
) -> Gathered:
    """Gather the entries of one tensor that any component selects.

    Args:
        tensor: the base's.
        selected: what a build would select of it.
        codes: the dtype of each component's words.
        chunk_words: words that are read at a time.
        workers: threads.
        keep_zeros: whether entries that no component differs in are gathered; a merge leaves them
            as they are, whatever the scales.
    """
    chunks = grid(tensor.words, chunk_words)
    code = tensor.dtype.code

    def gather_chunk(chunk: Chunk) -> _Part:
        part = _gather_chunk(selected, chunk)
        if keep_zeros:
            return part
        differ = _differing(part[1], code, part[2], codes)
        places, base, tuned, masks = part
        return (
            places[differ],
            base[differ],
            [words[differ] for words in tuned],
            [mask[differ] for mask in masks],
        )

    parts = list(workers.map(gather_chunk, chunks))
    masks = [np.concatenate(rows) for rows in zip(*(part[3] for part in parts), strict=True)]
    kind = np.uint32 if tensor.words <= 1 << 32 else np.uint64
    rows = [np.concatenate(words) for words in zip(*(part[2] for part in parts), strict=True)]
    return Gathered(
        np.concatenate([part[0] for part in parts]).astype(kind),
        np.concatenate([part[1] for part in parts]),
        _rows(rows),
        np.stack([pack(mask) for mask in masks]),
    )


_Part = tuple[NDArray[np.int64], Words, list[Words], list[NDArray[np.bool_]]]
"""Positions, base words, each component's words and mask, of a chunk."""


def _gather_chunk(selected: Selected, chunk: Chunk) -> _Part:
    base, marks = selected.select(chunk)
    inside = np.flatnonzero(unpack(reduce(np.bitwise_or, marks), chunk.count))
    masks = [unpack(each, chunk.count)[inside] for each in marks]
    tuned = [selected.read_tuned(number, chunk)[inside] for number in range(len(marks))]
    return inside + chunk.first, base[inside], tuned, masks


def _differing(
    base: Words, code: int, tuned: Sequence[Words], codes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Where the value of any component is not the base's."""
    origin = values_of(base, code)
    differ = np.zeros(len(base), np.bool_)
    for words, own in zip(tuned, codes, strict=True):
        differ |= values_of(words, own) != origin
    return differ


def values_of(words: Words, code: int) -> Floats:
    """The values of words of a dtype, exactly."""
    values = np.empty(len(words), np.float32)
    convert(words, code, values)
    return values


def _rows(words: Sequence[Words]) -> NDArray[np.uint8]:
    rows = np.zeros((len(words), 4 * len(words[0])), np.uint8)
    for row, each in zip(rows, words, strict=True):
        row[: each.nbytes] = each.view(np.uint8)
    return rows
