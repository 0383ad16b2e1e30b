"""Finds the tensors that a merge changes, and checks them against every tuned model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import grid
from patchc.dtypes import WEIGHT_DTYPES
from patchc.errors import MismatchError
from patchc.recipe import MergeRecipe
from patchc.recipe.suggested_renames import rename_advice
from patchc.selection.candidates import NameFilter, check_overrides

_CHUNK_WORDS = 1 << 20


def find_merge_candidates(
    base: Checkpoint, tuned: Sequence[Checkpoint], recipe: MergeRecipe
) -> list[TensorInfo]:
    """Find the candidates in the base, sorted by the bytes of their names.

    They have a float dtype and pass include and exclude. Tensors of other dtypes that pass must be
    equal in all models.

    Raises:
        MismatchError: a tensor is missing from a model, extra, of another shape, of a dtype that
            cannot be merged, or no tensor is left.
        CheckpointError: an input cannot be read.
        UsageError: an override matches no tensor that takes part.
    """
    names = NameFilter(recipe.include, recipe.exclude)
    admitted = [tensor for tensor in base.tensors.values() if names.matches(tensor.name)]
    candidates = [tensor for tensor in admitted if tensor.dtype.name in WEIGHT_DTYPES]
    for model in tuned:
        _check_extra(base, model, names)
        for tensor in admitted:
            twin = _find_twin(base, model, tensor)
            if tensor.dtype.name in WEIGHT_DTYPES:
                _check_float(model, twin)
            else:
                _check_equal(base, tensor, model, twin)
    if not candidates:
        raise MismatchError(
            f"no tensor of {base.path} is {' or '.join(WEIGHT_DTYPES)} and passes include and "
            "exclude; there is nothing to build: change include or exclude"
        )
    check_overrides(recipe.overrides, [tensor.name for tensor in candidates])
    return sorted(candidates, key=lambda tensor: tensor.name.encode())


def _check_extra(base: Checkpoint, model: Checkpoint, names: NameFilter) -> None:
    extra = [name for name in model.tensors if name not in base.tensors and names.matches(name)]
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise MismatchError(
            f"{model.path}: tensor {extra[0]!r}{more} is not in the base {base.path}; exclude it, "
            f"or take the base that the model was tuned from{_advice(base, model)}"
        )


def _advice(base: Checkpoint, model: Checkpoint) -> str:
    advice = rename_advice(base, model)
    return advice and f"{advice}, alike for all tuned models"


def _find_twin(base: Checkpoint, model: Checkpoint, tensor: TensorInfo) -> TensorInfo:
    twin = model.tensors.get(tensor.name)
    if twin is None:
        raise MismatchError(
            f"{model.path}: tensor {tensor.name!r} is missing; exclude it, or take the base that "
            f"the model was tuned from{_advice(base, model)}"
        )
    if twin.shape != tensor.shape:
        raise MismatchError(
            f"{model.path}: tensor {tensor.name!r} has shape {list(twin.shape)} and the base's is "
            f"{list(tensor.shape)}; exclude it, or take the base that the model was tuned from"
        )
    return twin


def _check_float(model: Checkpoint, twin: TensorInfo) -> None:
    if twin.dtype.name not in WEIGHT_DTYPES:
        raise MismatchError(
            f"{model.path}: tensor {twin.name!r} is {twin.dtype.name}; tuned weights must be "
            f"{', '.join(WEIGHT_DTYPES)}"
        )


def _check_equal(base: Checkpoint, tensor: TensorInfo, model: Checkpoint, twin: TensorInfo) -> None:
    equal = twin.dtype == tensor.dtype
    for chunk in grid(tensor.words, _CHUNK_WORDS) if equal else ():
        ours = np.empty(chunk.count, tensor.dtype.word)
        theirs = np.empty(chunk.count, tensor.dtype.word)
        base.read_words(tensor, chunk.first, ours)
        model.read_words(twin, chunk.first, theirs)
        equal = np.array_equal(ours, theirs)
        if not equal:
            break
    if not equal:
        raise MismatchError(
            f"{model.path}: tensor {tensor.name!r} is {tensor.dtype.name} in the base, which "
            f"cannot be merged, and differs from it; exclude it to keep the base's"
        )
