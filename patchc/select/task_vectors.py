"""One tuned model's task vector, read chunk by chunk, and which of its entries a method keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.errors import NumericError
from patchc.formats import RetentionMask
from patchc.kernels.philox import KEEP_ALL, retention_stream, retention_threshold
from patchc.kernels.task_vectors import subtract
from patchc.kernels.topk import NOTHING, Bits, Retention, TopThreshold
from patchc.recipe import MergeRecipe
from patchc.select.search import find_top_sets
from patchc.select.top import ScoredTensor, TopSet
from patchc.stream import Chunk, Workers, grid, scratch
from patchc.stream.compile import Words
from patchc.stream.team import ALONE, Team

_NOT_ZERO = TopThreshold(key=0, ties=0, available_ties=0)


@dataclass(frozen=True)
class TaskVector:
    """τ = fp32(tuned) − fp32(base).

    Attributes:
        name: "model-0", "model-1", … in the order given; part of the retention stream.
        base: the model that the tuned one was made from.
        tuned: has every candidate, in the base's shape.
        scale: factor of τ: its weight, divided by the density where the recipe rescales.
    """

    name: str
    base: Checkpoint
    tuned: Checkpoint
    scale: np.float32

    def read_tuned(self, tensor: TensorInfo, chunk: Chunk) -> Words:
        """The tuned words of a chunk, in a scratch buffer of the calling thread."""
        info = self.tuned.tensors[tensor.name]
        words: Words = scratch("tuned", chunk.count, info.dtype.word)
        self.tuned.read_words(info, chunk.first, words)
        return words

    def subtract(
        self, tensor: TensorInfo, chunk: Chunk, base: Words, tuned: Words
    ) -> NDArray[np.float32]:
        """τ of a chunk from its words, in a scratch buffer of the calling thread.

        Raises:
            NumericError: a value is not finite; names the tensor and the flat index.
        """
        delta: NDArray[np.float32] = scratch("delta", chunk.count, np.float32)
        tuned_code = self.tuned.tensors[tensor.name].dtype.code
        fault = subtract(base, tensor.dtype.code, tuned, tuned_code, delta)
        if fault >= 0:
            raise NumericError(
                f"tensor {tensor.name!r}, flat index {chunk.first + fault}: the value in "
                f"{self.base.path} or {self.tuned.path}, or their difference, is not finite; "
                "exclude the tensor"
            )
        return delta

    def read_magnitudes(self, tensor: TensorInfo, chunk: Chunk) -> Bits:
        """|τ| of a chunk as uint32, in a scratch buffer of the calling thread."""
        base: Words = scratch("base", chunk.count, tensor.dtype.word)
        self.base.read_words(tensor, chunk.first, base)
        bits: Bits = self.subtract(tensor, chunk, base, self.read_tuned(tensor, chunk)).view(
            np.uint32
        )
        bits &= np.uint32(0x7FFFFFFF)
        return bits


def open_task_vectors(
    base: Checkpoint, tuned: Sequence[Checkpoint], recipe: MergeRecipe
) -> tuple[TaskVector, ...]:
    """The task vectors of the tuned models, scaled as the recipe says.

    The quotient of a weight and the density is taken in float64 and rounded to fp32 once; it is 0
    where nothing is kept.

    Raises:
        UsageError: the recipe's weights are for another number of models.
    """
    divisor = recipe.share if recipe.rescale else 1.0
    scales = [weight / divisor if divisor else 0.0 for weight in recipe.weights(len(tuned))]
    with np.errstate(over="ignore"):
        return tuple(
            TaskVector(f"model-{number}", base, checkpoint, np.float32(scale))
            for number, (checkpoint, scale) in enumerate(zip(tuned, scales, strict=True))
        )


def drop_masks(vectors: Sequence[TaskVector], recipe: MergeRecipe) -> list[RetentionMask]:
    """The masks outside of which no entry changes: those of dare; none for another method."""
    if recipe.method != "dare":
        return []
    threshold = retention_threshold(recipe.share)
    return [RetentionMask(vector.name, recipe.seed, threshold) for vector in vectors]


def keep_entries(
    vector: TaskVector,
    recipe: MergeRecipe,
    tensors: Sequence[TensorInfo],
    chunk_words: int,
    workers: Workers,
    words: int,
    team: Team = ALONE,
) -> list[TopSet]:
    """Which entries of τ are kept in each of several tensors, zeros aside.

    By draws for dare; else those of largest |τ|, floor(density · words) of the tensors together;
    equal ones go to the earlier tensor, then to the lower flat index.

    Args:
        vector, recipe, tensors, chunk_words, workers: which, how, and in chunks of how many words.
        words: of all the tensors that are taken together.
        team: the ranks that have them.

    Raises:
        NumericError: a value is not finite; names the tensor and the flat index.
    """
    if recipe.method == "dare":
        return [TopSet(_draws(vector, recipe, tensor.name), _NOT_ZERO) for tensor in tensors]
    everything = Retention(0, 0, KEEP_ALL)
    count = math.floor(recipe.share * words)
    if recipe.share in (0, 1):
        threshold = _NOT_ZERO if recipe.share else NOTHING
        return [TopSet(everything, threshold) for _ in tensors]
    scored = [
        ScoredTensor(
            f"{vector.tuned.path}: tensor {tensor.name!r}",
            partial(vector.read_magnitudes, tensor),
            grid(tensor.words, chunk_words),
            everything,
        )
        for tensor in tensors
    ]
    return find_top_sets(scored, count, workers, team)


def _draws(vector: TaskVector, recipe: MergeRecipe, tensor: str) -> Retention:
    stream = retention_stream(vector.name, tensor)
    return Retention(recipe.seed, stream, retention_threshold(recipe.share))
