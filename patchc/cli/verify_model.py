"""``patchc verify-model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli import options as shared
from patchc.cli.options import FollowLinks, Json, Threads, argument, option, without


def verify_model(
    model: Annotated[
        Path, argument("The model: a folder, a file or a hub id.", parser=shared.model)
    ],
    signature: Annotated[Path, option("The bundle, as sign-model wrote it.", metavar="FILE")],
    trusted: Annotated[
        list[str],
        option(
            "Public key (PEM) of who may sign, or a folder of such keys. Give it again for more.",
            metavar="KEY",
        ),
    ],
    follow_links: FollowLinks = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Check that a model's files are those that a trusted key has signed, all and no more.

    It takes OpenSSF model-signing bundles made with a key, whoever wrote them. Exit code 0: every
    file is as it was signed. 23: a file or the bundle is not, or the key is not trusted.

    Example: patchc verify-model models/fixed --signature fixed.sig --trusted keys/release.pub
    """
    given = without(locals(), "json")
    import patchc
    from patchc.cli.output import print_facts, print_json
    from patchc.cli.showing_progress import showing_progress

    with showing_progress() as progress:
        report = patchc.verify_model(**given, progress=progress)
    if json:
        print_json(report)
        return
    facts: dict[str, object] = {
        "files": f"{len(report.files)}, each as it was signed",
        "signed as": report.signed_as,
        "key": f"{report.key} ({report.key_id})",
        "digest": report.digest,
    }
    if report.left_out:
        facts["not signed"] = ", ".join(report.left_out)
    print_facts(f"verify-model: {model} is what {signature} signs", facts)
