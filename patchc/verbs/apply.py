"""Apply a patch to its base."""

from __future__ import annotations

import os

from patchc.patching.in_place import InPlaceReport, change_in_place, check_target
from patchc.patching.merge_options import MergeOptions
from patchc.patching.patched_copy import CopyReport, write_patched_copy
from patchc.progress import Progress, ignore_progress
from patchc.runtime.device import Device, check_device
from patchc.runtime.ranks import ALONE, Ranks


def apply(
    patch: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    alpha: float | None = None,
    beta: float | None = None,
    onto_descendant: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    device: Device = "cpu",
    progress: Progress = ignore_progress,
    ranks: Ranks = ALONE,
) -> CopyReport | InPlaceReport:
    """Write the patched model to ``out``, bit for bit what the patch promises.

    Shard names, tensor order, metadata, file modes and side files are the model's; untouched
    tensors are byte-identical. The output appears whole or not at all. Memory does not grow with
    the model.

    With ``in_place``, the model's own files are written instead. Everything is read first; what is
    neither the base nor the result, chunk by chunk, is refused before anything is written, and a
    model that holds the patch is left as it is. Each chunk is checked before it is written, and is
    durable before the next. An interrupted run leaves a partly patched model: repeated, it goes on.
    A chunk that was being written just then may be torn, and is refused by its tensor's name.

    An additive patch promises no result: the scaled deltas are added to the model's own values and
    rounded once. It cannot be reverted, and a patched model cannot be told from any other.

    Args:
        patch: a patch file.
        model: its base: a checkpoint folder or a safetensors file.
        out: a new or empty folder (for a folder), or a new file.
        in_place: write into the model's files; for exact steps, and updates that change nothing but
            the values of tensors. Symbolic links are followed.
        alpha, beta: scales of an additive patch's "se" and "osm" components; None means those that
            it stores.
        onto_descendant: apply an additive patch to a model with the base's names, dtypes and
            shapes and other values; the report says how many tensors differ.
        dry_run: check everything but the contents, and write nothing.
        threads: worker threads; None means one a core.
        max_memory: bytes that the process may take, to within a tenth: fewer threads run where more
            would not fit. None means 300 MB.
        device: where additive values are added: "cpu", "cuda", or "auto" for CUDA where torch finds
            a device; or a :class:`~patchc.runtime.device_pool.DevicePool`.
            The result is the same. Exact
            steps are added by the CPU, for which that is less work than the way to a device.
        progress: called with the bytes done.
        ranks: the ranks that share the work, each with a contiguous run of the tensors, which it
            writes into one output on a file system that all of them see; not in place.

    Raises:
        WrongBaseError: the model is not the base; names the first tensor that differs.
        AlreadyPatchedError: the model holds the patch already and ``out`` is given.
        PartlyPatchedError: some of its chunks do and ``out`` is given.
        PatchFormatError, UnsupportedPatchError: the patch cannot be read.
        CheckpointError, UnsupportedInputError: the model cannot be read, or the patch not be
            applied in place.
        OutputError, StorageError: the output, or the model in place, cannot be written.
        ResultMismatchError: the outcome is not the promised one.
        NumericError: a merged value is not finite; names tensor and flat index.
        UsageError: both ``out`` and ``in_place``, or neither; alpha, beta or onto_descendant with a
            patch of exact steps, or out of range; CUDA is asked for and there is no such device.
        MissingExtraError: CUDA is asked for, and torch or triton is not installed.
    """
    check_target(out, in_place, ranks)
    options = MergeOptions(alpha, beta, onto_descendant)
    if out is None:
        check_device(device)
        return change_in_place(
            patch,
            model,
            revert=False,
            options=options,
            dry_run=dry_run,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
    return write_patched_copy(
        patch,
        model,
        out,
        revert=False,
        options=options,
        dry_run=dry_run,
        threads=threads,
        max_memory=max_memory,
        device=device,
        progress=progress,
        ranks=ranks,
    )
