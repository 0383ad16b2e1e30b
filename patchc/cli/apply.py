"""``patchc apply``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from patchc.cli import options as shared
from patchc.cli.options import option, without
from patchc.cli.signature_options import Require, Signatures, Trusted
from patchc.cli.trust_options import AllowCode, with_trust

_of_additive = partial(option, panel="Additive patches")


def apply(
    patch: shared.PatchFile,
    model: shared.ModelPath,
    out: shared.OutModel = None,
    in_place: shared.InPlace = False,
    alpha: Annotated[
        float | None,
        _of_additive(
            "Scale of the safety-enhancement (SE) delta; where the patch was built with fitted "
            "scales, a multiple of them.",
            shown="as stored",
        ),
    ] = None,
    beta: Annotated[
        float | None,
        _of_additive(
            "Scale of the over-safety-mitigation (OSM) delta, likewise.", shown="as stored"
        ),
    ] = None,
    onto_descendant: Annotated[
        bool,
        _of_additive(
            "Take a MODEL that was tuned further from the base; what differs is reported.",
            "--onto-descendant",
        ),
    ] = False,
    dry_run: shared.DryRun = False,
    resume: shared.Resume = False,
    repair_from: shared.RepairFrom = None,
    keep_side_files: shared.KeepSideFiles = False,
    strict_side_files: shared.StrictSideFiles = False,
    threads: shared.Threads = None,
    max_memory: shared.MaxMemory = None,
    device: shared.CopyDevice = "cpu",
    trusted: Trusted = None,
    require: Require = None,
    signatures: Signatures = None,
    allow_code: AllowCode = False,
    json: shared.Json = False,
) -> None:
    """Write MODEL with the patch applied; exact, checked, whole or not at all.

    With --in-place, MODEL itself is patched: checked in full first, then only what changes is
    written. On a patched MODEL there is nothing to do, and that is no error.

    An additive patch takes other scales and descendants of its base, and cannot be reverted.

    Example: patchc apply fix.patchc models/chat -o models/chat-patched

    Example: patchc apply fix.patchc models/chat --in-place
    """
    given = with_trust(without(locals(), "json"))
    import patchc
    from patchc.cli.copies import render
    from patchc.cli.ranks import shared_work

    with shared_work() as progress:
        report = patchc.apply(**given, progress=progress)
    render(report, "apply", patch, json, given["trust"], keep_side_files)
