"""What apply and revert share: a checked copy of a model in its other state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from patchc.checkpoint import Checkpoint, CheckpointCopy, open_checkpoint
from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
    OutputError,
    PartlyPatchedError,
    PatchcError,
)
from patchc.files import check_output, check_space, staged_file, staged_folder
from patchc.formats import Patch, open_patch
from patchc.progress import Progress
from patchc.stream import Workers
from patchc.stream.rewrite import OtherStateError, find_states, match_tensors, rewrite


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


def write_patched_copy(
    patch_path: str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    revert: bool,
    dry_run: bool,
    threads: int | None,
    progress: Progress,
) -> CopyReport:
    """Write the model's other state to ``out``; :func:`patchc.apply` states the contract."""
    out = Path(out)
    with open_patch(patch_path) as patch, open_checkpoint(model_path) as model:
        check_output(out, (model.path, patch.path))
        if out.is_dir() and not model.is_folder:
            raise OutputError(f"output {out} is a folder and the model is a file; name a file")
        match_tensors(patch, model)
        check_space(out, model.nbytes)
        report = _report(patch, model, out, dry_run)
        if not dry_run:
            with Workers(threads) as workers:
                try:
                    _write(patch, model, out, revert, workers, progress)
                except OtherStateError as error:
                    raise _explain(patch, model, revert, workers, progress) from error
        return report


def _write(
    patch: Patch,
    model: Checkpoint,
    out: Path,
    revert: bool,
    workers: Workers,
    progress: Progress,
) -> None:
    stage = staged_folder if model.is_folder else staged_file
    with stage(out) as staging, CheckpointCopy(model, staging) as copy:
        copy.copy_side_files()
        rewrite(patch, model, copy.write_words, revert, workers, progress)


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


def _report(patch: Patch, model: Checkpoint, out: Path, dry_run: bool) -> CopyReport:
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
    )
