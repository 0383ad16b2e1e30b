"""What apply and revert share: a checked copy of a model in its other state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from patchc.checkpoint import Checkpoint, CheckpointCopy, open_checkpoint
from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
    OutputError,
    PartlyPatchedError,
    PatchcError,
    UnsupportedInputError,
    WrongBaseError,
)
from patchc.files import check_output, check_space, staged_file, staged_folder
from patchc.formats import Patch, open_patch
from patchc.progress import Progress
from patchc.stream import Workers
from patchc.stream.rewrite import OtherStateError, find_states, match_tensors, merge, rewrite
from patchc.verbs.merging import MergeOptions, MergeReport, plan_merge


@dataclass(frozen=True)
class CopyReport:
    """What was written, or with ``dry_run`` what would be.

    Attributes:
        out: the output folder or file.
        files: safetensors files written.
        nbytes: their size in bytes.
        side_files: other files copied from the input folder.
        left_out: weight files of the input folder that are not part of the checkpoint and were not
            copied, because they hold weights that the patch does not change.
        tensors: tensors in the model.
        changed_tensors: tensors that the patch changes.
        changed_words: words that it changes.
        dry_run: nothing was written, and the model's contents were not compared.
        merged: how an additive patch was merged; None for exact steps.
    """

    out: Path
    files: int
    nbytes: int
    side_files: int
    left_out: tuple[Path, ...]
    tensors: int
    changed_tensors: int
    changed_words: int
    dry_run: bool
    merged: MergeReport | None = None


def write_patched_copy(
    patch_path: str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    revert: bool,
    options: MergeOptions | None = None,
    dry_run: bool,
    threads: int | None,
    progress: Progress,
) -> CopyReport:
    """Write the model's other state to ``out``; :func:`patchc.apply` states the contract."""
    out = Path(out)
    with open_patch(patch_path) as patch, open_checkpoint(model_path) as model:
        if revert and patch.additive:
            raise _irreversible(patch)
        merged = plan_merge(patch, options or MergeOptions())
        check_output(out, (model.path, patch.path))
        if out.is_dir() and not model.is_folder:
            raise OutputError(f"output {out} is a folder and the model is a file; name a file")
        match_tensors(patch, model)
        check_space(out, model.nbytes)
        report = _report(patch, model, out, dry_run, merged)
        if dry_run:
            return report
        with Workers(threads) as workers:
            if merged:
                merged = _merge(patch, model, out, merged, workers, progress)
                return replace(report, merged=merged)
            try:
                with _staged(model, out) as copy:
                    rewrite(patch, model, copy.write_words, revert, workers, progress)
            except OtherStateError as error:
                raise _explain(patch, model, revert, workers, progress) from error
        return report


@contextmanager
def _staged(model: Checkpoint, out: Path) -> Iterator[CheckpointCopy]:
    stage = staged_folder if model.is_folder else staged_file
    with stage(out) as staging, CheckpointCopy(model, staging) as copy:
        copy.copy_side_files()
        yield copy


def _merge(
    patch: Patch,
    model: Checkpoint,
    out: Path,
    merged: MergeReport,
    workers: Workers,
    progress: Progress,
) -> MergeReport:
    scales, descendant = tuple(merged.scales.values()), merged.onto_descendant
    try:
        with _staged(model, out) as copy:
            names = merge(patch, model, copy.write_words, scales, descendant, workers, progress)
    except WrongBaseError as error:
        raise WrongBaseError(
            f"{error}. If it was tuned further from that base, --onto-descendant takes it"
        ) from error
    return merged.with_differing(names)


def _irreversible(patch: Patch) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"{patch.path} holds additive values, which cannot be taken back: the rounding of the sum "
        "loses the base. Keep the base model and use that, or build the patch with --values ulp"
    )


def _explain(
    patch: Patch, model: Checkpoint, revert: bool, workers: Workers, progress: Progress
) -> PatchcError:
    states = find_states(patch, model, workers, progress)
    if states.chunks_at_base and states.chunks_at_result:
        return PartlyPatchedError(
            f"{model.path} is partly patched: {states.chunks_at_result} chunks hold the patch and "
            f"{states.chunks_at_base} do not; start again from an intact copy"
        )
    if revert:
        return NotPatchedError(
            f"{model.path} does not hold {patch.path}: it is the base already; nothing to revert"
        )
    return AlreadyPatchedError(
        f"{model.path} already holds {patch.path}; there is nothing to apply"
    )


def _report(
    patch: Patch, model: Checkpoint, out: Path, dry_run: bool, merged: MergeReport | None
) -> CopyReport:
    kept, left = model.side_files()
    changed = [tensor for tensor in patch.index.tensors.values() if tensor.chunks]
    return CopyReport(
        out=out,
        files=len(model.shards),
        nbytes=model.nbytes,
        side_files=len(kept),
        left_out=tuple(left),
        tensors=len(model.tensors),
        changed_tensors=len(changed),
        changed_words=int(patch.index.entries.sum()),
        dry_run=dry_run,
        merged=merged,
    )
