"""Applies or reverts a patch in a model's own files."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from patchc.checkpoint import Checkpoint, InPlaceWriter
from patchc.checkpoint.checkpoint import changed_meanwhile
from patchc.checkpoint.journal_path import journal_path
from patchc.checkpoint.own_place import refuse_foreign_place
from patchc.errors import PatchcError, UsageError, WrongBaseError
from patchc.formats import Patch
from patchc.patching.apply_report import ApplyReport
from patchc.patching.file_changes import FileChanges
from patchc.patching.in_place_journal import (
    InPlaceJournal,
    JournalImages,
    check_place,
    interrupted,
)
from patchc.patching.left_alone import CARDS_ALONE, SideFileOptions, note_left_alone
from patchc.patching.merge_options import MergeOptions, plan_merge
from patchc.patching.model_of_patch import open_for_patch
from patchc.patching.pending_chunks import Pending, check_in_place, everything, find_pending
from patchc.patching.pending_groups import COPIES, GROUP_BYTES, PendingGroups
from patchc.patching.rewrite import VERBS
from patchc.patching.states import match_tensors
from patchc.patching.torn_chunks import CopiedChunks, Images
from patchc.paths import PathLike
from patchc.runtime.memory import COPY_BYTES, need_to_patch
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side


@dataclass(frozen=True)
class InPlaceOptions:
    """What a caller of apply or revert may choose for a run in place.

    Attributes:
        dry_run: check everything but the contents, and write nothing.
        repair_from: an intact copy of the base or of the result, to restore torn chunks from.
        side_files: which of the side files that the patch changes may be left alone.
    """

    dry_run: bool = False
    repair_from: str | os.PathLike[str] | None = None
    side_files: SideFileOptions = CARDS_ALONE


def change_in_place(
    patch: Patch,
    model_path: PathLike,
    target: Side,
    merge: MergeOptions,
    options: InPlaceOptions,
    runtime: Runtime,
) -> ApplyReport:
    """Take the model's own files to side ``target``; :func:`patchc.apply` states the contract.

    Raises:
        KeyboardInterrupt: its message says how the model was left.
    """
    try:
        with open_for_patch(model_path, patch) as model, runtime:
            check_in_place(patch, target, options.side_files)
            plan_merge(patch, merge)
            refuse_foreign_place(model)
            match_tensors(patch, model)
            left_alone = FileChanges(patch, model, options.side_files).apart(target)
            need = need_to_patch(patch, 2 * GROUP_BYTES, COPIES)  # a group, and its images
            runtime.fit(replace(need, default_budget=COPY_BYTES))
            if options.dry_run:
                report = _foresee(patch, model, target)
            else:
                report = _write(patch, model, target, options.repair_from, runtime)
            note_left_alone(model.path, left_alone)
            return replace(report, left_alone=left_alone)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_interrupted(Path(model_path), target)) from error


def _interrupted(model: Path, target: Side) -> str:
    if os.path.lexists(journal_path(model)):
        return _left_behind(model, target)
    return f"nothing new was begun in {model}; verify tells its state"


def _foresee(patch: Patch, model: Checkpoint, target: Side) -> ApplyReport:
    pending = everything(patch, model, target)
    check_place(model.path)
    with InPlaceWriter(model, pending.shards(model)) as writer:
        return _report(patch, model, pending, writer, dry_run=True)


def _write(
    patch: Patch,
    model: Checkpoint,
    target: Side,
    repair_from: str | os.PathLike[str] | None,
    runtime: Runtime,
) -> ApplyReport:
    with InPlaceJournal(model.path, patch, target) as journal:
        try:
            return _change(patch, model, target, repair_from, journal, runtime)
        except PatchcError as error:
            if journal.begun:
                raise type(error)(f"{error}; {_left_behind(model.path, target)}") from error
            raise


def _change(
    patch: Patch,
    model: Checkpoint,
    target: Side,
    repair_from: str | os.PathLike[str] | None,
    journal: InPlaceJournal,
    runtime: Runtime,
) -> ApplyReport:
    model.lock()
    # Another run may have ended since the model was opened; what it left is looked at from here on.
    changed = [shard for shard in model.shards if model.restamp(shard)]
    with ExitStack() as opened:
        images: list[Images] = [journal.left] if journal.left else []
        if repair_from is not None:
            _check_copy(Path(repair_from), model.path)
            images.append(
                CopiedChunks(opened.enter_context(open_for_patch(repair_from, patch)), patch)
            )
        try:
            pending = find_pending(patch, model, target, runtime, images)
        except WrongBaseError as error:
            raise _explain(error, patch, model, journal.left, changed) from error
        if pending.done or journal.left:
            model.sync()  # a run that was killed may not have synced
        writer = opened.enter_context(InPlaceWriter(model, pending.shards(model)))
        groups = PendingGroups(patch, model, pending, writer, journal, runtime)
        groups.restore_torn()
        groups.write()
        journal.remove()
        return _report(patch, model, pending, writer)


def _check_copy(copy: Path, model: Path) -> None:
    if os.path.exists(copy) and copy.samefile(model):  # noqa: PTH110 (Path.exists may raise)
        raise UsageError(f"--repair-from {copy} is the model itself; give an intact copy of it")


def _report(
    patch: Patch,
    model: Checkpoint,
    pending: Pending,
    writer: InPlaceWriter,
    dry_run: bool = False,
) -> ApplyReport:
    # In place, both sides have the same tensors.
    changed_tensors, changed_words = patch.index.changes_on("result")
    return ApplyReport(
        model=model.path,
        out=None,
        in_place=True,
        dry_run=dry_run,
        files=tuple(writer.files.values()),
        nbytes=pending.nbytes(patch),
        chunks=len(pending.chunks),
        chunks_kept=pending.done,
        chunks_restored=len(pending.torn.places),
        left_aside=model.left_aside,
        tensors=len(model.tensors),
        changed_tensors=changed_tensors,
        changed_words=changed_words,
    )


def _explain(
    error: WrongBaseError,
    patch: Patch,
    model: Checkpoint,
    left: JournalImages | None,
    changed: list[str],
) -> PatchcError:
    model.check_unchanged()
    if changed:
        return changed_meanwhile(model.shards[changed[0]].path)
    if left and left.group.root != patch.root.hex():
        return interrupted(model.path, left.group)
    return WrongBaseError(f"{error}. Nothing was written")


def _left_behind(model: object, target: Side) -> str:
    return (
        f"{model} may be partly patched; the same command, run again, goes on, and "
        f"{VERBS[OTHER[target]]} --in-place takes it back"
    )
