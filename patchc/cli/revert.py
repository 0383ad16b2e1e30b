"""``patchc revert``."""

from __future__ import annotations

from patchc.cli.options import (
    CopyDevice,
    Device,
    DryRun,
    InPlace,
    Json,
    MaxMemory,
    ModelPath,
    OutModel,
    PatchFile,
    Threads,
)


def revert(
    patch: PatchFile,
    model: ModelPath,
    out: OutModel = None,
    in_place: InPlace = False,
    dry_run: DryRun = False,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    device: CopyDevice = Device.CPU,
    json: Json = False,
) -> None:
    """Take the patch back: write the base of a patched MODEL, bit for bit.

    Example: patchc revert fix.patchc models/chat-fixed -o models/chat

    Example: patchc revert fix.patchc models/chat --in-place
    """
    import patchc
    from patchc.cli.copies import render
    from patchc.cli.ranks import shared_work

    with shared_work() as (ranks, progress):
        report = patchc.revert(
            patch,
            model,
            out=out,
            in_place=in_place,
            dry_run=dry_run,
            threads=threads,
            max_memory=max_memory,
            device=device.value,
            progress=progress,
            ranks=ranks,
        )
    render(report, "revert", json)
