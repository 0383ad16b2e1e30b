"""``patchc apply``."""

from __future__ import annotations

from patchc.cli.options import DryRun, Json, ModelPath, OutModel, PatchFile, Threads


def apply(
    patch: PatchFile,
    model: ModelPath,
    out: OutModel,
    dry_run: DryRun = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write MODEL with the patch applied; exact, checked, whole or not at all.

    Example: patchc apply fix.patchc models/chat -o models/chat-fixed
    """
    import patchc
    from patchc.cli.copies import render_copy
    from patchc.cli.output import progress_bar

    with progress_bar() as progress:
        report = patchc.apply(
            patch, model, out=out, dry_run=dry_run, threads=threads, progress=progress
        )
    render_copy(report, "apply", json)
