"""One tuned model's task vector, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.formats import RetentionMask
from patchc.kernels.philox.cpu import retention_threshold
from patchc.kernels.task_merge.cpu import magnitudes
from patchc.kernels.task_merge.reference import subtract
from patchc.kernels.topk.cpu import Bits
from patchc.recipe import MergeRecipe


@dataclass(frozen=True)
class TaskVector:
    """τ = fp32(tuned) − fp32(base).

    Attributes:
        name: "model-0", "model-1", … in the order given; part of the retention stream.
        base: the model that the tuned one was made from.
        tuned: has every candidate, in the base's shape.
    """

    name: str
    base: Checkpoint
    tuned: Checkpoint

    def subtract(
        self, tensor: TensorInfo, chunk: Chunk, base: Words, tuned: Words
    ) -> NDArray[np.float32]:
        """τ of a chunk from its words.

        Raises:
            NumericError: a value is not finite; names the tensor and the flat index.
        """
        delta = np.empty(chunk.count, np.float32)
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
        """|τ| of a chunk as uint32, in a scratch buffer of the calling thread.

        Raises:
            NumericError: as :meth:`subtract`.
        """
        bits: Bits = scratch("scores", chunk.count, np.uint32)
        tuned_code = self.tuned.tensors[tensor.name].dtype.code
        base, tuned = self._read(tensor, chunk)
        if magnitudes(base, tensor.dtype.code, tuned, tuned_code, bits):
            self.subtract(tensor, chunk, base, tuned)
        return bits

    def _read(self, tensor: TensorInfo, chunk: Chunk) -> tuple[Words, Words]:
        info = self.tuned.tensors[tensor.name]
        base: Words = scratch("base scored", chunk.count, tensor.dtype.word)
        tuned: Words = scratch("tuned scored", chunk.count, info.dtype.word)
        self.base.read_words(tensor, chunk.first, base)
        self.tuned.read_words(info, chunk.first, tuned)
        return base, tuned


def open_task_vectors(
    base: Checkpoint, tuned: Sequence[Checkpoint], recipe: MergeRecipe
) -> tuple[TaskVector, ...]:
    """The task vectors of the tuned models.

    Raises:
        UsageError: the recipe's weights are for another number of models.
    """
    recipe.check_models(len(tuned))
    return tuple(TaskVector(f"model-{n}", base, model) for n, model in enumerate(tuned))


def task_scales(recipe: MergeRecipe, models: int) -> NDArray[np.float32]:
    """The factor of each model's τ: its weight, divided by the density where the recipe rescales.

    The quotient is taken in float64 and rounded to fp32 once; it is 0 where nothing is kept.

    Args:
        recipe: that of one tensor, its overrides worked in.
        models: how many there are.
    """
    divisor = recipe.share if recipe.rescale else 1.0
    scales = [weight / divisor if divisor else 0.0 for weight in recipe.weights(models)]
    with np.errstate(over="ignore"):
        return np.array(scales, np.float32)


def drop_masks(vectors: Sequence[TaskVector], recipe: MergeRecipe) -> list[RetentionMask]:
    """The masks outside of which no entry changes: those of dare; none for another method."""
    if recipe.method != "dare":
        return []
    threshold = retention_threshold(recipe.share)
    return [RetentionMask(vector.name, recipe.seed, threshold) for vector in vectors]
