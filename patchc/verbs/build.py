"""Compile a base and tuned models into a patch: SafePatching, or a merge of task vectors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint, refuse_quantised
from patchc.compiler.additive_deltas import ScaledComponent, compile_additive
from patchc.compiler.steps import Codec, check_patch_output, compile_patch
from patchc.errors import UsageError
from patchc.formats import ValueType
from patchc.formats.container.additive_metadata import VALUE_TYPES
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.progress import Progress, ignore_progress
from patchc.recipe import MergeRecipe, Recipe
from patchc.recipe.safepatching import Scope
from patchc.runtime.device import Device, check_device, open_device
from patchc.runtime.device_pool import HOST_BYTES, DevicePool
from patchc.runtime.memory import RUNTIME_BYTES, largest_chunk, threads_to_build
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.selection.retention_masks import tensor_masks
from patchc.selection.safepatching.changes import SafePatchingChanges
from patchc.selection.safepatching.component import Component
from patchc.selection.safepatching.inputs import find_candidates, open_components
from patchc.selection.topk.search import expected_reads
from patchc.verbs.build_merge import build_merge
from patchc.verbs.build_plan import (
    BuildPlan,
    BuildReport,
    expected_patch_bytes,
    most_retained,
)
from patchc.verbs.provenance import tool

PathLike = str | os.PathLike[str]
Values = Literal["ulp", "additive"]

_BUFFER_BYTES_PER_WORD = 48  # all scratch buffers of one worker, with both deltas in fp32


def build(
    base: PathLike,
    *,
    se: PathLike | None = None,
    osm: PathLike | None = None,
    tuned: PathLike | Sequence[PathLike] = (),
    out: PathLike,
    recipe: Recipe | MergeRecipe | None = None,
    se_scores: PathLike | None = None,
    osm_scores: PathLike | None = None,
    values: Values = "ulp",
    value_type: ValueType | None = None,
    dry_run: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    chunk_bits: int = DEFAULT_CHUNK_BITS,
    codec: Codec = "auto",
    device: Device = "cpu",
    progress: Progress = ignore_progress,
    ranks: Ranks = ALONE,
) -> BuildReport:
    """Compile a patch: SafePatching by default, or the merge that a :class:`MergeRecipe` asks for.

    The same inputs and recipe give the same file, for any number of threads. Memory does not grow
    with the model.

    Args:
        base: the aligned model, or the one that the others were tuned from: a checkpoint folder or
            safetensors file.
        se: the model tuned by gradient ascent, with the base's tensor names; needed unless the
            recipe's ``sets`` is "osm", which reads nothing of it.
        osm: the model tuned by gradient descent; needed unless ``sets`` is "se".
        tuned: for a merge, one or more models with the base's tensor names and shapes.
        out: the patch file to write; must not exist.
        recipe: the method and its parameters; None means SafePatching's defaults.
        se_scores, osm_scores: fp32 scores (folder or file); by default those of the recipe's kind
            beside the tuned weights (``scores.safetensors`` for "weight").
        values: "ulp" stores the exact steps from base to result; "additive" the deltas of each
            component before α and β, which apply can then scale anew or add to a descendant of the
            base; where overrides make scales differ by tensor, after them, and apply's α and β are
            multiples of these. Additive patches cannot be reverted.
        value_type: of additive values: "bf16" (the default) or "int8", in blocks of 256.
        dry_run: check everything and return the plan; write nothing.
        threads: worker threads; None means one a core.
        max_memory: bytes that the process may take, to within a tenth: fewer threads run where more
            would not fit. None means 500 MB.
        chunk_bits: log2 of the words in a chunk of the patch's grid.
        codec: of exact steps: "auto" codes each chunk the shorter way; "rice" so that the changes
            can be read from the patch alone.
        device: where SafePatching selects and merges: "cpu", "cuda", or "auto" for CUDA where torch
            finds a device; or a :class:`~patchc.runtime.device_pool.DevicePool`.
            The file is the same. A
            merge, and the deltas of additive values, are computed on the CPU.
        progress: called with the parameters done.
        ranks: the ranks that share the work, each with a contiguous run of the tensors; rank 0
            writes the file. See :mod:`patchc.runtime.torchrun`.

    Raises:
        UsageError: an input is missing or not one of the method's, the weights are not as many as
            the tuned models, an override matches no tensor that takes part, or ``values``,
            ``value_type``, ``threads``, ``chunk_bits`` or ``max_memory`` are out of range; CUDA is
            asked for and there is no such device.
        MissingExtraError: CUDA is asked for, and torch or triton is not installed.
        MismatchError: names, shapes or dtypes do not fit, or scores are missing.
        UnsupportedInputError: a quantised base, an adapter, or a base dtype that cannot be merged.
        CheckpointError: an input cannot be read, or changed during the run.
        NumericError: a score, weight or merged value inside the selection (in a merge: anywhere in
            a tensor that takes part) is not finite.
        OutputError, StorageError: the patch cannot be written.
    """
    if isinstance(recipe, MergeRecipe):
        if values != "ulp":
            raise UsageError(f"values is {values!r}, and {recipe.method} has exact ones only")
        _check_values(values, value_type)
        given = {"se": se, "osm": osm, "se_scores": se_scores, "osm_scores": osm_scores}
        _refuse_inputs(recipe.method, {k: v for k, v in given.items() if v is not None}, "tuned")
        check_device(device)
        return build_merge(
            base,
            tuned=tuned,
            out=out,
            recipe=recipe,
            dry_run=dry_run,
            threads=threads,
            max_memory=max_memory,
            chunk_bits=chunk_bits,
            codec=codec,
            progress=progress,
            ranks=ranks,
        )
    _refuse_inputs("safepatching", {"tuned": tuned} if tuned else {}, "se and osm")
    recipe = recipe or Recipe()
    value_type = _check_values(values, value_type)
    if value_type:
        _check_additive(recipe)
    with ExitStack() as inputs:
        base_model = inputs.enter_context(open_checkpoint(base))
        components = open_components(
            inputs, recipe, {"se": (se, se_scores), "osm": (osm, osm_scores)}
        )
        refuse_quantised(base_model.path, tuple(base_model.tensors))
        opened = [c for part in components for c in (part.tuned, part.scores)]
        check_patch_output(Path(out), tuple(c.path for c in (base_model, *opened)), chunk_bits)
        staging = open_device(device)
        threads = _threads(base_model, chunk_bits, threads, max_memory, staging, ranks.neighbours)
        with Workers(threads, ranks) as workers:
            candidates = find_candidates(base_model, components, recipe)
            plan = _plan(
                base_model, components, candidates, workers.threads, chunk_bits, value_type, staging
            )
            if dry_run:
                return BuildReport(plan, None)
            provenance = {"kind": "build", "tool": tool(), "recipe": recipe.to_json()}
            source = _source_on(staging)(
                base_model,
                components,
                recipe,
                frozenset(plan.candidates),
                provenance,
                workers,
                1 << chunk_bits,
            )
            if value_type:
                scaled = [ScaledComponent(part.name, part.stated_scale()) for part in components]
                patch = compile_additive(
                    Path(out), base_model, source, scaled, value_type, workers, chunk_bits, progress
                )
            else:
                masks = tensor_masks(
                    {one.name: [part.mask(one.name) for part in components] for one in candidates}
                )
                patch = compile_patch(
                    Path(out), base_model, source, workers, chunk_bits, "build", progress, codec,
                    masks,
                )  # fmt: skip
        return BuildReport(plan, patch)


def _threads(
    base: Checkpoint,
    chunk_bits: int,
    threads: int | None,
    max_memory: int | None,
    staging: DevicePool | None,
    neighbours: int,
) -> int:
    each, beside = _BUFFER_BYTES_PER_WORD, HOST_BYTES if staging else 0
    threads = threads_to_build(base, chunk_bits, each, threads, max_memory, beside, neighbours)
    if staging is None:
        return threads
    from patchc.selection.safepatching.on_device import WORD_BYTES

    return min(threads, staging.most_threads(WORD_BYTES * largest_chunk(base, chunk_bits)))


def _source_on(staging: DevicePool | None) -> Callable[..., SafePatchingChanges]:
    if staging is None:
        return SafePatchingChanges
    from patchc.selection.safepatching.on_device import DeviceChanges

    return partial(DeviceChanges, staging)


def _refuse_inputs(method: str, foreign: Mapping[str, object], own: str) -> None:
    if foreign:
        raise UsageError(
            f"{next(iter(foreign))} is given, and {method} takes {own}; leave it out, or name the "
            "method that you mean with a recipe"
        )


def _check_values(values: str, value_type: str | None) -> ValueType | None:
    """The type of additive values; None for exact ones."""
    if values not in get_args(Values):
        raise UsageError(f"values is {values!r}; it must be ulp or additive")
    if values == "ulp":
        if value_type is not None:
            raise UsageError("value_type is for additive values; exact ones have no choice")
        return None
    for known in VALUE_TYPES:
        if value_type in (known, None):
            return known
    raise UsageError(f"value_type is {value_type!r}; it must be {' or '.join(VALUE_TYPES)}")


def _check_additive(recipe: Recipe) -> None:
    if recipe.least_step > 1:
        raise UsageError(
            "least_step counts steps of exact values, and additive ones have none; leave it out"
        )


def _plan(
    base: Checkpoint,
    components: tuple[Component, ...],
    candidates: list[TensorInfo],
    threads: int,
    chunk_bits: int,
    value_type: ValueType | None,
    staging: DevicePool | None,
) -> BuildPlan:
    candidate_words = sum(tensor.words for tensor in candidates)
    selected = sum(_most_selected(part, tensor) for part in components for tensor in candidates)
    selected = min(selected, candidate_words)
    score_words = _score_words(components[0].recipe.scope, candidates)
    tuned_bytes = sum(p.tuned.tensors[t.name].nbytes for p in components for t in candidates)
    return BuildPlan(
        candidates=tuple(tensor.name for tensor in candidates),
        candidate_words=candidate_words,
        model_words=sum(tensor.words for tensor in base.tensors.values()),
        selected=selected,
        patch_bytes=expected_patch_bytes(
            base, candidates, selected, chunk_bits, value_type, len(components)
        ),
        memory_bytes=RUNTIME_BYTES
        + (HOST_BYTES if staging else 0)
        + threads * _BUFFER_BYTES_PER_WORD * (1 << chunk_bits),
        read_bytes=base.nbytes + tuned_bytes + len(components) * 4 * score_words,
    )


def _score_words(scope: Scope, candidates: list[TensorInfo]) -> int:
    """Scores of one component that are read, counted as often as they are."""
    words = [tensor.words for tensor in candidates]
    if scope == "row":
        return sum(words)
    if scope == "global":
        return sum(words) * expected_reads(sum(words))
    return sum(one * expected_reads(one) for one in words)


def _most_selected(part: Component, tensor: TensorInfo) -> int:
    retained = most_retained(part.retain(tensor.name), tensor.words)
    if part.recipe.scope == "global":
        return math.ceil(part.top(tensor.name) * tensor.words)
    return min(math.floor(part.top(tensor.name) * tensor.words), retained)
