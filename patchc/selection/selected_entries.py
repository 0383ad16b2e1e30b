"""Gathers the entries that a recipe selects, so that scales can be tried without reading models.

The same kernels as in a build merge the gathered entries, so a scale gives the words that a build
would write. An entry takes its position, its base word and one word per component.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

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
from patchc.kernels.tiles import convert, convert_row, new_tiles
from patchc.kernels.ulp_steps.cpu import undo_small_steps
from patchc.recipe import MergeRecipe, Recipe
from patchc.runtime.runtime import Runtime
from patchc.selection.tuned_words import TunedTensor

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Gathered:
    """Selected entries of a tensor, or of a chunk of it, in the order of their positions.

    Attributes:
        positions: uint32 [entries], flat; uint64 in a tensor of 2³² words and more.
        base: the base's words there.
        tuned: uint8 [components, 4 · entries]; each component's tuned words, with padding behind
            shorter ones.
        bitmasks: uint32 [components, words]; where each component is selected.
    """

    positions: NDArray[np.unsignedinteger]
    base: Words
    tuned: NDArray[np.uint8]
    bitmasks: Bitmask

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return sum(a.nbytes for a in (self.positions, self.base, self.tuned, self.bitmasks))


class Selected(Protocol):
    """A tensor of a build whose entries can be gathered, chunk by chunk, from any thread."""

    tuned: TunedTensor

    def select(self, chunk: Chunk) -> tuple[Words, list[Bitmask]]:
        """The base's words of a chunk, and where each component is selected."""


class TensorEntries:
    """The gathered entries of one tensor, and the words that scales give them.

    Args:
        tensor: the base's.
        found: the entries.
        codes: dtype code of each component's words.
        recipe: the method and its parameters; its scales are ignored.
        majority: TIES: the sign to elect where the sum is zero.
        weights: TIES: the weight of each model in the election.
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
        """Number of scales: one per component, or λ alone after an election."""
        return 1 if self.elects else len(self._codes)

    @property
    def elects(self) -> bool:
        """Whether the method is TIES, which elects signs and has one scale, λ, for all models."""
        return isinstance(self._recipe, MergeRecipe) and self._recipe.method == "ties"

    def merged(self, scales: Sequence[np.float32]) -> Words:
        """The words of the result at the entries' positions.

        Args:
            scales: the scale of each component's delta as a build takes it (divided by p or the
                density where the recipe rescales); for TIES λ alone.

        Raises:
            NumericError: a value is not finite, or overflows the base's dtype.
        """
        found, code = self.found, self.tensor.dtype.code
        result = np.empty_like(found.base)
        if isinstance(self._recipe, Recipe):
            faulty = merge_components(
                found.base, code, found.tuned, self._codes, found.bitmasks,
                np.array(scales, np.float32), result, new_tiles(),
            )  # fmt: skip
            if self._recipe.least_step > 1:
                undo_small_steps(
                    found.base, result, self.tensor.dtype.total_order, self._recipe.least_step
                )
        else:
            scale = scales[0] if self.elects else np.float32(self._recipe.lambda_)
            weights = self._weights if self.elects else np.array(scales, np.float32)
            retained = np.zeros(len(self._codes), np.int64)
            faulty = merge_task_vectors(
                found.base, code, found.tuned, self._codes, found.bitmasks, weights, self.elects,
                self._majority, scale, result, retained, new_tiles(),
            )  # fmt: skip
        if faulty:
            raise NumericError(
                f"tensor {self.tensor.name!r}: with the scales {[float(s) for s in scales]} a "
                "value is not finite; exclude the tensor, or keep the scales smaller"
            )
        return result

    def directions(self) -> Iterator[Floats]:
        """For each scale, what one unit of it adds to each entry before rounding; fp32."""
        if self.elects:
            yield self._elected()
            return
        origin = values_of(self.found.base, self.tensor.dtype.code)
        scale = 1.0 if isinstance(self._recipe, Recipe) else self._recipe.lambda_
        for number in range(len(self._codes)):
            delta = self._delta(number, origin)
            yield delta if scale == 1.0 else delta * np.float32(scale)

    def _delta(self, number: int, origin: Floats) -> Floats:
        delta = np.empty_like(origin)
        convert_row(self.found.tuned[number], self._codes[number], 0, delta)
        np.subtract(delta, origin, out=delta)
        delta[~unpack(self.found.bitmasks[number], len(delta))] = 0
        return delta

    def _elected(self) -> Floats:
        origin = values_of(self.found.base, self.tensor.dtype.code)
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
    chunk_words: int,
    runtime: Runtime,
    keep_zeros: bool = True,
) -> Gathered:
    """Gather the entries of one tensor that any component selects.

    Without ``keep_zeros``, entries that no component differs in are left out: no scale changes
    them.
    """
    codes = selected.tuned.codes

    def gather_chunk(chunk: Chunk) -> list[NDArray[Any]]:
        """The positions and base words, then each component's words, then its mask."""
        base, bitmasks = selected.select(chunk)
        inside = np.flatnonzero(unpack(reduce(np.bitwise_or, bitmasks), chunk.count))
        masks = [unpack(each, chunk.count)[inside] for each in bitmasks]
        tuned = [selected.tuned.read(number, chunk)[inside] for number in range(len(bitmasks))]
        found: list[NDArray[Any]] = [inside + chunk.first, base[inside], *tuned, *masks]
        if keep_zeros:
            return found
        origin = values_of(found[1], tensor.dtype.code)
        values = (values_of(words, code) for words, code in zip(tuned, codes, strict=True))
        differ = reduce(np.logical_or, (own != origin for own in values))
        return [array[differ] for array in found]

    chunks = runtime.map(gather_chunk, grid(tensor.words, chunk_words))
    positions, base, *rest = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    kind = np.uint32 if tensor.words <= 1 << 32 else np.uint64
    tuned, masks = rest[: len(codes)], rest[len(codes) :]
    padded = np.zeros((len(tuned), 4 * len(base)), np.uint8)
    for row, words in zip(padded, tuned, strict=True):
        row[: words.nbytes] = words.view(np.uint8)
    bitmasks = np.stack([pack(mask) for mask in masks])
    return Gathered(positions.astype(kind), base, padded, bitmasks)


def values_of(words: Words, code: int) -> Floats:
    """The values of words of a dtype, exactly."""
    values = np.empty(len(words), np.float32)
    convert(words, code, values)
    return values
