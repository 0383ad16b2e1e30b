"""``patchc verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli import options as shared
from patchc.cli.options import (
    Json,
    KeepSideFiles,
    MaxMemory,
    PatchFile,
    StrictSideFiles,
    Threads,
    argument,
    without,
)
from patchc.cli.signature_options import Require, Signatures, Trusted
from patchc.cli.trust_options import trust_words, with_trust


def verify(
    patch: PatchFile,
    model: Annotated[
        Path | None,
        argument("Checkpoint folder, safetensors file, or hub id.", parser=shared.model),
    ] = None,
    trusted: Trusted = None,
    require: Require = None,
    signatures: Signatures = None,
    keep_side_files: KeepSideFiles = False,
    strict_side_files: StrictSideFiles = False,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    json: Json = False,
) -> None:
    """Check that a patch is intact and who signed it, and whether MODEL is the base or patched.

    Exit code 0: intact; signed as --trusted or a policy requires; with MODEL: it is the base, or
    patched. 23: not signed as required. 10: partly patched. 7: neither. 24: its weights are, and
    side files other than model cards are not. A model that holds an additive patch cannot be
    recognised, and ends with 7 too.

    Example: patchc verify fix.patchc models/chat
    """
    given = with_trust(without(locals(), "json"))
    import patchc
    from patchc.cli.file_notes import (
        print_code_report,
        print_name_notes,
        print_side_files,
        side_file_words,
    )
    from patchc.cli.output import (
        patched_name,
        print_facts,
        print_json,
        print_next,
        reverted_name,
    )
    from patchc.cli.showing_progress import showing_progress
    from patchc.cli.signatures import signature_facts
    from patchc.errors import PartlyPatchedError, WrongBaseError
    from patchc.patching.left_alone import refusal
    from patchc.sides import Side
    from patchc.signing.trust import demand_all

    with showing_progress() as progress:
        report = patchc.verify(**given, progress=progress)
    held: Side = "result" if report.state == "patched" else "base"
    refused = refusal(patch, model, held, report.side_files)
    if json:
        print_json(report)
    else:
        facts: dict[str, object] = {"patch": "intact", "root": report.root}
        facts |= signature_facts(report)
        if model is not None:
            facts["model"] = report.state
            facts |= {"base": report.base, "result": report.result}
            if report.state == "not the base":
                facts["note"] = "a model that holds this additive patch cannot be recognised"
            else:
                facts["chunks"] = f"{report.chunks_at_base} base, {report.chunks_at_result} patched"
                if report.chunks_torn:
                    facts["torn"] = f"{report.chunks_torn} of them, which the journal restores"
                if report.journal:
                    facts["journal"] = "of an interrupted run in place; the next one ends it"
                if report.files_at_base or report.files_at_result:
                    facts["files"] = (
                        f"{report.files_at_base} base, {report.files_at_result} patched"
                    )
        print_facts(f"verify: {patch}", facts)
        print_side_files(report.side_files)
        print_code_report(report.code)
        print_name_notes(report.name_notes)
        asked = None if refused or report.signature == "not as required" else model
        same = [*trust_words(given["trust"]), *side_file_words(report.side_files)]
        if report.state == "base" and asked:
            print_next("apply", patch, asked, "-o", patched_name(asked), *same)
        if report.state == "patched" and asked:
            out = reverted_name(asked)
            print_next("revert", patch, asked, "-o", out, *same, what="to take it back")
    demand_all(report.policies)
    if report.state == "partly patched":
        raise PartlyPatchedError(
            f"{model} is partly patched; where a run in place was interrupted, run it again: "
            "apply --in-place completes it, revert --in-place takes it back. Else start again from "
            "an intact copy"
        )
    if report.state in ("neither", "not the base"):
        raise WrongBaseError(report.difference)
    if refused:
        raise refused
