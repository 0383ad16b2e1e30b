"""Take a patch back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from patchc.hub_models import takes_models
from patchc.patching.apply_report import ApplyReport
from patchc.patching.left_alone import SideFileOptions
from patchc.progress import Progress, ignore_progress
from patchc.runtime.ranks import shared_ranks
from patchc.runtime.runtime import Runtime
from patchc.signing.trust import ANYBODY, Trust
from patchc.verbs.apply import ChangeOptions, change_model

if TYPE_CHECKING:
    import torch


@takes_models("model", "repair_from")
def revert(
    patch: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    in_place: bool = False,
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
    """Write the base of a patched model to ``out``, or with ``in_place`` into its files.

    Guarantees, arguments and errors are those of :func:`patchc.apply`; ``model`` is the patched
    model, whose side files have to be those of the patch's result.

    Raises:
        NotPatchedError: the model does not hold the patch; in place it is then left unchanged.
        UnsupportedInputError: the patch is additive and cannot be taken back.
    """
    runtime = Runtime(threads, max_memory, device, shared_ranks(), progress)
    side_files = SideFileOptions(keep_side_files, strict_side_files)
    options = ChangeOptions(in_place, dry_run, resume, repair_from, side_files)
    return change_model(patch, model, out, "base", options, trust, runtime)
