"""``patchc fold``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli import options as shared
from patchc.cli.options import Json, OutPatch, Threads, argument, option, without
from patchc.cli.signature_options import Require, Signatures, Trusted
from patchc.cli.trust_options import policy_facts, with_trust


def fold(
    patches: Annotated[list[Path], argument("Patch files in their order.", "PATCH PATCH...")],
    out: OutPatch,
    base: Annotated[
        Path | None,
        option(
            "Base of the first patch, for patches coded given their base's words.",
            metavar="MODEL",
            parser=shared.model,
        ),
    ] = None,
    threads: Threads = None,
    trusted: Trusted = None,
    require: Require = None,
    signatures: Signatures = None,
    allow_code: Annotated[
        bool,
        option(
            "As for apply. Changes nothing: fold takes no patches with files, and so no code.",
            "--allow-code",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make one patch of consecutive ones: from the first one's base to the last one's result.

    The result of each must be the base of the next. Patches made with --codec rice need no model.

    Example: patchc fold monday.patchc tuesday.patchc --base models/chat -o both.patchc
    """
    given = with_trust(without(locals(), "json"))
    import patchc
    from patchc.cli.output import print_facts, print_json, print_next
    from patchc.cli.patches import patch_facts
    from patchc.cli.showing_progress import showing_progress

    with showing_progress() as progress:
        report = patchc.fold(**given, progress=progress)
    if json:
        print_json(report)
    else:
        facts = {"folded": f"{len(patches)} patches"} | patch_facts(report)
        facts |= policy_facts(report.policies)
        print_facts(f"fold: wrote {out}", facts)
        print_next("verify", out, *([base] if base else []))
