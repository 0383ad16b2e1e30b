"""Say which of several patches a model holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchc.checkpoint import Checkpoint
from patchc.errors import UsageError, WrongBaseError
from patchc.formats import Patch, open_patch
from patchc.hub_models import takes_models
from patchc.patching.file_changes import FileChanges
from patchc.patching.in_place_journal import interrupted, left_journal
from patchc.patching.left_alone import SideFile, named
from patchc.patching.model_of_patch import open_for_patch
from patchc.patching.sightings import Sighting, look_for
from patchc.paths import PathLike, listed
from patchc.progress import Progress, ignore_progress
from patchc.runtime.memory import need_to_patch
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side
from patchc.verbs.verify import find_report

HeldState = Literal["patched", "base", "before", "partly patched", "neither", "unknown"]


@dataclass(frozen=True)
class PatchStatus:
    """What a model is for one patch.

    Attributes:
        path: the patch file.
        root: its root digest, in hexadecimal.
        state: "patched" if the model holds the patch; "base" if it is the patch's base; "before" if
            it is what an earlier patch of the chain is for; "partly patched"; "neither"; or
            "unknown" for an additive patch, unless the model is its base. Side files count where
            the patch changes nothing else.
        through: the patches of the chain that tell, nearest first: the later ones that the model
            holds too, or the earlier ones that come first. Empty where the model's own digest
            tells.
        difference: for "neither", the first tensor or file that differs, and how.
        side_files: for "base", "before" and "patched": the changing side files that are not so, and
            what they are; without those that the patches in ``through`` change too.
    """

    path: Path
    root: str
    state: HeldState
    through: tuple[Path, ...] = ()
    difference: str = ""
    side_files: tuple[SideFile, ...] = ()


@dataclass(frozen=True)
class StatusReport:
    """Which patches a model holds.

    Attributes:
        model: its folder or file.
        patches: one for each patch, in the order given.
        interrupted: the message about a run in place that was cut off there; empty if none was.
    """

    model: Path
    patches: tuple[PatchStatus, ...]
    interrupted: str = ""


@takes_models("model")
def status(
    model: str | os.PathLike[str],
    patches: PathLike | Sequence[PathLike],
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    progress: Progress = ignore_progress,
) -> StatusReport:
    """Say which of some patches a model holds, from digests alone where they tell.

    The model is read once for all patches with chunks of one size, and once more for a patch that
    it may hold in part. Patches that follow one another, by the digests of their models, tell of
    one another: the result of the second one holds the first one too.

    Args:
        model: a checkpoint folder or safetensors file.
        patches: patch files in any order, or one.
        threads: worker threads; None means one per core.
        max_memory: bytes that the process may take, to within a tenth; it limits the threads.
        progress: called with the bytes read.

    Raises:
        UsageError: no patch is given.
        PatchFormatError, UnsupportedPatchError: a patch is damaged or not readable.
        CheckpointError, UnsupportedInputError: the model cannot be read.
        ResultMismatchError: a patch's own digests contradict each other.
    """
    paths = listed(patches)
    if not paths:
        raise UsageError("status needs at least one patch; name the patches to look for")
    with ExitStack() as inputs:
        opened = [inputs.enter_context(open_patch(path)) for path in paths]
        views = _open_views(model, opened, inputs)
        checkpoint = views[0]
        runtime = inputs.enter_context(Runtime(threads, max_memory, progress=progress))
        runtime.fit(max(map(need_to_patch, opened), key=lambda need: need.thread_bytes))
        left = inputs.enter_context(left_journal(checkpoint.path))
        found = _Findings(views, _look_for(opened, views, runtime))
        found.tell_by_digests()
        found.tell_by_chains()
        own = left.group.root if left else None
        found.tell_by_reading(own, runtime)
        found.tell_by_chains()
        for view in set(views):
            view.check_unchanged()
        cut_off = str(interrupted(checkpoint.path, left.group)) if left else ""
        return StatusReport(checkpoint.path, found.statuses(), cut_off)


def _open_views(model: PathLike, patches: Sequence[Patch], inputs: ExitStack) -> list[Checkpoint]:
    """Open a model for each patch; patches that cover the same files of it share one."""
    views: dict[tuple[str, ...], Checkpoint] = {}
    found = []
    for patch in patches:
        view = open_for_patch(model, patch)
        files = tuple(view.shards)
        if files in views:
            with view:  # close it
                found.append(views[files])
        else:
            found.append(inputs.enter_context(view))
            views[files] = view
    return found


def _look_for(
    patches: Sequence[Patch], views: Sequence[Checkpoint], runtime: Runtime
) -> list[Sighting]:
    """Look for the patches in their views of the model, of which each is read once."""
    sightings: dict[int, Sighting] = {}
    for view in dict.fromkeys(views):
        places = [place for place, one in enumerate(views) if one is view]
        found = look_for([patches[place] for place in places], view, runtime)
        sightings |= zip(places, found, strict=True)
    return [sightings[place] for place in range(len(patches))]


class _Findings:
    """What is known of each patch, by its place; the steps that tell more come in turn."""

    def __init__(self, models: Sequence[Checkpoint], sightings: Sequence[Sighting]) -> None:
        self._models = models
        self._sightings = sightings
        self._patches = [one.patch for one in sightings]
        self._differences = [one.difference for one in sightings]
        self._states: dict[int, HeldState] = {}
        self._through: dict[int, tuple[int, ...]] = {}
        self._files = [FileChanges(*pair) for pair in zip(self._patches, models, strict=True)]
        self._apart: dict[int, tuple[SideFile, ...]] = {}

    def tell_by_digests(self) -> None:
        """Compare the model's digest, and the files that a patch changes."""
        for place, (patch, sighting) in enumerate(zip(self._patches, self._sightings, strict=True)):
            index = patch.index
            if patch.additive:
                at_base = sighting.digest == index.base_digest
                self._states[place] = "base" if at_base else "unknown"
                continue
            for side in self._sides(place):
                if self._files[place].are_on(side):
                    self._tell(place, side)
                    break

    def tell_by_chains(self) -> None:
        """Find the patches before those that the model holds, and after those that it does not."""
        waiting = list(self._states)
        while waiting:
            place = waiting.pop(0)
            for other, state in self._neighbours(place):
                if other not in self._states and self._tell_through(other, state, place):
                    waiting.append(other)

    def tell_by_reading(self, interrupted_root: str | None, runtime: Runtime) -> None:
        """Read the model once more for each patch that it may hold in part.

        Where its digest tells and no chain does, its files are not all on that side.
        """
        for place, patch in enumerate(self._patches):
            cut_off = patch.root.hex() == interrupted_root
            if place in self._states or (self._differences[place] and not cut_off):
                continue
            if self._sides(place):
                self._tell_by_files(place)
                continue
            report = find_report(patch, self._models[place], runtime)
            if report.state in ("base", "patched", "partly patched"):
                self._states[place] = report.state
            self._differences[place] = report.difference

    def _sides(self, place: int) -> list[Side]:
        """The sides that have the model's weights."""
        digest, index = self._sightings[place].digest, self._patches[place].index
        return [side for side in OTHER if digest == index.digest_on(side)]

    def _tell(self, place: int, side: Side) -> None:
        self._states[place] = "base" if side == "base" else "patched"
        self._apart[place] = self._files[place].apart(side)

    def _tell_by_files(self, place: int) -> None:
        files, sides = self._files[place], self._sides(place)
        try:
            side = files.side_with(sides[0] if len(sides) == 1 else None)
        except WrongBaseError as error:
            self._differences[place] = str(error)
            return
        apart = files.apart(side or "base")
        if side is None and any(one.refused for one in apart):
            self._differences[place] = f"side files differ: {named(apart)}"
        else:
            self._tell(place, side or "base")

    def statuses(self) -> tuple[PatchStatus, ...]:
        """Put together what was found."""
        return tuple(
            PatchStatus(
                patch.path,
                patch.root.hex(),
                state := self._states.get(place, "neither"),
                tuple(self._patches[one].path for one in self._through.get(place, ())),
                self._differences[place] if state == "neither" else "",
                self._apart.get(place, ()),
            )
            for place, patch in enumerate(self._patches)
        )

    def _neighbours(self, place: int) -> Iterable[tuple[int, HeldState]]:
        """Name the patches next to one in a chain, and what its state tells of them."""
        state, patch = self._states[place], self._patches[place]
        for other, one in enumerate(self._patches):
            if state in ("base", "patched", "partly patched") and _follows(patch, one):
                yield other, "patched"
            if state in ("base", "before", "partly patched") and _follows(one, patch):
                yield other, "before"

    def _tell_through(self, place: int, state: HeldState, nearest: int) -> bool:
        """Tell a patch's state by the next one, if the files that it alone changes agree."""
        through = (nearest, *self._through.get(nearest, ()))
        patches = (self._patches[one] for one in through)
        others = {file.name for patch in patches for file in patch.index.files}
        files = self._files[place]
        side: Side = "result" if state == "patched" else "base"
        if not files.are_on(side, others):
            return False
        self._states[place], self._through[place] = state, through
        self._apart[place] = files.apart(side, others)
        return True


def _follows(patch: Patch, before: Patch) -> bool:
    """Whether a patch begins where the one before it ends: in its tensors, and its files."""
    grids = patch.chunk_words == before.chunk_words
    if before.additive or not grids or patch.index.base_digest != before.index.result_digest:
        return False
    left = {file.name: file for file in before.index.files}
    return all(
        left[file.name].on("result") == file.on("base")
        and left[file.name].digest_on("result") == file.digest_on("base")
        for file in patch.index.files
        if file.name in left
    )
