"""``patchc verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli.options import Json, MaxMemory, PatchFile, Threads, argument, without


def verify(
    patch: PatchFile,
    model: Annotated[Path | None, argument("Checkpoint folder or safetensors file.")] = None,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    json: Json = False,
) -> None:
    """Check that a patch is intact, and with MODEL whether it is the base or already patched.

    Exit code 0: intact; with MODEL: it is the base, or patched. 10: partly patched. 7: neither. A
    model that holds an additive patch cannot be recognised, and ends with 7 too.

    Example: patchc verify fix.patchc models/chat
    """
    given = without(locals(), "json")
    import patchc
    from patchc.cli.output import (
        patched_name,
        print_facts,
        print_json,
        print_next,
        reverted_name,
    )
    from patchc.cli.showing_progress import showing_progress
    from patchc.errors import PartlyPatchedError, WrongBaseError

    with showing_progress() as progress:
        report = patchc.verify(**given, progress=progress)
    if json:
        print_json(report)
    else:
        facts: dict[str, object] = {"patch": "intact", "root": report.root}
        if model is not None:
            facts["model"] = report.state
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
        if report.state == "base" and model is not None:
            print_next("apply", patch, model, "-o", patched_name(model))
        if report.state == "patched" and model is not None:
            out = reverted_name(model)
            print_next("revert", patch, model, "-o", out, what="to take it back")
    if report.state == "partly patched":
        raise PartlyPatchedError(
            f"{model} is partly patched; where a run in place was interrupted, run it again: "
            "apply --in-place completes it, revert --in-place takes it back. Else start again from "
            "an intact copy"
        )
    if report.state in ("neither", "not the base"):
        raise WrongBaseError(report.difference)
