"""``patchc revert``."""

from __future__ import annotations

from patchc.cli import options as shared
from patchc.cli.options import without
from patchc.cli.signature_options import Require, Signatures, Trusted
from patchc.cli.trust_options import AllowCode, with_trust


def revert(
    patch: shared.PatchFile,
    model: shared.ModelPath,
    out: shared.OutModel = None,
    in_place: shared.InPlace = False,
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
    """Take the patch back: write the base of a patched MODEL, bit for bit.

    Example: patchc revert fix.patchc models/chat-patched -o models/chat

    Example: patchc revert fix.patchc models/chat --in-place
    """
    given = with_trust(without(locals(), "json"))
    import patchc
    from patchc.cli.copies import render
    from patchc.cli.ranks import shared_work

    with shared_work() as progress:
        report = patchc.revert(**given, progress=progress)
    render(report, "revert", patch, json, given["trust"], keep_side_files)
