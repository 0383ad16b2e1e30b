"""Compile a base and tuned models into a patch by merging their task vectors."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint, refuse_quantised
from patchc.compiler.steps import Codec, check_patch_output, compile_patch
from patchc.errors import UsageError
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.progress import Progress, ignore_progress
from patchc.recipe import MergeRecipe
from patchc.runtime.memory import RUNTIME_BYTES, threads_to_build
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.selection.retention_masks import tensor_masks
from patchc.selection.task_merge.changes import MergeChanges
from patchc.selection.task_merge.merge_candidates import find_merge_candidates
from patchc.selection.task_merge.task_vectors import drop_masks, open_task_vectors
from patchc.selection.topk.search import expected_reads
from patchc.verbs.build_plan import (
    BuildPlan,
    BuildReport,
    expected_patch_bytes,
    most_retained,
)
from patchc.verbs.provenance import tool

PathLike = str | os.PathLike[str]

_BUFFER_BYTES_PER_WORD = 48  # all buffers of one worker that chunks fill


def build_merge(
    base: PathLike,
    *,
    tuned: PathLike | Sequence[PathLike],
    out: PathLike,
    recipe: MergeRecipe,
    dry_run: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    chunk_bits: int = DEFAULT_CHUNK_BITS,
    codec: Codec = "auto",
    progress: Progress = ignore_progress,
    ranks: Ranks = ALONE,
) -> BuildReport:
    """Compile the merge of one or more tuned models' task vectors into a patch.

    The same inputs and recipe give the same file, for any number of threads. Memory does not grow
    with the models, and little with their number.

    Args:
        base: the model that the others were tuned from, a checkpoint folder or safetensors file.
        tuned: the tuned models, or the one, with the base's tensor names and shapes; float dtypes
            may differ.
        out: the patch file to write; must not exist.
        recipe: the method and its parameters.
        dry_run: check everything and return the plan; write nothing.
        threads, max_memory: as for :func:`build`.
        chunk_bits: log2 of the words in a chunk of the patch's grid.
        codec: how changes are coded, as for :func:`build`.
        progress: called with the parameters done.
        ranks: the ranks that share the work, as for :func:`build`.

    Raises:
        UsageError: no tuned model, or another number of weights.
        MismatchError: names, shapes or dtypes do not fit.
        UnsupportedInputError: a quantised model or an adapter.
        CheckpointError: an input cannot be read, or changed during the run.
        NumericError: a base, tuned or merged value is not finite; names tensor and flat index.
        OutputError, StorageError: the patch cannot be written.
    """
    if isinstance(tuned, str | os.PathLike):
        tuned = [tuned]
    if not tuned:
        raise UsageError(f"{recipe.method} needs at least one tuned model; name it with --tuned")
    with ExitStack() as inputs:
        models = [inputs.enter_context(open_checkpoint(path)) for path in (base, *tuned)]
        for model in models:
            refuse_quantised(model.path, tuple(model.tensors))
        check_patch_output(Path(out), tuple(model.path for model in models), chunk_bits)
        base_model, tuned_models = models[0], models[1:]
        vectors = open_task_vectors(base_model, tuned_models, recipe)
        threads = threads_to_build(
            base_model,
            chunk_bits,
            _BUFFER_BYTES_PER_WORD,
            threads,
            max_memory,
            neighbours=ranks.neighbours,
        )
        with Workers(threads, ranks) as workers:
            candidates = find_merge_candidates(base_model, tuned_models, recipe)
            plan = _plan(base_model, tuned_models, recipe, candidates, workers.threads, chunk_bits)
            if dry_run:
                return BuildReport(plan, None)
            provenance = {"kind": "build", "tool": tool(), "recipe": recipe.to_json()}
            source = MergeChanges(vectors, recipe, candidates, provenance, workers, 1 << chunk_bits)
            masks = drop_masks(vectors, recipe)
            patch = compile_patch(
                Path(out), base_model, source, workers, chunk_bits, "build", progress, codec,
                tensor_masks({tensor.name: masks for tensor in candidates}),
            )  # fmt: skip
        return BuildReport(plan, patch)


def _plan(
    base: Checkpoint,
    tuned: list[Checkpoint],
    recipe: MergeRecipe,
    candidates: list[TensorInfo],
    threads: int,
    chunk_bits: int,
) -> BuildPlan:
    candidate_words = sum(tensor.words for tensor in candidates)
    selected = min(candidate_words, len(tuned) * _most_kept(recipe, candidates))
    base_bytes = sum(tensor.nbytes for tensor in candidates)
    tuned_bytes = sum(model.tensors[t.name].nbytes for model in tuned for t in candidates)
    read_bytes = base.nbytes + tuned_bytes
    counts_majority = recipe.method == "ties" and len(tuned) > 1
    if counts_majority:
        read_bytes += base_bytes + tuned_bytes
    if recipe.method in ("ties", "magnitude") and 0 < recipe.share < 1:
        most = max((t.words for t in candidates), default=0)
        marks_again = expected_reads(most if recipe.scope == "tensor" else candidate_words) - 1
        reads = 1 + marks_again * (2 if counts_majority else 1)
        read_bytes += reads * (len(tuned) * base_bytes + tuned_bytes)
    return BuildPlan(
        candidates=tuple(tensor.name for tensor in candidates),
        candidate_words=candidate_words,
        model_words=sum(tensor.words for tensor in base.tensors.values()),
        selected=selected,
        patch_bytes=expected_patch_bytes(base, candidates, selected, chunk_bits),
        memory_bytes=RUNTIME_BYTES + threads * _BUFFER_BYTES_PER_WORD * (1 << chunk_bits),
        read_bytes=read_bytes,
    )


def _most_kept(recipe: MergeRecipe, candidates: list[TensorInfo]) -> int:
    """How many entries of one task vector can be kept at most."""
    if recipe.method == "dare":
        return sum(most_retained(recipe.share, tensor.words) for tensor in candidates)
    return math.floor(recipe.share * sum(tensor.words for tensor in candidates))
