"""``patchc report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli.options import Json, PatchFile, argument, option


def report(
    patch: PatchFile,
    out: Annotated[Path, option("HTML file to write.", "-o", "--out")],
    results: Annotated[
        list[Path] | None,
        argument(
            "What was measured with PATCH: what evaluate --json printed, report.json of fix, "
            "results files of evaluate -o, traces of fit, landscapes.",
            "RESULTS...",
        ),
    ] = None,
    no_replies: Annotated[
        bool, option("Leave out all requests and replies; their counts stay.", "--no-replies")
    ] = False,
    title: Annotated[
        str | None, option("What the page is called.", shown="the patch's name")
    ] = None,
    json: Json = False,
) -> None:
    """Write one HTML file on a patch and its results, for who has to approve it. Needs no model.

    The file holds no script and loads nothing.

    Example: patchc report fix.patchc report.json -o report.html
    """
    import patchc
    from patchc.cli.output import print_facts, print_json, size

    page = patchc.report(patch, results or (), out=out, replies=not no_replies, title=title)
    if json:
        print_json(page)
        return
    facts: dict[str, object] = {
        "title": page.title,
        "size": size(page.size),
        "parts": ", ".join(page.shown),
    }
    if page.missing:
        facts["not given"] = ", ".join(page.missing)
    print_facts(f"report: wrote {out}", facts)
