"""Take a patch back."""

from __future__ import annotations

import os

from patchc.patching.in_place import InPlaceReport, change_in_place, check_target
from patchc.patching.patched_copy import CopyReport, write_patched_copy
from patchc.progress import Progress, ignore_progress
from patchc.runtime.device import Device, check_device
from patchc.runtime.ranks import ALONE, Ranks


def revert(
    patch: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    device: Device = "cpu",
    progress: Progress = ignore_progress,
    ranks: Ranks = ALONE,
) -> CopyReport | InPlaceReport:
    """Write the base of a patched model to ``out``, or with ``in_place`` where it is, bit for bit.

    The same guarantees, arguments and errors as :func:`patchc.apply`, with ``model`` the patched
    one; a model that does not hold the patch raises :class:`~patchc.errors.NotPatchedError`, and in
    place is left as it is. An additive patch cannot be taken back:
    :class:`~patchc.errors.UnsupportedInputError`.
    """
    check_target(out, in_place, ranks)
    if out is None:
        check_device(device)
        return change_in_place(
            patch,
            model,
            revert=True,
            dry_run=dry_run,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
    return write_patched_copy(
        patch,
        model,
        out,
        revert=True,
        dry_run=dry_run,
        threads=threads,
        max_memory=max_memory,
        device=device,
        progress=progress,
        ranks=ranks,
    )
