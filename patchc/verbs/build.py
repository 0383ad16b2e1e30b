"""Compile a base, two tuned models and their scores into a patch."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint, refuse_quantised
from patchc.dtypes import MERGEABLE
from patchc.errors import MismatchError, UnsupportedInputError, UsageError
from patchc.formats import ValueType
from patchc.formats.additive import VALUE_TYPES
from patchc.formats.layout import DEFAULT_CHUNK_BITS
from patchc.progress import Progress, ignore_progress
from patchc.recipe import Recipe
from patchc.select.candidates import NameFilter
from patchc.select.safepatching import Component, SafePatchingChanges
from patchc.stream import Workers
from patchc.stream.additive import ScaledComponent, compile_additive
from patchc.stream.compile import CompiledPatch, check_patch_output, compile_patch
from patchc.verbs.provenance import tool

PathLike = str | os.PathLike[str]
Values = Literal["ulp", "additive"]

_BUFFER_BYTES_PER_WORD = 48  # all scratch buffers of one worker, with both deltas in fp32
_RUNTIME_BYTES = 160 << 20
_VALUE_BITS = {None: 2, "bf16": 16, "int8": 8 + 32 / 256}


@dataclass(frozen=True)
class BuildPlan:
    """What a build will do, known before anything heavy starts.

    Attributes:
        candidates: tensors that take part, sorted by name.
        candidate_words: their entries.
        model_words: entries of the whole model.
        selected: entries that the two top sets can hold at most.
        patch_bytes: expected size of the patch; for exact values, if the steps are a few units in
            the last place.
        memory_bytes: expected peak memory.
        read_bytes: bytes that will be read.
    """

    candidates: tuple[str, ...]
    candidate_words: int
    model_words: int
    selected: int
    patch_bytes: int
    memory_bytes: int
    read_bytes: int

    @property
    def density(self) -> float:
        """Expected share of the model's entries that change, an upper estimate."""
        return self.selected / self.model_words if self.model_words else 0.0


@dataclass(frozen=True)
class BuildReport:
    """A finished build: its plan, and what was written (None after a dry run)."""

    plan: BuildPlan
    patch: CompiledPatch | None


def build(
    base: PathLike,
    *,
    se: PathLike,
    osm: PathLike,
    out: PathLike,
    recipe: Recipe | None = None,
    se_scores: PathLike | None = None,
    osm_scores: PathLike | None = None,
    values: Values = "ulp",
    value_type: ValueType | None = None,
    dry_run: bool = False,
    threads: int | None = None,
    chunk_bits: int = DEFAULT_CHUNK_BITS,
    progress: Progress = ignore_progress,
) -> BuildReport:
    """Compile a SafePatching patch.

    The same inputs and recipe give the same file, for any number of threads. Memory does not grow
    with the model.

    Args:
        base: the aligned model, a checkpoint folder or safetensors file.
        se: the model tuned by gradient ascent, with the base's tensor names.
        osm: the model tuned by gradient descent.
        out: the patch file to write; must not exist.
        recipe: parameters of the selection; None means the defaults.
        se_scores, osm_scores: fp32 scores (folder or file); by default ``scores.safetensors``
            beside the tuned weights.
        values: "ulp" stores the exact steps from base to result; "additive" the deltas of each
            component before α and β, which apply can then scale anew or add to a descendant of the
            base. Additive patches cannot be reverted.
        value_type: of additive values: "bf16" (the default) or "int8", in blocks of 256.
        dry_run: check everything and return the plan; write nothing.
        threads: worker threads; None means one a core.
        chunk_bits: log2 of the words in a chunk of the patch's grid.
        progress: called with the parameters done.

    Raises:
        MismatchError: names, shapes or dtypes do not fit, or scores are missing.
        UnsupportedInputError: a quantised base, an adapter, or a base dtype that cannot be merged.
        CheckpointError: an input cannot be read, or its scores changed during the run.
        NumericError: a score, weight or merged value inside the selection is not finite.
        OutputError, StorageError: the patch cannot be written.
        UsageError: ``values``, ``value_type``, ``threads`` or ``chunk_bits`` are out of range.
    """
    recipe = recipe or Recipe()
    value_type = _check_values(values, value_type)
    with ExitStack() as inputs:
        base_model = inputs.enter_context(open_checkpoint(base))
        components = (
            _open_component(inputs, "se", se, se_scores, recipe, recipe.top_se, recipe.alpha),
            _open_component(inputs, "osm", osm, osm_scores, recipe, recipe.top_osm, recipe.beta),
        )
        refuse_quantised(base_model.path, tuple(base_model.tensors))
        opened = [c for part in components for c in (part.tuned, part.scores)]
        check_patch_output(Path(out), tuple(c.path for c in (base_model, *opened)), chunk_bits)
        with Workers(threads) as workers:
            candidates = _find_candidates(base_model, components, recipe)
            plan = _plan(
                base_model, components, candidates, workers.threads, chunk_bits, value_type
            )
            if dry_run:
                return BuildReport(plan, None)
            provenance = {
                "kind": "build",
                "tool": tool(),
                "method": "safepatching",
                "recipe": recipe.to_json(),
            }
            source = SafePatchingChanges(
                base_model, components, frozenset(plan.candidates), provenance, workers
            )
            if value_type:
                scaled = [ScaledComponent(part.name, part.scale) for part in components]
                patch = compile_additive(
                    Path(out), base_model, source, scaled, value_type, workers, chunk_bits, progress
                )
            else:
                patch = compile_patch(
                    Path(out), base_model, source, workers, chunk_bits, "build", progress
                )
        return BuildReport(plan, patch)


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


def _open_component(
    inputs: ExitStack,
    name: str,
    tuned: PathLike,
    scores: PathLike | None,
    recipe: Recipe,
    top: float,
    scale: float,
) -> Component:
    refuse_quantised(Path(tuned))
    return Component(
        name,
        inputs.enter_context(open_checkpoint(tuned)),
        inputs.enter_context(_open_scores(name, Path(tuned), scores)),
        recipe.retain,
        top,
        scale,
        recipe.seed,
    )


def _open_scores(name: str, tuned: Path, scores: PathLike | None) -> Checkpoint:
    if scores is not None:
        return open_checkpoint(scores, stem="scores")
    folder = tuned if tuned.is_dir() else tuned.parent
    beside = (folder / "scores.safetensors", folder / "scores.safetensors.index.json")
    if not any(path.exists() for path in beside):
        raise MismatchError(
            f"{folder}: no scores.safetensors beside the {name} model; derive it with "
            f"`patchc derive`, or name the scores with --{name}-scores"
        )
    return open_checkpoint(folder, stem="scores")


def _find_candidates(
    base: Checkpoint, components: tuple[Component, ...], recipe: Recipe
) -> list[TensorInfo]:
    names = NameFilter(recipe.include, recipe.exclude)
    candidates = []
    for name, tensor in base.tensors.items():
        if not names.matches(name):
            continue
        missing = [part for part in components if name not in part.scores.tensors]
        if not missing:
            _check_candidate(base, tensor, components)
            candidates.append(tensor)
        elif recipe.include:
            raise MismatchError(
                f"tensor {name!r} is included and has no scores in {missing[0].scores.path}; "
                "derive its scores, or narrow the include expressions"
            )
    for part in components:
        for name in part.scores.tensors:
            if name not in base.tensors:
                raise MismatchError(
                    f"{part.scores.path} scores tensor {name!r}, which {base.path} does not have; "
                    "were they derived from another base?"
                )
    if not candidates:
        raise MismatchError(
            f"no tensor of {base.path} has scores from both components and passes include and "
            "exclude; there is nothing to build"
        )
    return sorted(candidates, key=lambda tensor: tensor.name.encode())


def _check_candidate(
    base: Checkpoint, tensor: TensorInfo, components: tuple[Component, ...]
) -> None:
    if tensor.dtype.name not in MERGEABLE:
        raise UnsupportedInputError(
            f"{base.path}: tensor {tensor.name!r} is {tensor.dtype.name}; a build merges into "
            f"{', '.join(MERGEABLE)}. Exclude it"
        )
    for part in components:
        tuned = part.tuned.tensors.get(tensor.name)
        if tuned is None:
            raise MismatchError(f"{part.tuned.path}: tensor {tensor.name!r} is missing")
        scores = part.scores.tensors[tensor.name]
        for owner, info in ((part.tuned, tuned), (part.scores, scores)):
            if info.shape != tensor.shape:
                raise MismatchError(
                    f"{owner.path}: tensor {tensor.name!r} has shape {list(info.shape)} and the "
                    f"base's is {list(tensor.shape)}"
                )
        if tuned.dtype.name not in MERGEABLE:
            raise MismatchError(
                f"{part.tuned.path}: tensor {tensor.name!r} is {tuned.dtype.name}; tuned weights "
                f"must be {', '.join(MERGEABLE)}"
            )
        if scores.dtype.name != "F32":
            raise MismatchError(
                f"{part.scores.path}: tensor {tensor.name!r} is {scores.dtype.name}; scores are F32"
            )


def _plan(
    base: Checkpoint,
    components: tuple[Component, ...],
    candidates: list[TensorInfo],
    threads: int,
    chunk_bits: int,
    value_type: ValueType | None,
) -> BuildPlan:
    candidate_words = sum(tensor.words for tensor in candidates)
    selected = sum(
        min(math.floor(part.top * tensor.words), _most_retained(part.retain, tensor.words))
        for part in components
        for tensor in candidates
    )
    selected = min(selected, candidate_words)
    density = selected / candidate_words if candidate_words else 0.0
    gap_bits = max(1.0, math.log2(1 / density) + 1.5) if density else 0.0
    entry_bits = gap_bits + _VALUE_BITS[value_type]
    if value_type:
        entry_bits += math.log2(len(components))  # each component has positions of its own
    chunks = sum(-(-tensor.words >> chunk_bits) for tensor in base.tensors.values())
    tuned_bytes = sum(p.tuned.tensors[t.name].nbytes for p in components for t in candidates)
    return BuildPlan(
        candidates=tuple(tensor.name for tensor in candidates),
        candidate_words=candidate_words,
        model_words=sum(tensor.words for tensor in base.tensors.values()),
        selected=selected,
        patch_bytes=math.ceil(selected * entry_bits / 8) + 80 * chunks + 1000,
        memory_bytes=_RUNTIME_BYTES + threads * _BUFFER_BYTES_PER_WORD * (1 << chunk_bits),
        read_bytes=base.nbytes + tuned_bytes + 3 * len(components) * 4 * candidate_words,
    )


def _most_retained(retain: float, words: int) -> int:
    """A bound on the draws that retain: by Hoeffding, above it with probability below e⁻⁵⁰."""
    return min(words, math.ceil(retain * words + 5 * math.sqrt(words)))
