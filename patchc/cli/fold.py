"""``patchc fold``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchc.cli.options import Json, OutPatch, Threads


def fold(
    patches: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATCH PATCH...", help="Patch files in their order.", show_default=False
        ),
    ],
    out: OutPatch,
    base: Annotated[
        Path | None,
        typer.Option(
            help="Base of the first patch, for patches coded given their base's words.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Make one patch of consecutive ones: from the first one's base to the last one's result.

    The result of each must be the base of the next. Patches made with --codec rice need no model.

    Example: patchc fold monday.patchc tuesday.patchc --base models/chat -o both.patchc
    """
    import patchc
    from patchc.cli.output import print_facts, print_json, progress_bar
    from patchc.cli.patches import patch_facts

    with progress_bar() as progress:
        report = patchc.fold(patches, out=out, base=base, threads=threads, progress=progress)
    if json:
        print_json(report)
    else:
        facts = {"folded": f"{len(patches)} patches"} | patch_facts(report)
        print_facts(f"fold: wrote {out}", facts)
