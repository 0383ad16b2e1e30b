"""What apply and revert share in place: a model taken to its other state where it lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from patchc.checkpoint import Checkpoint, InPlaceWriter, open_checkpoint
from patchc.errors import PatchcError, UnsupportedInputError, UsageError, WrongBaseError
from patchc.formats import Patch, open_patch
from patchc.patching.merge_options import MergeOptions, irreversible, plan_merge
from patchc.patching.pending import Pending, everything, find_pending, rewrite_pending
from patchc.patching.states import match_tensors
from patchc.progress import Progress
from patchc.runtime.memory import threads_to_patch
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.sides import Side


@dataclass(frozen=True)
class InPlaceReport:
    """What was written into a model's own files, or with ``dry_run`` may have to be.

    Attributes:
        model: the model.
        files: the files written into, symbolic links followed.
        nbytes: bytes of the chunks written.
        chunks: chunks written; 0 where the model already was what was asked for.
        chunks_kept: changing chunks that were as asked for before.
        tensors: tensors in the model.
        changed_tensors: tensors that the patch changes.
        changed_words: words that it changes.
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


def check_target(out: str | os.PathLike[str] | None, in_place: bool, ranks: Ranks = ALONE) -> None:
    """Refuse both an output and a run in place, and neither of them; and several ranks in place.

    Raises:
        UsageError: saying which.
    """
    if in_place and out is not None:
        raise UsageError("an output and a run in place exclude each other; give one of them")
    if not in_place and out is None:
        raise UsageError(
            "there is no output; give one (-o), or ask for a run in place (--in-place)"
        )
    if in_place and ranks.size > 1:
        raise UsageError(
            "a run in place is one process; start it without torchrun, or give an output (-o)"
        )


def change_in_place(
    patch_path: str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    *,
    revert: bool,
    options: MergeOptions | None = None,
    dry_run: bool,
    threads: int | None,
    max_memory: int | None,
    progress: Progress,
) -> InPlaceReport:
    """Take the model's own files to the other state; :func:`patchc.apply` states the contract.

    Raises:
        KeyboardInterrupt: the caller's own, with a message that says how the model was left.
    """
    target: Side = "base" if revert else "result"
    try:
        return _change(
            patch_path, model_path, target, options, dry_run, threads, max_memory, progress
        )
    except KeyboardInterrupt as error:
        left = "nothing was written" if dry_run else _left(Path(model_path), target)
        raise KeyboardInterrupt(left) from error


def _change(
    patch_path: str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    target: Side,
    options: MergeOptions | None,
    dry_run: bool,
    threads: int | None,
    max_memory: int | None,
    progress: Progress,
) -> InPlaceReport:
    with open_patch(patch_path) as patch, open_checkpoint(model_path) as model:
        _check_kind(patch, target == "base")
        plan_merge(patch, options or MergeOptions())
        match_tensors(patch, model)
        with Workers(threads_to_patch(patch, threads, max_memory)) as workers:
            if dry_run:
                pending = everything(patch, model, target)
            else:
                pending = _look(patch, model, target, workers, progress)
                if pending.kept:
                    model.sync()  # a run that was killed may not have come to it
            files: list[Path] = []
            if pending.chunks:
                with InPlaceWriter(model, pending.shards(model)) as writer:
                    files = list(writer.files.values())
                    if not dry_run:
                        _write(patch, model, pending, writer, workers, progress)
        return InPlaceReport(
            model=model.path,
            files=tuple(files),
            nbytes=pending.nbytes(patch),
            chunks=len(pending.chunks),
            chunks_kept=pending.kept,
            tensors=len(model.tensors),
            changed_tensors=sum(bool(record.chunks) for record in patch.index.records),
            changed_words=int(patch.index.entries.sum()),
            dry_run=dry_run,
        )


def _check_kind(patch: Patch, revert: bool) -> None:
    if patch.additive and revert:
        raise irreversible(patch)
    if patch.additive:
        raise UnsupportedInputError(
            f"{patch.path} holds additive values: a run in place could not be repeated after an "
            "interruption, for it would add them twice; write a copy with -o"
        )
    if patch.index.files or not patch.index.keeps_tensors:
        raise UnsupportedInputError(
            f"{patch.path} is an update that changes more than the values of tensors "
            f"({_first_change(patch)}); write a copy with -o, or compare with diff --weights-only"
        )


def _first_change(patch: Patch) -> str:
    for record in patch.index.records:
        if not record.is_plain:
            return f"tensor {record.name!r}"
    return f"file {patch.index.files[0].name!r}"


def _look(
    patch: Patch, model: Checkpoint, target: Side, workers: Workers, progress: Progress
) -> Pending:
    try:
        return find_pending(patch, model, target, workers, progress)
    except WrongBaseError as error:
        raise WrongBaseError(
            f"{error}. Nothing was written. If an earlier run in place was cut off, what it was "
            "writing is torn there: bring that file back from an intact copy of the base or of "
            "the result, and run again"
        ) from error


def _write(
    patch: Patch,
    model: Checkpoint,
    pending: Pending,
    writer: InPlaceWriter,
    workers: Workers,
    progress: Progress,
) -> None:
    try:
        rewrite_pending(patch, model, pending, writer.write_words, workers, progress)
    except PatchcError as error:
        raise type(error)(f"{error}; {_left(model.path, pending.target)}") from error


def _left(model: Path, target: Side) -> str:
    return (
        f"{model} may be partly patched; the same command, run again, goes on, and "
        f"{'apply' if target == 'base' else 'revert'} --in-place takes it back"
    )
