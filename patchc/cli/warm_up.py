"""``patchc warm-up``."""

from __future__ import annotations

from typing import Annotated

from patchc.cli.options import Json, argument


def warm_up(
    commands: Annotated[
        list[str] | None, argument("Commands to warm up; all by default.", "[COMMAND]...")
    ] = None,
    json: Json = False,
) -> None:
    """Compile what commands need, so that their first run starts at once.

    For the build of an image, or a script that installs: the code is kept for all later runs, in
    the folder that PATCHC_CACHE names, or in the user's cache. Where all is there, nothing is done.

    Example: patchc warm-up apply verify
    """
    import patchc
    from patchc.cli.output import print_facts, print_json
    from patchc.cli.showing_progress import showing_progress

    with showing_progress() as progress:
        report = patchc.warm_up(commands or (), progress=progress)
    if json:
        print_json(report)
        return
    facts: dict[str, object] = {
        "commands": ", ".join(report.commands),
        "loops": f"{report.compiled} compiled, {report.found} there already",
        "time": f"{report.seconds:.1f} s",
        "kept in": report.folder or "nowhere: these commands need no loops",
    }
    print_facts("warm-up: done", facts)
