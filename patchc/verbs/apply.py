"""Apply a patch to its base."""

from __future__ import annotations

import os

from patchc.progress import Progress, ignore_progress
from patchc.verbs.merging import MergeOptions
from patchc.verbs.patched_copy import CopyReport, write_patched_copy


def apply(
    patch: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    alpha: float | None = None,
    beta: float | None = None,
    onto_descendant: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> CopyReport:
    """Write the patched model to ``out``, bit for bit what the patch promises.

    Shard names, tensor order, metadata, file modes and side files are the model's; untouched
    tensors are byte-identical. The output appears whole or not at all. Memory does not grow with
    the model.

    An additive patch promises no result: the scaled deltas are added to the model's own values and
    rounded once. It cannot be reverted, and a patched model cannot be told from any other.

    Args:
        patch: a patch file.
        model: its base: a checkpoint folder or a safetensors file.
        out: a new or empty folder (for a folder), or a new file.
        alpha, beta: scales of an additive patch's "se" and "osm" components; None means those that
            it stores.
        onto_descendant: apply an additive patch to a model with the base's names, dtypes and
            shapes and other values; the report says how many tensors differ.
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
        NumericError: a merged value is not finite; names tensor and flat index.
        UsageError: alpha, beta or onto_descendant with a patch of exact steps, or out of range.
    """
    return write_patched_copy(
        patch,
        model,
        out,
        revert=False,
        options=MergeOptions(alpha, beta, onto_descendant),
        dry_run=dry_run,
        threads=threads,
        progress=progress,
    )
