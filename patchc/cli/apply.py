"""``patchc apply``."""

from __future__ import annotations

from typing import Annotated

import typer

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

_ADDITIVE = "Additive patches"


def apply(
    patch: PatchFile,
    model: ModelPath,
    out: OutModel = None,
    in_place: InPlace = False,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Scale of the SE delta; where the patch was built with fitted scales, a multiple "
            "of them.",
            show_default="as stored",
            rich_help_panel=_ADDITIVE,
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="Scale of the OSM delta, likewise.",
            show_default="as stored",
            rich_help_panel=_ADDITIVE,
        ),
    ] = None,
    onto_descendant: Annotated[
        bool,
        typer.Option(
            "--onto-descendant",
            help="Take a MODEL that was tuned further from the base; what differs is reported.",
            rich_help_panel=_ADDITIVE,
        ),
    ] = False,
    dry_run: DryRun = False,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    device: CopyDevice = Device.CPU,
    json: Json = False,
) -> None:
    """Write MODEL with the patch applied; exact, checked, whole or not at all.

    With --in-place, MODEL itself is patched: checked in full first, then only what changes is
    written. On a patched MODEL there is nothing to do, and that is no error.

    An additive patch takes other scales and descendants of its base, and cannot be reverted.

    Example: patchc apply fix.patchc models/chat -o models/chat-fixed

    Example: patchc apply fix.patchc models/chat --in-place
    """
    import patchc
    from patchc.cli.copies import render
    from patchc.cli.ranks import shared_work

    with shared_work() as (ranks, progress):
        report = patchc.apply(
            patch,
            model,
            out=out,
            in_place=in_place,
            alpha=alpha,
            beta=beta,
            onto_descendant=onto_descendant,
            dry_run=dry_run,
            threads=threads,
            max_memory=max_memory,
            device=device.value,
            progress=progress,
            ranks=ranks,
        )
    render(report, "apply", json)
