"""``patchc annotate``."""

from __future__ import annotations

from typing import Annotated

from patchc.cli.options import Json, OutPatch, PatchFile, option, without


def annotate(
    patch: PatchFile,
    out: OutPatch,
    name: Annotated[
        str | None, option("What to call the patch, in one line; '' removes the name.")
    ] = None,
    note: Annotated[
        str | None, option("What to say about it, in lines; '' removes the note.")
    ] = None,
    results: Annotated[
        str | None,
        option(
            "What `patchc evaluate --json` printed, its results file, or report.json of `patchc "
            "fix`: rates and digests are stored, no reply; '' removes them.",
            metavar="FILE",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a patch again with a name, a note and measured results. Its changes stay the same.

    The new file has a root digest of its own, so that it is not signed; base and result are those
    of PATCH.

    Example: patchc annotate fix.patchc --name "No cellar key" --results report.json -o named.patchc
    """
    given = without(locals(), "json")
    import patchc
    from patchc.cli.annotations import annotation_facts, print_results
    from patchc.cli.output import print_facts, print_json, print_next, tell

    report = patchc.annotate(**given)
    if json:
        print_json(report)
        return
    facts = {"old root": report.old_root, "new root": report.root}
    print_facts(f"annotate: wrote {out}", annotation_facts(report.annotation) | facts)
    print_results(report.annotation)
    if report.signatures_dropped:
        many = "a signature" if report.signatures_dropped == 1 else "signatures"
        tell(f"{patch} has {many}, which {out} has not: they are of the old root; sign it again")
    print_next("inspect", out)
