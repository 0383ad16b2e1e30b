"""The models that a recipe is fitted on, and the entries that a build with it would change.

SafePatching builds from two components, one for safety enhancement (SE) and one for over-safety
mitigation (OSM), each a tuned model with importance scores; a merge builds from tuned models alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from patchc.checkpoint import Checkpoint, open_checkpoint, refuse_adapter_beside, refuse_quantised
from patchc.chunks import grid
from patchc.errors import UsageError
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.patching.digest import digest_checkpoint
from patchc.paths import PathLike, listed
from patchc.recipe import MergeRecipe, Recipe
from patchc.runtime.runtime import Runtime
from patchc.selection.compact.component_folder import CompactComponent, is_compact
from patchc.selection.component_record import read_records
from patchc.selection.safepatching.changes import SafePatchingChanges
from patchc.selection.safepatching.component import Component
from patchc.selection.safepatching.inputs import find_candidates, open_components
from patchc.selection.selected_entries import TensorEntries, gather
from patchc.selection.task_merge.changes import MergeChanges
from patchc.selection.task_merge.merge_candidates import find_merge_candidates
from patchc.selection.task_merge.task_vectors import open_task_vectors, open_tuned

AnyRecipe = Recipe | MergeRecipe


@dataclass(frozen=True)
class Sources:
    """The models of a build: the base, and the tuned models.

    SafePatching takes ``se`` and ``osm``, with scores beside their weights; a merge takes
    ``tuned``.
    """

    base: Path
    se: Path | None = None
    osm: Path | None = None
    tuned: tuple[Path, ...] = ()

    @classmethod
    def of(
        cls,
        base: PathLike,
        se: PathLike | None,
        osm: PathLike | None,
        tuned: PathLike | Sequence[PathLike],
    ) -> Sources:
        """Make sources of the arguments that :func:`patchc.build` takes."""
        se, osm = Path(se) if se else None, Path(osm) if osm else None
        return cls(Path(base), se, osm, tuple(listed(tuned)))

    def named(self) -> dict[str, Path]:
        """Return the given models, by the names that their digests get."""
        given = {"base": self.base, "se": self.se, "osm": self.osm}
        given |= {f"tuned {number}": path for number, path in enumerate(self.tuned)}
        return {name: path for name, path in given.items() if path is not None}

    def check_searched(self, shares: Sequence[str]) -> None:
        """Refuse to search a share that a compact component holds one value of.

        Raises:
            UsageError: "retain" or "density" is among the shares.
        """
        for share in {"retain", "density"} & set(shares):
            for path in self.named().values():
                if is_compact(path):
                    raise UsageError(
                        f"{share} cannot be searched: {path} is a compact component, which holds "
                        "the entries of one share alone; leave it out of the search, or derive "
                        "whole models (without --for and --retain)"
                    )

    def digests(
        self, recipes: Sequence[AnyRecipe], runtime: Runtime, scores_name: str = "{} scores"
    ) -> dict[str, str]:
        """Compute the digest of every model, and of all scores that recipes read, in hexadecimal.

        ``scores_name`` is formatted with the component and the kind of scores.

        Raises:
            UsageError, MismatchError, UnsupportedInputError, CheckpointError: as a build.
        """
        found: dict[str, str] = {}
        with open_checkpoint(self.base) as base:
            refuse_adapter_beside(self.base)
            for name, path in self.named().items():
                compact = CompactComponent.open(path, base).tuned() if is_compact(path) else None
                with compact or open_checkpoint(path) as model:
                    refuse_quantised(model)
                    found[name] = digest_checkpoint(model, runtime).hex()
            derived = [(name, path) for name, path in self.named().items() if name != "base"]
            read_records(base, derived).check_digest(found["base"])
        for recipe in recipes:
            if isinstance(recipe, MergeRecipe):
                continue
            with ExitStack() as stack:
                base = stack.enter_context(open_checkpoint(self.base))
                for component in self.components(stack, base, recipe, runtime):
                    name = scores_name.format(component.name, recipe.score)
                    if name not in found:
                        found[name] = digest_checkpoint(component.scores, runtime).hex()
        return found

    def components(
        self, stack: ExitStack, base: Checkpoint, recipe: Recipe, runtime: Runtime
    ) -> tuple[Component, ...]:
        """Open SafePatching's components with their scores, for as long as the stack is open.

        Raises:
            UsageError, MismatchError, UnsupportedInputError, CheckpointError: as a build.
        """
        return open_components(
            stack, base, recipe, {"se": (self.se, None), "osm": (self.osm, None)}, runtime.buffers
        )


@dataclass(frozen=True)
class Gathering:
    """The components that have a scale, and the entries of each tensor that takes part."""

    components: tuple[str, ...]
    entries: Mapping[str, TensorEntries]


def gather_entries(
    base: Checkpoint, sources: Sources, recipe: AnyRecipe, runtime: Runtime
) -> Gathering:
    """Select entries as :func:`patchc.build` does, and read them into memory.

    Raises:
        UsageError, MismatchError, UnsupportedInputError, CheckpointError, NumericError: as
            :func:`patchc.build`.
    """
    with ExitStack() as stack:
        if isinstance(recipe, MergeRecipe):
            found = _gather_merge(stack, base, sources, recipe, runtime)
        else:
            found = _gather_safepatching(stack, base, sources, recipe, runtime)
    if not any(len(each.found.base) for each in found.entries.values()):
        raise UsageError("the recipe selects no entry at all; raise its densities")
    return found


def _gather_safepatching(
    stack: ExitStack, base: Checkpoint, sources: Sources, recipe: Recipe, runtime: Runtime
) -> Gathering:
    components = sources.components(stack, base, recipe, runtime)
    candidates = find_candidates(base, components, recipe)
    words = 1 << DEFAULT_CHUNK_BITS
    changes = SafePatchingChanges(base, components, recipe, candidates, {}, runtime, words)
    task = runtime.task("select", len(candidates), "tensors")
    entries = {}
    for tensor in candidates:
        selected = changes.open_candidate(tensor, grid(tensor.words, words))
        found = gather(tensor, selected, words, runtime)
        entries[tensor.name] = TensorEntries(tensor, found, selected.tuned.codes, recipe)
        task.advance(1)
    return Gathering(tuple(one.name for one in components), entries)


def _gather_merge(
    stack: ExitStack, base: Checkpoint, sources: Sources, recipe: MergeRecipe, runtime: Runtime
) -> Gathering:
    if not sources.tuned:
        raise UsageError(f"{recipe.method} needs at least one tuned model; name it with --tuned")
    tuned = open_tuned(stack, base, sources.tuned, recipe)
    vectors = open_task_vectors(base, tuned, recipe, runtime.buffers)
    candidates = find_merge_candidates(base, tuned, recipe)
    words = 1 << DEFAULT_CHUNK_BITS
    changes = MergeChanges(vectors, recipe, candidates, {}, runtime, words)
    elects = recipe.method == "ties"
    task = runtime.task("select", len(candidates), "tensors")
    entries = {}
    for tensor in candidates:
        selected = changes.next_merger()
        codes = selected.tuned.codes
        found = gather(tensor, selected, words, runtime, keep_zeros=False)
        if len(found.base):
            own = recipe.for_tensor(tensor.name)
            election = (selected.majority, own.weights(len(tuned))) if elects else ()
            entries[tensor.name] = TensorEntries(tensor, found, codes, own, *election)
        task.advance(1)
    names = ("lambda",) if elects else tuple(vector.name for vector in vectors)
    return Gathering(names, entries)
