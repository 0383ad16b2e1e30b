"""Compiles a base and tuned models into a patch by merging their task vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint, refuse_quantised
from patchc.compiler.steps import Codec, check_patch_output, compile_steps
from patchc.errors import UsageError
from patchc.patching.tensor_sides import unchanged_pairs
from patchc.paths import PathLike, listed
from patchc.recipe import MergeRecipe
from patchc.recipe.renames import Renames
from patchc.runtime.memory import need_to_build
from patchc.runtime.runtime import Runtime
from patchc.selection.compact.checkpoint import bytes_to_read
from patchc.selection.component_record import read_records
from patchc.selection.mask_table import tensor_masks
from patchc.selection.task_merge.changes import MergeChanges
from patchc.selection.task_merge.merge_candidates import find_merge_candidates
from patchc.selection.task_merge.task_vectors import drop_masks, open_task_vectors, open_tuned
from patchc.selection.topk.search import expected_reads
from patchc.verbs.build_plan import (
    BUFFER_BYTES_PER_WORD,
    BuildPlan,
    most_retained,
    plan_build,
)
from patchc.verbs.patch_reports import BuildReport, facts_of
from patchc.verbs.provenance import tool


def build_merge(
    base: PathLike,
    tuned: PathLike | Sequence[PathLike],
    out: Path,
    recipe: MergeRecipe,
    renames: Renames,
    dry_run: bool,
    chunk_bits: int,
    codec: Codec,
    runtime: Runtime,
) -> BuildReport:
    """Merge the task vectors of one or more tuned models; :func:`patchc.build` has the contract."""
    tuned = listed(tuned)
    if not tuned:
        raise UsageError(f"{recipe.method} needs at least one tuned model; name it with --tuned")
    with ExitStack() as inputs:
        base_model = inputs.enter_context(open_checkpoint(base))
        refuse_quantised(base_model)
        records = read_records(base_model, [("tuned", one) for one in tuned])
        tuned_models = open_tuned(inputs, base_model, tuned, recipe, renames)
        models = [base_model, *tuned_models]
        check_patch_output(out, tuple(model.path for model in models), chunk_bits)
        chunk_words = 1 << chunk_bits
        vectors = open_task_vectors(base_model, tuned_models, recipe, runtime.buffers)
        runtime.fit(need_to_build(base_model, chunk_words, BUFFER_BYTES_PER_WORD))
        inputs.enter_context(runtime)
        candidates = find_merge_candidates(base_model, tuned_models, recipe)
        plan = _plan(base_model, tuned_models, recipe, candidates, chunk_words, runtime)
        report = partial(
            BuildReport,
            recipe=recipe,
            plan=plan,
            dry_run=dry_run,
            notes=records.notes,
            left_aside=base_model.left_aside,
        )
        if dry_run:
            return report(**facts_of(out, None))
        check = records.checks_of(base_model, chunk_words, runtime)
        provenance = {
            "kind": "build",
            "tool": tool(),
            "recipe": recipe.to_json(),
            **renames.to_json(),
        }
        source = MergeChanges(vectors, recipe, candidates, provenance, runtime, chunk_words)
        masks = drop_masks(vectors, recipe)
        table = tensor_masks({tensor.name: masks for tensor in candidates})
        pairs = unchanged_pairs(base_model)
        patch = compile_steps(
            out, pairs, source, chunk_words, "build", runtime, codec, table, check=check
        )
        return report(**facts_of(out, patch))


def _plan(
    base: Checkpoint,
    tuned: list[Checkpoint],
    recipe: MergeRecipe,
    candidates: list[TensorInfo],
    chunk_words: int,
    runtime: Runtime,
) -> BuildPlan:
    candidate_words = sum(tensor.words for tensor in candidates)
    selected = len(tuned) * _most_retained(recipe, candidates)
    base_bytes = sum(tensor.nbytes for tensor in candidates)
    tuned_bytes = sum(bytes_to_read(model, t.name) for model in tuned for t in candidates)
    read_bytes = base.nbytes + tuned_bytes
    counts_majority = recipe.method == "ties" and len(tuned) > 1
    if counts_majority:
        read_bytes += base_bytes + tuned_bytes
    if recipe.method in ("ties", "magnitude") and 0 < recipe.share < 1:
        most = max((t.words for t in candidates), default=0)
        reads_to_mark = expected_reads(most if recipe.scope == "tensor" else candidate_words) - 1
        reads = 1 + reads_to_mark * (2 if counts_majority else 1)
        read_bytes += reads * (len(tuned) * base_bytes + tuned_bytes)
    return plan_build(base, candidates, selected, read_bytes, chunk_words, runtime)


def _most_retained(recipe: MergeRecipe, candidates: list[TensorInfo]) -> int:
    """The most entries of one task vector that can be retained."""
    if recipe.method == "dare":
        return sum(most_retained(recipe.share, tensor.words) for tensor in candidates)
    return math.floor(recipe.share * sum(tensor.words for tensor in candidates))
