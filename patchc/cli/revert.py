"""``patchc revert``."""

from __future__ import annotations

from patchc.cli.options import DryRun, Json, ModelPath, OutModel, PatchFile, Threads


def revert(
    patch: PatchFile,
    model: ModelPath,
    out: OutModel,
    dry_run: DryRun = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Take the patch back: write the base of a patched MODEL, bit for bit.

    Example: patchc revert fix.patchc models/chat-fixed -o models/chat
    """
    import patchc
    from patchc.cli.copies import render_copy
    from patchc.cli.output import progress_bar

    with progress_bar() as progress:
        report = patchc.revert(
            patch, model, out=out, dry_run=dry_run, threads=threads, progress=progress
        )
    render_copy(report, "revert", json)
