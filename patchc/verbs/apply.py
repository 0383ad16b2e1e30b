"""Apply a patch to its base."""

from __future__ import annotations

import os

from patchc.progress import Progress, ignore_progress
from patchc.verbs.patched_copy import CopyReport, write_patched_copy


def apply(
    patch: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    dry_run: bool = False,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> CopyReport:
    """Write the patched model to ``out``, bit for bit what the patch promises.

    Shard names, tensor order, metadata, file modes and side files are the model's; untouched
    tensors are byte-identical. The output appears whole or not at all. Memory does not grow with
    the model.

    Args:
        patch: a patch file.
        model: its base: a checkpoint folder or a safetensors file.
        out: a new or empty folder (for a folder), or a new file.
        dry_run: check everything but the contents, and write nothing.
        threads: worker threads; None means one a core.
        progress: called with the bytes done.

    Raises:
        WrongBaseError: the model is not the base; names the first tensor that differs.
        AlreadyPatchedError: the model holds the patch already.
        PartlyPatchedError: some of its chunks do.
        PatchFormatError, UnsupportedPatchError: the patch cannot be read.
        CheckpointError, UnsupportedInputError: the model cannot be read.
        OutputError, StorageError: the output cannot be written.
        ResultMismatchError: the outcome is not the promised one.
    """
    return write_patched_copy(
        patch, model, out, revert=False, dry_run=dry_run, threads=threads, progress=progress
    )
