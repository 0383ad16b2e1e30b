"""Apply a patch to its base."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchc.errors import UsageError
from patchc.formats import open_patch
from patchc.hub_models import takes_models
from patchc.patching.apply_report import ApplyReport
from patchc.patching.in_place import InPlaceOptions, change_in_place
from patchc.patching.left_alone import SideFileOptions
from patchc.patching.merge_options import STORED_SCALES, MergeOptions
from patchc.patching.patched_copy import write_patched_copy
from patchc.progress import Progress, ignore_progress
from patchc.runtime.ranks import shared_ranks
from patchc.runtime.runtime import Runtime
from patchc.sides import Side
from patchc.signing.trust import ANYBODY, Trust, demand_trust

if TYPE_CHECKING:
    import torch


@takes_models("model", "repair_from")
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
    resume: bool = False,
    repair_from: str | os.PathLike[str] | None = None,
    keep_side_files: bool = False,
    strict_side_files: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    device: str | torch.device = "cpu",
    trust: Trust = ANYBODY,
    progress: Progress = ignore_progress,
) -> ApplyReport:
    """Write the patched model to ``out``, bit for bit what the patch promises.

    Shard names, tensor order, metadata, file modes and side files are the model's; untouched
    tensors are byte-identical. A side file that the patch adds gets the mode 0644. The output
    appears whole or not at all. Memory does not grow with the model.

    A side file that the patch changes has to be the base's, as the weights have. Model cards, and
    ``.gitattributes``, may differ or be missing: they are left as they are, and the report names
    them.

    With ``in_place``, the model's own files are written instead. Everything is read first. A model
    with a chunk that is neither the base's nor the result's is refused before anything is written.
    A model that holds the patch already is not changed. Chunks are written in groups; a journal
    beside the model has what restores a group before it is touched, and ends with the run. Each
    chunk is checked before it is written. Whatever interrupts a run, the same call, repeated,
    completes it, and the other verb takes it back; torn chunks are restored first.

    An additive patch adds scaled deltas to the model's own values and rounds once; its components
    are safety enhancement (SE) and over-safety mitigation (OSM). It promises no result, cannot be
    reverted, and cannot be recognised in a model.

    Args:
        patch: a patch file.
        model: its base: a checkpoint folder or a safetensors file.
        out: a new or empty folder (for a folder), or a new file.
        in_place: write into the model's files, which must be the model's own: no links that leave
            its folder, no hub's cache, no hard links. Only for exact steps that change nothing but
            the values of tensors, and side files that are then left alone.
        alpha, beta: scales of an additive patch's SE and OSM components; None means the stored
            ones.
        onto_descendant: apply an additive patch to a model with the base's names, dtypes and
            shapes and other values; the report says how many tensors differ.
        dry_run: check everything but the contents, and write nothing.
        resume: says what a repeated run in place does anyway.
        repair_from: in place, an intact copy of the base or of the result; torn chunks that no
            journal restores are restored from it, and foreign ones refused.
        keep_side_files: leave other side files alone, too, where they are not the base's; in place,
            all that the patch changes. The index of shards belongs to the weights.
        strict_side_files: refuse a model for any side file that is not the base's, cards too.
        threads: worker threads; None means one per core.
        max_memory: bytes that the process may take, to within a tenth; it limits the threads. None
            means 300 MB.
        device: where additive values are added: "cpu", "cuda", "cuda:1", a ``torch.device``, or
            "auto" (CUDA if torch finds a device). The result is the same. The CPU always adds exact
            steps.
        trust: who must have signed the patch, beside what the policies in force ask for, and
            whether it may bring code.
        progress: called with the bytes done.

    Raises:
        WrongBaseError: the model is not the base; names the first tensor that differs.
        SideFileError: its weights are the base's, and side files are not; names them.
        AlreadyPatchedError: the model holds the patch already and ``out`` is given.
        PartlyPatchedError: some of its chunks do and ``out`` is given; in place, a run with another
            patch was cut off there.
        InUseError: another process works on the model in place, or on the output.
        PatchFormatError, UnsupportedPatchError: the patch cannot be read.
        CheckpointError, UnsupportedInputError: the model cannot be read, the patch cannot be
            applied in place, or a descendant's weights are quantised.
        OutputError, StorageError: the output, or the model in place, cannot be written.
        ResultMismatchError: the outcome is not the promised one.
        CodeError: the patch would write files that a loader or an interpreter runs, and ``trust``
            does not allow code; names them.
        NumericError: a merged value is not finite; names tensor and flat index.
        UsageError: both ``out`` and ``in_place``, or neither; resume or repair_from without
            ``in_place``; alpha, beta or onto_descendant with a patch of exact steps, or out of
            range; side files shall be kept and refused; CUDA is asked for and there is none.
        SignatureError: the patch does not satisfy a policy, or a policy or a key cannot be used.
        MissingExtraError: CUDA is asked for, and torch or triton is not installed; or a policy is
            in force, and the extra ``sign`` is not.
    """
    merge = MergeOptions(alpha, beta, onto_descendant)
    side_files = SideFileOptions(keep_side_files, strict_side_files)
    options = ChangeOptions(in_place, dry_run, resume, repair_from, side_files)
    runtime = Runtime(threads, max_memory, device, shared_ranks(), progress)
    return change_model(patch, model, out, "result", options, trust, runtime, merge)


@dataclass(frozen=True)
class ChangeOptions:
    """What apply and revert take alike; :func:`apply` explains it."""

    in_place: bool
    dry_run: bool
    resume: bool
    repair_from: str | os.PathLike[str] | None
    side_files: SideFileOptions


def change_model(
    patch: str | os.PathLike[str],
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    target: Side,
    options: ChangeOptions,
    trust: Trust,
    runtime: Runtime,
    merge: MergeOptions = STORED_SCALES,
) -> ApplyReport:
    """Take a model to one side of a patch, in a copy or in place; for apply and revert.

    Raises:
        UsageError: the options do not fit each other; several ranks in place.
    """
    if options.in_place and out is not None:
        raise UsageError("an output and a run in place exclude each other; give one of them")
    if options.in_place and runtime.ranks.size > 1:
        raise UsageError(
            "a run in place is one process; start it without torchrun, or give an output (-o)"
        )
    if not options.in_place:
        if options.resume or options.repair_from is not None:
            raise UsageError("only a run in place is resumed or repaired; add --in-place")
        if out is None:
            raise UsageError(
                "there is no output; give one (-o), or ask for a run in place (--in-place)"
            )
    with open_patch(patch) as opened:
        policies = demand_trust(opened, trust)
        if out is not None:
            report = write_patched_copy(
                opened,
                model,
                Path(out),
                target,
                merge,
                options.dry_run,
                runtime,
                trust.allow_code,
                options.side_files,
            )
        else:
            runtime.check_device()
            in_place = InPlaceOptions(options.dry_run, options.repair_from, options.side_files)
            report = change_in_place(opened, model, target, merge, in_place, runtime)
        return replace(report, policies=policies)
