"""The entries that a build with a recipe would change, gathered from base and tuned models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint, refuse_quantised
from patchc.chunks import grid
from patchc.errors import UsageError
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.patching.digest import digest_checkpoint
from patchc.progress import Progress, ProgressEvent
from patchc.recipe import MergeRecipe, Recipe
from patchc.runtime.workers import Workers
from patchc.selection.safepatching.changes import SafePatchingChanges
from patchc.selection.safepatching.component import Component, ComponentName
from patchc.selection.safepatching.inputs import find_candidates, open_components
from patchc.selection.selected_entries import TensorEntries, gather
from patchc.selection.task_merge.changes import MergeChanges
from patchc.selection.task_merge.merge_candidates import find_merge_candidates
from patchc.selection.task_merge.task_vectors import open_task_vectors

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Sources:
    """The models of a build: SafePatching's two with their scores beside them, or tuned ones."""

    base: Path
    se: Path | None = None
    osm: Path | None = None
    tuned: tuple[Path, ...] = ()

    def named(self) -> dict[str, Path]:
        """Every model that is given, by what it is."""
        given = {"base": self.base, "se": self.se, "osm": self.osm}
        given |= {f"tuned {number}": path for number, path in enumerate(self.tuned)}
        return {name: path for name, path in given.items() if path is not None}

    def digests(self, recipe: Recipe | MergeRecipe, workers: Workers) -> dict[str, str]:
        """The digest of every model, and of the scores that the recipe reads, in hexadecimal.

        Raises:
            UsageError, MismatchError, UnsupportedInputError, CheckpointError: as a build.
        """
        found = {}
        for name, path in self.named().items():
            with open_checkpoint(path) as model:
                found[name] = digest_checkpoint(model, workers).hex()
        if isinstance(recipe, Recipe):
            with ExitStack() as stack:
                for part in self.components(stack, recipe):
                    found[f"{part.name} scores"] = digest_checkpoint(part.scores, workers).hex()
        return found

    def components(self, stack: ExitStack, recipe: Recipe) -> tuple[Component, ...]:
        """SafePatching's components with their scores, open as long as the stack is.

        Raises:
            UsageError, MismatchError, UnsupportedInputError, CheckpointError: as a build.
        """
        paths: dict[ComponentName, tuple[PathLike | None, None]] = {
            "se": (self.se, None),
            "osm": (self.osm, None),
        }
        return open_components(stack, recipe, paths)


@dataclass(frozen=True)
class Gathering:
    """The components that have a scale, and the entries of each tensor that takes part."""

    components: tuple[str, ...]
    entries: Mapping[str, TensorEntries]

    @property
    def nbytes(self) -> int:
        """What the entries hold in memory."""
        return sum(each.found.nbytes for each in self.entries.values())


def gather_entries(
    base: Checkpoint,
    sources: Sources,
    recipe: Recipe | MergeRecipe,
    workers: Workers,
    progress: Progress,
) -> Gathering:
    """Select as :func:`patchc.build` does, and keep what is selected.

    Raises:
        UsageError, MismatchError, UnsupportedInputError, CheckpointError, NumericError: as
            :func:`patchc.build`.
    """
    refuse_quantised(base.path, tuple(base.tensors))
    with ExitStack() as stack:
        if isinstance(recipe, MergeRecipe):
            found = _gather_merge(stack, base, sources, recipe, workers, progress)
        else:
            found = _gather_safepatching(stack, base, sources, recipe, workers, progress)
    if not any(len(each.found.base) for each in found.entries.values()):
        raise UsageError("the recipe selects no entry at all; raise its densities")
    return found


def _gather_safepatching(
    stack: ExitStack,
    base: Checkpoint,
    sources: Sources,
    recipe: Recipe,
    workers: Workers,
    progress: Progress,
) -> Gathering:
    components = sources.components(stack, recipe)
    candidates = find_candidates(base, components, recipe)
    names = frozenset(tensor.name for tensor in candidates)
    words = 1 << DEFAULT_CHUNK_BITS
    changes = SafePatchingChanges(base, components, recipe, names, {}, workers, words)
    entries = {}
    for tensor in _told(candidates, progress):
        selected = changes.open_candidate(tensor, grid(tensor.words, words))
        codes = np.array([part.tuned.tensors[tensor.name].dtype.code for part in components])
        found = gather(tensor, selected, codes, words, workers)
        entries[tensor.name] = TensorEntries(tensor, found, codes, recipe)
    return Gathering(tuple(part.name for part in components), entries)


def _gather_merge(
    stack: ExitStack,
    base: Checkpoint,
    sources: Sources,
    recipe: MergeRecipe,
    workers: Workers,
    progress: Progress,
) -> Gathering:
    if not sources.tuned:
        raise UsageError(f"{recipe.method} needs at least one tuned model; name it with --tuned")
    tuned = [stack.enter_context(open_checkpoint(path)) for path in sources.tuned]
    for model in tuned:
        refuse_quantised(model.path, tuple(model.tensors))
    vectors = open_task_vectors(base, tuned, recipe)
    candidates = find_merge_candidates(base, tuned, recipe)
    words = 1 << DEFAULT_CHUNK_BITS
    changes = MergeChanges(vectors, recipe, candidates, {}, workers, words)
    elects = recipe.method == "ties"
    entries = {}
    for tensor in _told(candidates, progress):
        selected = changes.open_candidate()
        codes = np.array([model.tensors[tensor.name].dtype.code for model in tuned])
        found = gather(tensor, selected, codes, words, workers, keep_zeros=False)
        if not len(found.base):
            continue
        own = recipe.for_tensor(tensor.name)
        weights = own.weights(len(tuned)) if elects else ()
        entries[tensor.name] = TensorEntries(
            tensor, found, codes, own, selected.majority if elects else 0, weights
        )
    names = ("lambda",) if elects else tuple(vector.name for vector in vectors)
    return Gathering(names, entries)


def _told(candidates: Sequence[TensorInfo], progress: Progress) -> Iterator[TensorInfo]:
    """The candidates one by one, each told when it is done."""
    for done, tensor in enumerate(candidates, start=1):
        yield tensor
        progress(ProgressEvent("select", done, len(candidates), "tensors"))
