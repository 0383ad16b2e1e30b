"""Reads the task vector of a tuned model, its difference from the base, chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint, refuse_quantised
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.formats import RetentionMask
from patchc.kernels.philox import KEEP_ALL, Retention, retention_stream, retention_threshold
from patchc.kernels.task_merge.cpu import magnitudes
from patchc.kernels.task_merge.reference import subtract
from patchc.kernels.tiles import new_tiles
from patchc.kernels.topk.cpu import Bits
from patchc.recipe import MergeRecipe
from patchc.recipe.renames import NO_RENAMES, Renames
from patchc.runtime.runtime import Buffers
from patchc.selection.compact.component_folder import CompactComponent, is_compact
from patchc.selection.used_words import UsedWords


@dataclass(frozen=True)
class TaskVector:
    """τ = fp32(tuned) − fp32(base).

    Attributes:
        name: "model-0", "model-1", … in the order given; seeds the draws of DARE.
        base: the model that the tuned one was made from.
        tuned: has every candidate, in the base's shape.
        buffers: memory for the words of both.
    """

    name: str
    base: Checkpoint
    tuned: Checkpoint
    buffers: Buffers

    def used(self, recipe: MergeRecipe, tensor: str) -> UsedWords:
        """The words of a tensor that a merge may use: with DARE the retained ones, else all."""
        threshold = retention_threshold(recipe.share) if recipe.method == "dare" else KEEP_ALL
        retention = Retention(recipe.seed, retention_stream(self.name, tensor), threshold)
        return UsedWords(self.tuned, self.tuned.tensors[tensor], retention, self.buffers)

    def subtract(
        self, tensor: TensorInfo, chunk: Chunk, base: Words, tuned: Words
    ) -> NDArray[np.float32]:
        """Compute τ of a chunk from its words.

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
        """Read the bits of |τ| of a chunk into a buffer of the calling thread.

        Raises:
            NumericError: as :meth:`subtract`.
        """
        bits: Bits = self.buffers.scores(chunk.count, np.uint32)
        info = self.tuned.tensors[tensor.name]
        base: Words = self.buffers.scored_base(chunk.count, tensor.dtype.word)
        tuned: Words = self.buffers.scored_tuned(chunk.count, info.dtype.word)
        self.base.read_words(tensor, chunk.first, base)
        self.tuned.read_words(info, chunk.first, tuned)
        if magnitudes(base, tensor.dtype.code, tuned, info.dtype.code, bits, new_tiles()):
            self.subtract(tensor, chunk, base, tuned)
        return bits


def open_tuned(
    inputs: ExitStack,
    base: Checkpoint,
    paths: Sequence[str | os.PathLike[str]],
    recipe: MergeRecipe,
    renames: Renames = NO_RENAMES,
) -> list[Checkpoint]:
    """Open the tuned models of a merge, some of which may be compact; ``inputs`` closes them.

    ``renames`` says what the base's tensors are called in those that are not compact.

    Raises:
        UsageError: the rules do not fit the names.
        MismatchError: the recipe needs what a compact component does not hold, or it is one of
            another base.
        UnsupportedInputError, CheckpointError: one is quantised or cannot be read.
    """
    models: list[Checkpoint] = []
    names = renames.of(base)
    for number, path in enumerate(paths):
        if is_compact(path):
            component = CompactComponent.open(path, base)
            component.check_model(number, recipe)
            models.append(inputs.enter_context(component.tuned()))
        else:
            model = inputs.enter_context(open_checkpoint(path))
            refuse_quantised(model)
            models.append(names.view(model))
    names.check_found(models)
    return models


def open_task_vectors(
    base: Checkpoint, tuned: Sequence[Checkpoint], recipe: MergeRecipe, buffers: Buffers
) -> tuple[TaskVector, ...]:
    """The task vectors of the tuned models.

    Raises:
        UsageError: the recipe's weights are for another number of models.
    """
    recipe.check_models(len(tuned))
    return tuple(TaskVector(f"model-{n}", base, model, buffers) for n, model in enumerate(tuned))


def task_scales(recipe: MergeRecipe, models: int) -> NDArray[np.float32]:
    """The scale of each model's τ: its weight, divided by the density where the recipe rescales.

    The quotient is computed in float64 and rounded to fp32 once; 0 if nothing is retained.

    Args:
        recipe: the recipe of one tensor, with its overrides applied.
        models: number of models.
    """
    divisor = recipe.share if recipe.rescale else 1.0
    scales = [weight / divisor if divisor else 0.0 for weight in recipe.weights(models)]
    with np.errstate(over="ignore"):
        return np.array(scales, np.float32)


def drop_masks(vectors: Sequence[TaskVector], recipe: MergeRecipe) -> list[RetentionMask]:
    """The masks of DARE, outside of which no entry changes; none for another method."""
    if recipe.method != "dare":
        return []
    threshold = retention_threshold(recipe.share)
    return [RetentionMask(vector.name, recipe.seed, threshold) for vector in vectors]
