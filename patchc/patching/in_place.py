"""Applies or reverts a patch in a model's own files, and reports what was written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from patchc.checkpoint import Checkpoint, InPlaceWriter, open_checkpoint
from patchc.formats import Patch, open_patch
from patchc.patching.merge_options import MergeOptions, plan_merge
from patchc.patching.pending_chunks import (
    check_in_place,
    everything,
    find_pending,
    left_behind,
    rewrite_pending,
)
from patchc.patching.states import match_tensors
from patchc.runtime.memory import need_to_patch
from patchc.runtime.runtime import Runtime
from patchc.sides import Side


@dataclass(frozen=True)
class InPlaceReport:
    """What was written into a model's own files, or with ``dry_run`` the most that would be.

    Attributes:
        model: the model.
        files: the files written into, symbolic links followed.
        nbytes: bytes of the chunks written.
        chunks: chunks written; 0 for a model that was on the target already.
        chunks_kept: changing chunks that were on the target already.
        tensors: tensors in the model.
        changed_tensors, changed_words: tensors and words that the patch changes.
        dry_run: nothing was written, and the model's contents were not read.
    """

    model: Path
    files: tuple[Path, ...]
    nbytes: int
    chunks: int
    chunks_kept: int
    tensors: int
    changed_tensors: int
    changed_words: int
    dry_run: bool


def change_in_place(
    patch_path: str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    target: Side,
    options: MergeOptions,
    dry_run: bool,
    runtime: Runtime,
) -> InPlaceReport:
    """Take the model's own files to side ``target``; :func:`patchc.apply` states the contract.

    Raises:
        KeyboardInterrupt: its message says how the model was left.
    """
    try:
        with open_patch(patch_path) as patch, open_checkpoint(model_path) as model, runtime:
            check_in_place(patch, target)
            plan_merge(patch, options)
            match_tensors(patch, model)
            runtime.fit(need_to_patch(patch))
            return _change(patch, model, target, dry_run, runtime)
    except KeyboardInterrupt as error:
        left = "nothing was written" if dry_run else left_behind(Path(model_path), target)
        raise KeyboardInterrupt(left) from error


def _change(
    patch: Patch, model: Checkpoint, target: Side, dry_run: bool, runtime: Runtime
) -> InPlaceReport:
    if dry_run:
        pending = everything(patch, model, target)
    else:
        pending = find_pending(patch, model, target, runtime)
        if pending.done:
            model.sync()  # a run that was killed may not have synced
    files: list[Path] = []
    if pending.chunks:
        with InPlaceWriter(model, pending.shards(model)) as writer:
            files = list(writer.files.values())
            if not dry_run:
                rewrite_pending(patch, model, pending, writer.write_words, runtime)
    return InPlaceReport(
        model=model.path,
        files=tuple(files),
        nbytes=pending.nbytes(patch),
        chunks=len(pending.chunks),
        chunks_kept=pending.done,
        tensors=len(model.tensors),
        changed_tensors=patch.index.changed_tensors,
        changed_words=patch.index.changed_words,
        dry_run=dry_run,
    )
