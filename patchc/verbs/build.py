"""Compile a base and tuned models into a patch: SafePatching, or a merge of task vectors.

SafePatching has a component for safety enhancement (SE) and one for over-safety mitigation (OSM).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint, refuse_quantised
from patchc.compiler.additive_deltas import ScaledComponent, compile_additive
from patchc.compiler.steps import Codec, check_patch_output, compile_steps
from patchc.errors import UsageError
from patchc.formats import ValueType
from patchc.formats.container.additive_metadata import VALUE_TYPES
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.hub_models import takes_models
from patchc.patching.tensor_sides import unchanged_pairs
from patchc.paths import PathLike
from patchc.progress import Progress, ignore_progress
from patchc.recipe import MergeRecipe, Recipe, given_recipe
from patchc.recipe.renames import Renames
from patchc.recipe.safepatching import Scope
from patchc.runtime.device_pool import HOST_BYTES
from patchc.runtime.memory import largest_chunk, need_to_build
from patchc.runtime.ranks import shared_ranks
from patchc.runtime.runtime import Runtime
from patchc.selection.compact.checkpoint import bytes_to_read
from patchc.selection.component_record import read_records
from patchc.selection.mask_table import tensor_masks
from patchc.selection.safepatching.changes import SafePatchingChanges
from patchc.selection.safepatching.component import Component, ComponentName
from patchc.selection.safepatching.inputs import (
    components_read,
    find_candidates,
    open_components,
)
from patchc.selection.topk.search import expected_reads
from patchc.verbs.build_merge import build_merge
from patchc.verbs.build_plan import (
    BUFFER_BYTES_PER_WORD,
    BuildPlan,
    most_retained,
    plan_build,
)
from patchc.verbs.patch_reports import BuildReport, facts_of
from patchc.verbs.provenance import tool

if TYPE_CHECKING:
    import torch

Values = Literal["ulp", "additive"]


@takes_models("base", "se", "osm", "tuned")
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
    rename: str | Sequence[str] = (),
    values: Values = "ulp",
    value_type: ValueType | None = None,
    dry_run: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    chunk_bits: int = DEFAULT_CHUNK_BITS,
    codec: Codec = "auto",
    device: str | torch.device = "cpu",
    progress: Progress = ignore_progress,
) -> BuildReport:
    """Compile a patch: SafePatching by default, or the merge that a :class:`MergeRecipe` asks for.

    The same inputs and recipe give the same file, for any number of threads. Memory does not grow
    with the model.

    Args:
        base: the aligned model, or the one that the others were tuned from: a checkpoint folder or
            safetensors file.
        se: the SE model, tuned by gradient ascent, with the base's tensor names; needed unless the
            recipe's ``sets`` is "osm".
        osm: the OSM model, tuned by gradient descent; needed unless ``sets`` is "se".
        tuned: for a merge, one or more models with the base's tensor names and shapes. These, SE
            and OSM may be compact components that :func:`patchc.derive` made for the recipe's p and
            seed; the patch is the same.
        out: the patch file to write; must not exist.
        recipe: the method and its parameters; None means SafePatching's defaults.
        se_scores, osm_scores: fp32 scores (folder or file); by default the files of the recipe's
            kind beside the tuned weights (``scores.safetensors`` for "weight").
        rename: rules ``OLD=NEW`` for tuned models and scores that call the base's tensors by other
            names, as for :func:`patchc.diff`; the patch keeps the base's names. A tensor that a
            model does not have under its new name is taken under its own. Compact components have
            the base's names.
        values: "ulp" stores the exact steps from base to result. "additive" stores each component's
            deltas before the scales α and β, so that apply can choose others or add the deltas to a
            descendant of the base; it cannot be reverted. If overrides make scales differ by
            tensor, the deltas are stored scaled, and apply's α and β multiply them.
        value_type: of additive values: "bf16" (the default) or "int8", in blocks of 256.
        dry_run: check everything and return the plan; write nothing.
        threads: worker threads; None means one per core.
        max_memory: bytes that the process may take, to within a tenth; it limits the threads. None
            means 500 MB.
        chunk_bits: log2 of the words in a chunk of the patch's grid.
        codec: of exact steps: "auto" codes each chunk in the shorter way; "rice" so that the patch
            decodes alone.
        device: where SafePatching selects and merges: "cpu", "cuda", "cuda:1", a ``torch.device``,
            or "auto" (CUDA if torch finds a device). The file is the same. The CPU computes merges
            and the deltas of additive values.
        progress: called with the parameters done.

    Raises:
        UsageError: an input is missing or foreign to the method, the recipe has weights for another
            number of models, an override matches no candidate, a rule of ``rename`` is malformed or
            does not fit the names, an argument is out of range, or CUDA is asked for and there is
            no such device.
        MissingExtraError: CUDA is asked for, and torch or triton is not installed.
        MismatchError: names, shapes or dtypes do not fit, scores are missing, or the recipe needs
            entries that a compact component does not hold; or a component's record says that it is
            of another base or of the other direction.
        UnsupportedInputError: a model is quantised or an adapter, or a base's dtype cannot be
            merged.
        CheckpointError: an input or a component's record cannot be read, or changed during the run.
        NumericError: a score, weight or merged value inside the selection (in a merge: anywhere in
            a tensor that takes part) is not finite.
        OutputError, StorageError: the patch cannot be written.
    """
    out = Path(out)
    runtime = Runtime(threads, max_memory, device, shared_ranks(), progress)
    recipe = given_recipe(recipe)
    renames = Renames(rename)
    if isinstance(recipe, MergeRecipe):
        if values != "ulp":
            raise UsageError(f"values is {values!r:.80}, and {recipe.method} has exact ones only")
        _check_values(values, value_type)
        given = {"se": se, "osm": osm, "se_scores": se_scores, "osm_scores": osm_scores}
        _refuse_inputs(recipe.method, {k: v for k, v in given.items() if v is not None}, "tuned")
        runtime.check_device()
        return build_merge(base, tuned, out, recipe, renames, dry_run, chunk_bits, codec, runtime)
    _refuse_inputs("safepatching", {"tuned": tuned} if tuned else {}, "se and osm")
    value_type = _check_values(values, value_type)
    if value_type and recipe.least_step > 1:
        raise UsageError(
            "least_step counts steps of exact values, and additive ones have none; leave it out"
        )
    with ExitStack() as inputs:
        base_model = inputs.enter_context(open_checkpoint(base))
        refuse_quantised(base_model)
        paths: dict[ComponentName, tuple[PathLike | None, PathLike | None]] = {
            "se": (se, se_scores),
            "osm": (osm, osm_scores),
        }
        named = [(one, path) for one in components_read(recipe) if (path := paths[one][0])]
        records = read_records(base_model, named)
        components = open_components(inputs, base_model, recipe, paths, runtime.buffers, renames)
        opened = [c for one in components for c in (one.tuned, one.scores)]
        check_patch_output(out, tuple(c.path for c in (base_model, *opened)), chunk_bits)
        chunk_words = 1 << chunk_bits
        _fit(base_model, chunk_words, runtime)
        inputs.enter_context(runtime)
        candidates = find_candidates(base_model, components, recipe)
        plan = _plan(base_model, components, candidates, chunk_words, value_type, runtime)
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
        source = _source_type(runtime)(
            base_model, components, recipe, candidates, provenance, runtime, chunk_words
        )
        if value_type:
            scaled = [ScaledComponent(one.name, one.stated_scale()) for one in components]
            patch = compile_additive(
                out, base_model, source, scaled, value_type, chunk_words, runtime, check
            )
        else:
            names = [tensor.name for tensor in candidates]
            masks = tensor_masks({name: [one.mask(name) for one in components] for name in names})
            pairs = unchanged_pairs(base_model)
            patch = compile_steps(
                out, pairs, source, chunk_words, "build", runtime, codec, masks, check=check
            )
        return report(**facts_of(out, patch))


def _fit(base: Checkpoint, chunk_words: int, runtime: Runtime) -> None:
    """Choose the threads, and open the device where there is one."""
    pool = runtime.open_device()
    most = None
    if pool:
        from patchc.selection.safepatching.on_device import WORD_BYTES

        most = pool.most_threads(WORD_BYTES * largest_chunk(base, chunk_words))
    host_bytes = HOST_BYTES if pool else 0
    runtime.fit(need_to_build(base, chunk_words, BUFFER_BYTES_PER_WORD, host_bytes), most)


def _source_type(runtime: Runtime) -> type[SafePatchingChanges]:
    if runtime.pool is None:
        return SafePatchingChanges
    from patchc.selection.safepatching.on_device import DeviceChanges

    return DeviceChanges


def _refuse_inputs(method: str, foreign: Mapping[str, object], own: str) -> None:
    if foreign:
        raise UsageError(
            f"{next(iter(foreign))} is given, and {method} takes {own}; leave it out, or name the "
            "method that you mean with a recipe"
        )


def _check_values(values: str, value_type: str | None) -> ValueType | None:
    """The type of additive values; None for exact ones."""
    if values not in get_args(Values):
        raise UsageError(f"values is {values!r:.80}; it must be ulp or additive")
    if values == "ulp":
        if value_type is not None:
            raise UsageError("value_type is for additive values; exact ones have no choice")
        return None
    for known in VALUE_TYPES:
        if value_type in (known, None):
            return known
    raise UsageError(f"value_type is {value_type!r:.80}; it must be {' or '.join(VALUE_TYPES)}")


def _plan(
    base: Checkpoint,
    components: tuple[Component, ...],
    candidates: list[TensorInfo],
    chunk_words: int,
    value_type: ValueType | None,
    runtime: Runtime,
) -> BuildPlan:
    selected = sum(_most_selected(one, tensor) for one in components for tensor in candidates)
    every = sum(tensor.words for tensor in candidates)
    read_bytes = base.nbytes
    for one in components:
        for tensor in candidates:
            reads = _score_reads(one.recipe.scope, tensor.words, every)
            read_bytes += bytes_to_read(one.tuned, tensor.name)
            read_bytes += reads * bytes_to_read(one.scores, tensor.name)
    count = len(components)
    return plan_build(
        base, candidates, selected, read_bytes, chunk_words, runtime, value_type, count
    )


def _score_reads(scope: Scope, words: int, every: int) -> int:
    """How often the scores of a tensor are read, of so many words among those of ``every`` one."""
    if scope == "row":
        return 1
    return expected_reads(every if scope == "global" else words)


def _most_selected(component: Component, tensor: TensorInfo) -> int:
    top = component.top(tensor.name) * tensor.words
    if component.recipe.scope == "global":
        return math.ceil(top)
    return min(math.floor(top), most_retained(component.retain(tensor.name), tensor.words))
